//! From words to a tree, by recursive descent: one function for each level of the grammar.

use super::lexer::{Placed, Token, words};
use super::{Expr, Fault, MAX_DEPTH, MAX_NODES, MAX_SOURCE, Relation};

/// The expression that a text is.
///
/// # Errors
/// If it is none, or longer or deeper than is allowed.
pub(in super::super) fn parse(text: &str) -> Result<Expr, Fault> {
    if text.len() > MAX_SOURCE {
        return Err(Fault::new(format!("an expression has at most {MAX_SOURCE} bytes, this one {}", text.len()), ""));
    }
    let words = words(text)?;
    if words.is_empty() {
        return Err(Fault::new("the expression is empty", ""));
    }
    let mut parser = Parser { text, words: &words, next: 0, nodes: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.words.get(parser.next) {
        None => Ok(expr),
        Some(_) => Err(parser.unexpected("the end of the expression")),
    }
}

struct Parser<'a> {
    text: &'a str,
    words: &'a [Placed],
    next: usize,
    nodes: usize,
    /// How many parts are open.
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.words.get(self.next).map(|(token, _)| token)
    }

    /// Takes a sign if it comes next.
    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(next)) if *next == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    /// The next word as it is written; empty at the end.
    fn written(&self) -> &str {
        let at = |nth: usize| self.words.get(nth).map_or(self.text.len(), |(_, at)| *at);
        self.text[at(self.next)..at(self.next + 1)].trim_end()
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        let found = self.written();
        let shown: String = found.chars().take(40).collect();
        let message = match shown.is_empty() {
            true => format!("expected {wanted}, but the expression ends"),
            false => format!("expected {wanted}, found `{shown}`"),
        };
        Fault::new(message, shown)
    }

    /// Counts a part.
    fn node(&mut self, expr: Expr) -> Result<Expr, Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Fault::new(format!("an expression has at most {MAX_NODES} parts"), self.written()));
        }
        Ok(expr)
    }

    /// One level deeper.
    fn deeper(&mut self) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::new(format!("an expression is at most {MAX_DEPTH} levels deep"), self.written()));
        }
        self.depth += 1;
        Ok(())
    }

    /// What stands inside a part.
    fn inside<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.deeper()?;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// `a ? b : c`.
    fn expr(&mut self) -> Result<Expr, Fault> {
        let condition = self.any()?;
        if !self.take("?") {
            return Ok(condition);
        }
        let then = self.inside(Self::any)?;
        self.expect(":")?;
        let otherwise = self.inside(Self::expr)?;
        self.node(Expr::If(Box::new(condition), Box::new(then), Box::new(otherwise)))
    }

    fn any(&mut self) -> Result<Expr, Fault> {
        self.several("||", Self::all, Expr::Any)
    }

    fn all(&mut self) -> Result<Expr, Fault> {
        self.several("&&", Self::relation, Expr::All)
    }

    /// Parts with a sign between them, or the only one.
    fn several(
        &mut self,
        sign: &str,
        read: impl Fn(&mut Self) -> Result<Expr, Fault>,
        joined: impl Fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, Fault> {
        let first = read(self)?;
        if !self.take(sign) {
            return Ok(first);
        }
        let mut parts = vec![first];
        loop {
            parts.push(read(self)?);
            if !self.take(sign) {
                return self.node(joined(parts));
            }
        }
    }

    /// `a == b`; `a < b < c` is `(a < b) < c`, each a level deeper.
    fn relation(&mut self) -> Result<Expr, Fault> {
        let mut left = self.chain(&['+', '-'], Self::product)?;
        let before = self.depth;
        while let Some(relation) = self.relation_sign() {
            self.next += 1;
            let right = self.chain(&['+', '-'], Self::product)?;
            left = self.node(Expr::Relation(relation, Box::new(left), Box::new(right)))?;
            self.deeper()?;
        }
        self.depth = before;
        Ok(left)
    }

    fn relation_sign(&self) -> Option<Relation> {
        Some(match self.peek()? {
            Token::Sign("==") => Relation::Equal,
            Token::Sign("!=") => Relation::NotEqual,
            Token::Sign("<") => Relation::Less,
            Token::Sign("<=") => Relation::LessOrEqual,
            Token::Sign(">") => Relation::Greater,
            Token::Sign(">=") => Relation::GreaterOrEqual,
            Token::Word(word) if word == "in" => Relation::In,
            _ => return None,
        })
    }

    fn product(&mut self) -> Result<Expr, Fault> {
        self.chain(&['*', '/', '%'], Self::unary)
    }

    /// Parts with one of some signs between them, or the only one.
    fn chain(&mut self, signs: &[char], read: impl Fn(&mut Self) -> Result<Expr, Fault>) -> Result<Expr, Fault> {
        let first = read(self)?;
        let mut others = Vec::new();
        loop {
            let sign = match self.peek() {
                Some(Token::Sign(sign)) => sign.chars().next().filter(|c| sign.len() == 1 && signs.contains(c)),
                _ => None,
            };
            let Some(sign) = sign else { break };
            self.next += 1;
            others.push((sign, read(self)?));
        }
        if others.is_empty() { Ok(first) } else { self.node(Expr::Chain(Box::new(first), others)) }
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        if self.take("!") {
            let inner = self.inside(Self::unary)?;
            return self.node(Expr::Not(Box::new(inner)));
        }
        if self.take("-") {
            let inner = self.inside(Self::unary)?;
            return self.node(Expr::Negative(Box::new(inner)));
        }
        self.postfix()
    }

    /// Members, indices and calls behind a part, each a level deeper.
    fn postfix(&mut self) -> Result<Expr, Fault> {
        let mut expr = self.primary()?;
        let before = self.depth;
        loop {
            if self.take("[") {
                let index = self.inside(Self::expr)?;
                self.expect("]")?;
                expr = self.node(Expr::Index(Box::new(expr), Box::new(index)))?;
            } else if self.take(".") {
                let name = self.name()?;
                expr = if self.take("(") {
                    let arguments = self.arguments(")")?;
                    self.node(Expr::Method(Box::new(expr), name, arguments))?
                } else {
                    self.node(Expr::Member(Box::new(expr), name))?
                };
            } else {
                self.depth = before;
                return Ok(expr);
            }
            self.deeper()?;
        }
    }

    fn name(&mut self) -> Result<String, Fault> {
        match self.peek() {
            Some(Token::Word(name)) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Expressions with commas between them, up to a closing bracket.
    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, Fault> {
        let mut arguments = Vec::new();
        while !self.take(close) {
            arguments.push(self.inside(Self::expr)?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(arguments)
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let Some(token) = self.peek().cloned() else { return Err(self.unexpected("a value")) };
        let expr = match token {
            Token::Text(text) => Expr::Text(text),
            Token::Bytes => Expr::Other("bytes"),
            Token::Int(value) => i64::try_from(value).map_or(Expr::Other("a number beyond 63 bits"), Expr::Int),
            Token::Uint => Expr::Other("an unsigned number"),
            Token::Double(value) => Expr::Double(value),
            Token::Word(word) => match word.as_str() {
                "true" => Expr::Bool(true),
                "false" => Expr::Bool(false),
                "null" => Expr::Other("`null`"),
                "in" => return Err(self.unexpected("a value")),
                _ => return self.named(),
            },
            Token::Sign(sign) => return self.bracketed(sign),
        };
        self.next += 1;
        self.node(expr)
    }

    /// A variable or a call; a dot before it only says that the name is a whole one.
    fn named(&mut self) -> Result<Expr, Fault> {
        let name = self.name()?;
        if self.take("(") {
            let arguments = self.arguments(")")?;
            return self.node(Expr::Call(name, arguments));
        }
        self.node(Expr::Name(name))
    }

    fn bracketed(&mut self, sign: &str) -> Result<Expr, Fault> {
        match sign {
            "(" => {
                self.next += 1;
                let expr = self.inside(Self::expr)?;
                self.expect(")")?;
                Ok(expr)
            }
            "[" => {
                self.next += 1;
                let items = self.arguments("]")?;
                self.node(Expr::List(items))
            }
            "{" => {
                self.next += 1;
                self.mapping()?;
                self.node(Expr::Other("a mapping"))
            }
            "." => {
                self.next += 1;
                self.named()
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    /// The rest of `{ key: value }`.
    fn mapping(&mut self) -> Result<(), Fault> {
        while !self.take("}") {
            self.inside(Self::expr)?;
            self.expect(":")?;
            self.inside(Self::expr)?;
            if !self.take(",") {
                return self.expect("}");
            }
        }
        Ok(())
    }
}
