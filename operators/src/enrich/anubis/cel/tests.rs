use proptest::prelude::*;

use super::*;

fn name(name: &str) -> Box<Expr> {
    Box::new(Expr::Name(name.to_owned()))
}

fn text(text: &str) -> Expr {
    Expr::Text(text.to_owned())
}

fn parsed(source: &str) -> Expr {
    parse(source).unwrap_or_else(|fault| panic!("{source}: {fault:?}"))
}

#[test]
fn operators_bind_as_in_cel() {
    let equal = |left: Box<Expr>, right: Expr| Expr::Relation(Relation::Equal, left, Box::new(right));
    assert_eq!(parsed("a == \"x\""), equal(name("a"), text("x")));
    let expected = Expr::Any(vec![*name("a"), Expr::All(vec![*name("b"), Expr::Not(name("c")), *name("d")])]);
    assert_eq!(parsed("a || b && !c && d"), expected);
    assert_eq!(parsed("(a || b)"), parsed("a || b"));
    let chain = Expr::Chain(name("a"), vec![('+', *name("b")), ('-', Expr::Chain(name("c"), vec![('*', *name("d"))]))]);
    assert_eq!(parsed("a + b - c * d"), chain);
    let first = Expr::Relation(Relation::Less, name("a"), name("b"));
    assert_eq!(parsed("a < b == true"), equal(Box::new(first), Expr::Bool(true)));
    let inner = Expr::If(name("c"), name("d"), name("e"));
    assert_eq!(parsed("a ? b : c ? d : e"), Expr::If(name("a"), name("b"), Box::new(inner)));
    assert_eq!(parsed("-1 < 2"), parsed("(-1) < (2)"));
}

#[test]
fn members_calls_and_lists() {
    let index = Expr::Index(name("headers"), Box::new(text("Sec-Ch-Ua")));
    assert_eq!(
        parsed("headers[\"Sec-Ch-Ua\"].matches('x')"),
        Expr::Method(Box::new(index), "matches".to_owned(), vec![text("x")])
    );
    assert_eq!(parsed("headers.Accept"), Expr::Member(name("headers"), "Accept".to_owned()));
    let all = vec![*name("headers"), text("Dnt")];
    assert_eq!(parsed("missingHeader(headers, \"Dnt\",)"), Expr::Call("missingHeader".to_owned(), all));
    assert_eq!(
        parsed(".a in [1, 2,]"),
        Expr::Relation(Relation::In, name("a"), Box::new(Expr::List(vec![Expr::Int(1), Expr::Int(2)])))
    );
    assert_eq!(parsed("{'a': 1, 'b': [2]}"), Expr::Other("a mapping"));
    assert_eq!(parsed("a // and so on\n && b"), parsed("a && b"));
}

#[test]
fn literals_and_their_escapes() {
    for (source, value) in [
        (r#""a\"b'""#, "a\"b'"),
        (r"'\\. \n\t\x41\u00e9\U0001F980\101\?\`'", "\\. \n\tA\u{e9}\u{1f980}A?`"),
        (r#"r"\.\d""#, r"\.\d"),
        (r"R'\'", r"\"),
        ("'''it's\n\"so\"'''", "it's\n\"so\""),
        ("''", ""),
        ("''''''", ""),
    ] {
        assert_eq!(parsed(source), text(value), "{source}");
    }
    assert_eq!(parsed("0x1F"), Expr::Int(31));
    assert_eq!(parsed("9223372036854775807"), Expr::Int(i64::MAX));
    assert_eq!(parsed("10.0"), Expr::Double(10.0));
    assert_eq!(parsed("1e3"), Expr::Double(1000.0));
    assert_eq!(parsed(".5"), Expr::Double(0.5));
    for other in ["1u", "b'x'", "null", "9223372036854775808"] {
        assert!(matches!(parsed(other), Expr::Other(_)), "{other}");
    }
}

#[test]
fn what_is_no_expression_is_refused_where_it_goes_wrong() {
    for (source, message, part) in [
        ("", "the expression is empty", ""),
        ("  // nothing", "the expression is empty", ""),
        ("a ==", "expected a value, but the expression ends", ""),
        ("a = b", "expected the end of the expression, found `=`", "="),
        ("a && (b || c", "expected `)`, but the expression ends", ""),
        ("f(a b)", "expected `)`, found `b`", "b"),
        ("a.1", "expected the end of the expression, found `.1`", ".1"),
        ("a ? b", "expected `:`, but the expression ends", ""),
        ("in", "expected a value, found `in`", "in"),
        ("a | b", "`|` means nothing here", "|"),
        ("a == \u{201c}x\u{201d}", "`\\u{201c}` means nothing here", "\u{201c}"),
        ("'x", "a text is not closed", "'x"),
        ("'a\nb'", "a text is not closed", "'a\nb'"),
        (r"'\d'", r"there is no escape `\\d` in a text", r"\d"),
        (r"'\x4'", r"there is no escape `\\x` in a text", r"\x"),
        (r"'\U00110000'", r"there is no escape `\\U` in a text", r"\U"),
        ("99999999999999999999", "`99999999999999999999` is no number of 64 bits", "99999999999999999999"),
    ] {
        assert_eq!(parse(source), Err(Fault::new(message, part)), "{source}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let refused = |source: &str| parse(source).expect_err("too much").message;
    let deep = "an expression is at most 12 levels deep";
    assert_eq!(refused(&format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000))), deep);
    assert_eq!(refused(&"!".repeat(10_000)), deep);
    assert_eq!(refused(&format!("a{}", ".b".repeat(5_000))), deep);
    assert_eq!(refused(&format!("a{}", "[a".repeat(5_000))), deep);
    assert_eq!(refused(&format!("a{}", " ? a : a".repeat(1_500))), deep);
    assert_eq!(refused(&format!("a{}", " == a".repeat(2_000))), deep);
    assert_eq!(refused(&"[".repeat(10_000)), deep);
    assert_eq!(refused(&"{".repeat(10_000)), deep);
    assert_eq!(refused(&format!("a{}", " || a".repeat(2_000))), "an expression has at most 1000 parts");
    assert_eq!(refused(&format!("'{}'", "x".repeat(20_000))), "an expression has at most 16384 bytes, this one 20002");
    assert!(parse(&format!("a{}", " || a".repeat(900))).is_ok(), "a long chain is not deep");
    assert!(parse(&format!("{}a{}", "(".repeat(12), ")".repeat(12))).is_ok());
}

/// Words of the language, so that what is generated is near to an expression.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a",
        "headers",
        "\"X\"",
        "'y'",
        "r'\\z'",
        "1",
        "2.5",
        "0x",
        "1u",
        "true",
        "null",
        "in",
        "&&",
        "||",
        "==",
        "!=",
        "<",
        "<=",
        "!",
        "-",
        "+",
        "*",
        "%",
        "?",
        ":",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ".",
        ",",
        "=",
        "\n",
        "//",
        "'",
        "\\",
        "\u{e9}",
        "size(",
        ".contains(",
        "\"\"\"",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, rng_seed: proptest::test_runner::RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_an_expression_or_a_fault(source in prop_oneof![words(), ".{0,60}", "[a-z()\\[\\].!&|\"' ]{0,80}"]) {
        if let Err(fault) = parse(&source) {
            prop_assert!(!fault.message.is_empty());
            prop_assert!(source.contains(&fault.part), "{:?} in {:?}", fault.part, source);
        }
    }
}
