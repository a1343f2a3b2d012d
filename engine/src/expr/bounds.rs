//! How large an expression may be.
//!
//! Parsing, planning and computing go as deep as an expression nests, and `a and b and c` nests as deep as it is long:
//! what is too large is refused where it is planned, before a stack ends or planning takes minutes.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::ExprFault;

/// The most bytes of an expression's text.
const MAX_TEXT: usize = 256 << 10;

/// How deep parentheses, calls, `CASE` and signs such as `NOT` may nest. The parser takes 50.
const MAX_NESTING: usize = 40;

/// The most words and signs without a comma between them. What is parsed from them is at most half as deep.
const MAX_RUN: usize = 2_000;

/// How deep a planned expression may be. Each `and`, `or` and `+` in a row is one level.
///
/// Planning takes time with the square of it, a third of a second for this one. A stack of 2 MiB holds 1,000 levels.
const MAX_DEPTH: usize = 300;

/// The most parts of an expression: columns, values, operators and calls.
const MAX_PARTS: usize = 20_000;

/// Words of one level, between two parentheses or `CASE` and `END`.
#[derive(Default)]
struct Level {
    /// Since the last comma, with the longest of what was in parentheses since then.
    run: usize,
    inner: usize,
    /// The longest before that.
    before: usize,
}

impl Level {
    fn cut(&mut self) {
        self.before = self.longest();
        (self.run, self.inner) = (0, 0);
    }

    fn longest(&self) -> usize {
        self.before.max(self.run + self.inner)
    }
}

/// Refuses a text that is too large to be parsed. A text that is no SQL passes: the parser says what is wrong.
pub(super) fn check_text(sql: &str) -> Result<(), ExprFault> {
    if sql.len() > MAX_TEXT {
        return Err(too_large(format!("the expression has {} bytes; {MAX_TEXT} at most", sql.len())));
    }
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let (mut levels, mut signs) = (vec![Level::default()], 0);
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        let keyword = match token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        };
        let is_sign = matches!(token, Token::Minus | Token::Plus | Token::Tilde | Token::ExclamationMark)
            || keyword == Keyword::NOT;
        signs = if is_sign { signs + 1 } else { 0 };
        let opens = matches!(token, Token::LParen | Token::LBracket | Token::LBrace) || keyword == Keyword::CASE;
        let closes = matches!(token, Token::RParen | Token::RBracket | Token::RBrace) || keyword == Keyword::END;
        if opens {
            levels.push(Level::default());
        } else if closes && levels.len() > 1 {
            let inner = levels.pop().map_or(0, |level| level.longest());
            if let Some(level) = levels.last_mut() {
                level.inner = level.inner.max(inner);
            }
        }
        let Some(level) = levels.last_mut() else { break };
        match keyword {
            Keyword::WHEN | Keyword::THEN | Keyword::ELSE => level.cut(),
            _ if *token == Token::Comma => level.cut(),
            _ => level.run += 1,
        }
        if level.longest() > MAX_RUN {
            return Err(too_large(format!("the expression has more than {MAX_RUN} words and signs without a comma")));
        }
        if levels.len() + signs > MAX_NESTING {
            return Err(too_large(format!("the expression nests more than {MAX_NESTING} deep")));
        }
    }
    Ok(())
}

/// Refuses an expression that is too large to be planned.
pub(super) fn check_tree(expr: &Expr) -> Result<(), ExprFault> {
    let mut measure = Measure::default();
    // The visitor itself never fails.
    let _ = expr.visit(&mut measure);
    if measure.deepest > MAX_DEPTH {
        let message = format!(
            "the expression is more than {MAX_DEPTH} levels deep: each `and`, `or` or other operator in a row is one"
        );
        return Err(too_large(message));
    }
    if measure.parts > MAX_PARTS {
        return Err(too_large(format!("the expression has more than {MAX_PARTS} columns, values and operators")));
    }
    Ok(())
}

fn too_large(message: String) -> ExprFault {
    let help = "compare with a list, `x in (…)`, with one regular expression, or derive parts as columns".to_owned();
    ExprFault { help: Some(help), ..ExprFault::new(message) }
}

#[derive(Default)]
struct Measure {
    depth: usize,
    deepest: usize,
    parts: usize,
}

impl<'n> TreeNodeVisitor<'n> for Measure {
    type Node = Expr;

    fn f_down(&mut self, _: &'n Expr) -> Result<TreeNodeRecursion> {
        self.depth += 1;
        self.parts += 1;
        self.deepest = self.deepest.max(self.depth);
        let is_over = self.deepest > MAX_DEPTH || self.parts > MAX_PARTS;
        Ok(if is_over { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    }

    fn f_up(&mut self, _: &'n Expr) -> Result<TreeNodeRecursion> {
        self.depth -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}
