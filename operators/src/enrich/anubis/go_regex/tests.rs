use super::translate;

/// Where the first match is, in bytes.
fn find(pattern: &str, text: &str) -> Option<(usize, usize)> {
    let translated = translate(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
    let regex = regex::Regex::new(&translated).expect("checked");
    regex.find(text).map(|found| (found.start(), found.end()))
}

#[test]
fn what_the_crate_would_read_otherwise_is_as_in_go() {
    for (pattern, text, found) in [
        // Classes and word boundaries are ASCII.
        (r"^\d+$", "\u{663}", None),
        (r"^\w+$", "\u{e9}", None),
        (r"^\W$", "\u{e9}", Some((0, 2))),
        (r"\s", "\u{b}", None),
        (r"\s", "\u{a0}", None),
        (r"[^\s]", "\u{b}", Some((0, 1))),
        (r"a\b", "a\u{e9}", Some((0, 1))),
        (r"[\d.]+", "x1.2", Some((1, 4))),
        (r"[\D]", "1a", Some((1, 2))),
        // Escapes.
        (r"\<a\>", "<a>", Some((0, 3))),
        (r"\+https\://x\.test/\_", "+https://x.test/_", Some((0, 17))),
        (r"\Qa.b*\E+", "a.b**", Some((0, 5))),
        (r"\Q[", "a[", Some((1, 2))),
        (r"\101\x42\x{43}", "ABC", Some((0, 3))),
        (r"[\101-\x43]+", "xABCD", Some((1, 4))),
        (r"\p{^Greek}", "\u{3b1}a", Some((2, 3))),
        (r"\pL", "1\u{3b1}", Some((1, 3))),
        // Brackets.
        ("[a[b]+", "[ab", Some((0, 3))),
        ("[a&&b]+", "x&a", Some((1, 3))),
        ("[+--]+", "a+,-", Some((1, 4))),
        ("[]a]+", "]a", Some((0, 2))),
        ("[^]a]", "]ab", Some((2, 3))),
        ("[[:^digit:]x]+", "1ax", Some((1, 3))),
        ("[[:digit]", "[", Some((0, 1))),
        // What is no count.
        ("a{,3}", "a{,3}", Some((0, 5))),
        ("x{", "x{", Some((0, 2))),
        ("a{2,}", "aaa", Some((0, 3))),
        // Flags and groups.
        ("(?i:bot|crawler)", "AhrefsBot", Some((6, 9))),
        ("(?P<name>a)(?<other>b)", "ab", Some((0, 2))),
        ("(?s).", "\n", Some((0, 1))),
        (".", "\n", None),
        ("a$", "a\n", None),
        ("^/[.A-Za-z0-9_-]{1,256}?[./A-Za-z0-9_-]*\\.atom$", "/a/b.atom", Some((0, 9))),
    ] {
        assert_eq!(find(pattern, text), found, "{pattern} in {text:?}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    for (pattern, part) in [
        (r"\1", "back-reference"),
        (r"\8", "no escape `\\8`"),
        (r"\C", "no escape `\\C`"),
        (r"\Z", "no escape `\\Z`"),
        (r"\u0041", "no escape `\\u`"),
        (r"a\", "backslash at the end"),
        ("(?=a)", "look-around"),
        ("(?!a)", "look-around"),
        ("(?<=a)", "look-behind"),
        ("(?x)a", "look-around"),
        ("(?P=n)", "look-around"),
        ("a**", "nothing that `*` could repeat"),
        ("a++", "nothing that `+` could repeat"),
        ("{2}x", "nothing that `{2}` could repeat"),
        ("+a", "nothing that `+` could repeat"),
        ("(|*)", "nothing that `*` could repeat"),
        ("a{1001}", "no count up to 1000"),
        ("a{2,1}", "no count up to 1000"),
        ("[a", "not closed"),
        ("[z-a]", "is empty"),
        ("[a-\\d]", "no escape `\\d`"),
        ("[\\b]", "no escape `\\b`"),
        ("[[:word", "not closed"),
        ("[[:none:]]", "no class `[:none:]`"),
        ("(a", "unclosed group"),
        ("a)", "unopened group"),
        (r"\p{Nonesuch}", "not a regex"),
        (r"\p", "`\\p` without a class"),
        (r"\x4", "no escape `\\x`"),
        (r"\x{110000}", "no escape `\\x`"),
        ("(((a{1000}){1000}){1000})", "too large"),
    ] {
        let why = translate(pattern).expect_err(pattern);
        assert!(why.contains(part) && why.starts_with(|c: char| c.is_lowercase()), "{pattern}: {why}");
    }
}
