//! The Common Expression Language, in which Anubis writes conditions, as a tree. The grammar is that of cel-spec
//! (`doc/langdef.md`); what an expression means is in [`super::lower`].

mod lexer;
mod parser;

pub(super) use parser::parse;

/// The longest expression, in bytes.
pub(super) const MAX_SOURCE: usize = 16 * 1024;
/// The most parts of an expression: literals, names, calls and operators.
pub(super) const MAX_NODES: usize = 1_000;
/// How deep parts may stand in parts. SQL is read to a depth of 50, and a part may take several levels there.
pub(super) const MAX_DEPTH: usize = 12;

/// An expression. Chains of one operator are lists, so that a long one is not a deep one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// A text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Something of CEL that is only named, such as `null` or a mapping.
    Other(&'static str),
    /// A variable.
    Name(String),
    /// `a.b`.
    Member(Box<Expr>, String),
    /// `a[b]`.
    Index(Box<Expr>, Box<Expr>),
    /// `f(a)`.
    Call(String, Vec<Expr>),
    /// `a.f(b)`.
    Method(Box<Expr>, String, Vec<Expr>),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `!a`.
    Not(Box<Expr>),
    /// `-a`.
    Negative(Box<Expr>),
    /// `a && b`: at least two.
    All(Vec<Expr>),
    /// `a || b`: at least two.
    Any(Vec<Expr>),
    /// `a == b`, `a in b` and the like.
    Relation(Relation, Box<Expr>, Box<Expr>),
    /// `a + b - c`: each further part and what stands before it, one of `+ - * / %`.
    Chain(Box<Expr>, Vec<(char, Expr)>),
    /// `a ? b : c`.
    If(Box<Expr>, Box<Expr>, Box<Expr>),
}

/// What compares two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessOrEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterOrEqual,
    /// `in`.
    In,
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// One lower-case sentence.
    pub message: String,
    /// The part of the text where it was noticed; empty at its end.
    pub part: String,
}

impl Fault {
    fn new(message: impl Into<String>, part: impl Into<String>) -> Self {
        Self { message: message.into(), part: part.into() }
    }
}

#[cfg(test)]
mod tests;
