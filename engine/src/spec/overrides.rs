//! `--set NODE.OPTION[.SUB]=VALUE`: options given in place of those of the pipeline's file.

use std::path::Path;

use super::pipeline::SECTIONS;
use super::{Diagnostic, Located, Sources, Span, Tree, Value};

/// Puts the values of `overrides` into a pipeline as written; the last of several for one option counts. What is wrong
/// goes to `problems`, placed in a source that is called like the override.
///
/// The first word of a path is a section of the pipeline (`tick`, `serve`, …) or else the id of a node. Whether there
/// is such an option is not looked at: that is found with the pipeline's own options.
pub fn apply_overrides(
    tree: &mut Tree,
    overrides: &[String],
    sources: &mut Sources,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Diagnostic>,
) {
    for text in overrides {
        let source = sources.add(Path::new(&format!("--set {text}")), text.clone());
        if let Err(found) = Override::read(source, text, variable).and_then(|given| given.put(tree)) {
            problems.extend(found);
        }
    }
}

/// One override.
struct Override {
    /// The words between the dots, at least one.
    path: Vec<Located<String>>,
    value: Tree,
    /// All of it.
    span: Span,
}

impl Override {
    fn read(source: u32, text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Diagnostic>> {
        let at = |start: usize, end: usize| Span { source, start: start as u32, end: end as u32 };
        let span = at(0, text.len());
        let usage = |span: Span, message: &str| {
            vec![Diagnostic::new(span, message).help("such as `correlated.window=30s` or `tick=1s`")]
        };
        let Some((path, value)) = text.split_once('=') else {
            return Err(usage(span, "an override is NODE.OPTION=VALUE"));
        };
        let mut words = Vec::new();
        let mut start = 0;
        for word in path.split('.') {
            let end = start + word.len();
            if word.trim() != word || word.is_empty() {
                return Err(usage(at(start, end), "a word of the path is empty or has a space around it"));
            }
            words.push(Located::new(word.to_owned(), at(start, end)));
            start = end + 1;
        }
        let value = if value.trim().is_empty() {
            Tree { value: Value::Null, span: at(path.len() + 1, text.len()) }
        } else {
            // Blanks in place of the path leave each byte of the value where it is in the whole text.
            Tree::parse_added(source, &format!("{}{value}", " ".repeat(path.len() + 1)), variable)?
        };
        Ok(Self { path: words, value, span })
    }

    fn put(self, pipeline: &mut Tree) -> Result<(), Vec<Diagnostic>> {
        let Value::Map(sections) = &mut pipeline.value else { return Ok(()) };
        let Some((first, rest)) = self.path.split_first() else { return Ok(()) };
        if first.value != "nodes" && SECTIONS.contains(&first.value.as_str()) {
            return set(sections, first, rest, self.value);
        }
        let nodes = sections.iter_mut().find(|(key, _)| key.value == "nodes");
        let Some((_, Tree { value: Value::List(nodes), .. })) = nodes else { return Ok(()) };
        let id = |node: &Tree| node.get("id").and_then(Tree::text).map(|id| id.value);
        let Some(at) = nodes.iter().position(|node| id(node).as_ref() == Some(&first.value)) else {
            let ids: Vec<String> = nodes.iter().filter_map(id).collect();
            let names = ids.iter().map(String::as_str).chain(SECTIONS.into_iter().filter(|name| *name != "nodes"));
            let message = format!("no node has the id `{}`", first.value);
            return Err(vec![Diagnostic::new(first.span, message).nearest(&first.value, names)]);
        };
        let (Value::Map(options), Some((option, rest))) = (&mut nodes[at].value, rest.split_first()) else {
            let message = format!("`{}` is a node: name one of its options", first.value);
            let help = format!("write `{}.OPTION=VALUE`", first.value);
            return Err(vec![Diagnostic::new(self.span, message).help(help)]);
        };
        set(options, option, rest, self.value)
    }
}

/// Sets `key`, or what is beneath it.
fn set(
    entries: &mut Vec<(Located<String>, Tree)>,
    key: &Located<String>,
    rest: &[Located<String>],
    value: Tree,
) -> Result<(), Vec<Diagnostic>> {
    let at = entries.iter().position(|(name, _)| name.value == key.value);
    let Some((next, rest)) = rest.split_first() else {
        match at {
            Some(at) => entries[at] = (key.clone(), value),
            None => entries.push((key.clone(), value)),
        }
        return Ok(());
    };
    let at = at.unwrap_or_else(|| {
        entries.push((key.clone(), Tree { value: Value::Null, span: key.span }));
        entries.len() - 1
    });
    let tree = &mut entries[at].1;
    if tree.value == Value::Null {
        tree.value = Value::Map(Vec::new());
    }
    let kind = tree.kind();
    match &mut tree.value {
        Value::Map(entries) => set(entries, next, rest, value),
        _ => {
            let message = format!("`{}` is {kind}: there is no `{}` in it", key.value, next.value);
            let help = format!("set `{}` as a whole", key.value);
            Err(vec![Diagnostic::new(next.span, message).help(help)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: &str = "name: x\nnodes:\n  - { id: correlated, kind: k, window: 10s, ports: [1] }\n";

    fn with(overrides: &[&str]) -> (Tree, String) {
        let mut sources = Sources::default();
        let variable = |name: &str| (name == "PORT").then(|| "8443".to_owned());
        let mut tree =
            Tree::parse(Path::new("p.yaml"), PIPELINE.to_owned(), &mut sources, &variable).expect("valid YAML");
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let mut problems = Vec::new();
        apply_overrides(&mut tree, &overrides, &mut sources, &variable, &mut problems);
        (tree, sources.render(&problems, false))
    }

    fn option(tree: &Tree, path: &[&str]) -> Option<Tree> {
        let Value::List(nodes) = &tree.get("nodes")?.value else { return None };
        path.iter().try_fold(nodes[0].clone(), |tree, key| tree.get(key).cloned())
    }

    fn text(tree: &Tree, path: &[&str]) -> Option<String> {
        Some(option(tree, path)?.text()?.value)
    }

    #[test]
    fn values_are_yaml_and_the_last_counts() {
        let (tree, problems) = with(&[
            "correlated.window=20s",
            "correlated.window=30s",
            "correlated.orphans.emit_after=1s",
            "correlated.orphans.hello=false",
            "correlated.ports=[443, \"${PORT}\"]",
            "correlated.where=a = 1",
            "correlated.empty=",
            "tick=1s",
            "serve.listen=127.0.0.1:1",
        ]);
        assert_eq!(problems, "");
        assert_eq!(text(&tree, &["window"]).as_deref(), Some("30s"));
        assert_eq!(text(&tree, &["orphans", "emit_after"]).as_deref(), Some("1s"));
        assert_eq!(text(&tree, &["orphans", "hello"]).as_deref(), Some("false"));
        assert_eq!(text(&tree, &["where"]).as_deref(), Some("a = 1"));
        assert_eq!(option(&tree, &["empty"]).map(|tree| tree.value), Some(Value::Null));
        assert_eq!(tree.get("tick").and_then(Tree::text).map(|t| t.value).as_deref(), Some("1s"));
        assert!(tree.get("serve").is_some_and(|serve| serve.get("listen").is_some()));
        let Some(Value::List(ports)) = option(&tree, &["ports"]).map(|tree| tree.value) else { panic!("{tree:?}") };
        assert_eq!(ports[1].text().map(|t| t.value).as_deref(), Some("8443"));
    }

    #[test]
    fn a_fault_is_shown_in_the_override() {
        for (given, parts) in [
            (
                "corelated.window=30s",
                &["--set corelated.window=30s:1:1", "did you mean `correlated`?", "^^^^^^^^^"][..],
            ),
            ("tik=1s", &["no node has the id `tik`", "did you mean `tick`?"]),
            ("correlated.window", &["an override is NODE.OPTION=VALUE"]),
            ("correlated=5", &["name one of its options", "`correlated.OPTION=VALUE`"]),
            ("correlated..x=5", &["a word of the path is empty"]),
            ("=", &["a word of the path is empty"]),
            ("correlated.window.x=5", &[":1:19", "`window` is a single value: there is no `x` in it"]),
            ("correlated.ports.0=5", &["set `ports` as a whole"]),
            ("correlated.ports=[1, 2", &["--set correlated.ports=[1, 2:1:"]),
            ("correlated.host=${NOPE}", &[":1:17", "`NOPE` is not set"]),
        ] {
            let (_, shown) = with(&[given]);
            for part in parts {
                assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { rng_seed: proptest::test_runner::RngSeed::Fixed(32), ..Default::default() })]

        #[test]
        fn no_text_breaks_it(given in "(correlated|x|tick)?[.]?[a-zä.]{0,6}=?[\\PC\n]{0,20}") {
            with(&[&given]);
        }
    }
}
