//! Names and values in SQL. Values come from the command line and from the network.

/// A name, quoted.
pub fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, quoted. In DataFusion's dialect a backslash stands for itself.
pub fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A time in RFC 3339, which is known to be one.
pub fn time(rfc3339: &str) -> String {
    format!("TIMESTAMP {}", text(rfc3339))
}

/// Whether a column has a value, or is null.
pub fn equals(column: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("{} = {}", name(column), text(value)),
        None => format!("{} IS NULL", name(column)),
    }
}

/// Whether a column has one of these values.
pub fn among<'a>(column: &str, values: impl IntoIterator<Item = &'a str>) -> String {
    let values: Vec<String> = values.into_iter().map(text).collect();
    format!("{} IN ({})", name(column), values.join(", "))
}

/// All of these conditions.
pub fn all(conditions: &[String]) -> String {
    match conditions {
        [] => "true".to_owned(),
        conditions => conditions.join(" AND "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_its_quotes() {
        assert_eq!(name(r#"a"b"#), r#""a""b""#);
        assert_eq!(equals("host", Some("x' OR 1=1 --\\")), r#""host" = 'x'' OR 1=1 --\'"#);
        assert_eq!(equals("ja4", None), "\"ja4\" IS NULL");
        assert_eq!(among("a", ["b", "c'"]), "\"a\" IN ('b', 'c''')");
        assert_eq!((all(&[]), all(&["x".to_owned(), "y".to_owned()])), ("true".to_owned(), "x AND y".to_owned()));
    }
}
