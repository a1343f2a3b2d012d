//! `--input NODE=PATH`: sources that read a recording in place of what they would receive.

use std::path::Path;

use crate::contract::Registry;
use crate::spec::{Diagnostic, Located, Sources, Span, Tree, Value};

/// Has each node of `inputs` read the file named with it. What is wrong goes to `problems`, placed in a source that is
/// called like the option.
pub(super) fn apply(
    tree: &mut Tree,
    inputs: &[String],
    registry: &Registry,
    sources: &mut Sources,
    problems: &mut Vec<Diagnostic>,
) {
    for text in inputs {
        let source = sources.add(Path::new(&format!("--input {text}")), text.clone());
        problems.extend(replace(tree, source, text, registry).err());
    }
}

fn replace(tree: &mut Tree, source: u32, text: &str, registry: &Registry) -> Result<(), Diagnostic> {
    let at = |start: usize, end: usize| Span { source, start: start as u32, end: end as u32 };
    let given = text.split_once('=').filter(|(id, path)| !id.is_empty() && !path.is_empty());
    let Some((id, path)) = given else {
        let fault = Diagnostic::new(at(0, text.len()), "a recording is given as NODE=PATH");
        return Err(fault.help("such as `requests=access.jsonl`"));
    };
    let (id_span, path_span) = (at(0, id.len()), at(id.len() + 1, text.len()));
    // On the command line a path is relative to where the user is, in the file to where the file is.
    let full = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
    let full = full.ok_or_else(|| Diagnostic::new(path_span, format!("`{path}` is not a path")))?;
    let Value::Map(sections) = &mut tree.value else { return Ok(()) };
    let nodes = sections.iter_mut().find(|(key, _)| key.value == "nodes");
    let Some((_, Tree { value: Value::List(nodes), .. })) = nodes else { return Ok(()) };
    let word = |node: &Tree, key: &str| node.get(key).and_then(Tree::text).map(|text| text.value);
    let ids: Vec<String> = nodes.iter().filter_map(|node| word(node, "id")).collect();
    let Some(node) = nodes.iter_mut().find(|node| word(node, "id").as_deref() == Some(id)) else {
        let fault = Diagnostic::new(id_span, format!("no node has the id `{id}`"));
        return Err(fault.nearest(id, ids.iter().map(String::as_str)));
    };
    // A kind that is missing or unknown is reported by the planner.
    let Some(kind) = word(node, "kind").and_then(|kind| registry.find(&kind)) else { return Ok(()) };
    let Some(recorded) = kind.recorded else {
        let fault = Diagnostic::new(id_span, format!("`{id}` is a {}, which cannot read a recording", kind.name));
        return Err(fault.help("name a source, such as one that receives from a socket or captures packets"));
    };
    let Value::Map(options) = &mut node.value else { return Ok(()) };
    options.retain(|(name, _)| name.value != recorded.path && !recorded.without.contains(&name.value.as_str()));
    let scalar =
        |text: &str, span| Tree { value: Value::Scalar { text: text.to_owned(), plain: false, filled: false }, span };
    for (name, value) in options.iter_mut().filter(|(name, _)| name.value == "kind") {
        *value = scalar(recorded.kind, name.span);
    }
    options.push((Located::new(recorded.path.to_owned(), path_span), scalar(&full, path_span)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Edge, EdgeType, Stream};
    use crate::contract::BuildContext;
    use crate::contract::PlanContext;
    use crate::contract::{Inputs, Kind, Node, Operator, Port, Recorded};

    struct Never;

    impl Node for Never {
        fn outputs(&self) -> Vec<EdgeType> {
            Vec::new()
        }

        fn build<'s>(&self, _: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
            Vec::new()
        }
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Nothing {}

    struct Socket;

    impl Operator for Socket {
        type Options = Nothing;
        const KIND: &'static str = "socket";
        const SUMMARY: &'static str = "";
        const INPUTS: Inputs = Inputs::None;
        const RECORDED: Option<Recorded> = Some(Recorded { kind: "file", path: "path", without: &["mode"] });
        const OUTPUTS: &'static [Port] = &[];

        fn plan(_: Nothing, _: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
            Some(Box::new(Never))
        }
    }

    struct Filter;

    impl Operator for Filter {
        type Options = Nothing;
        const KIND: &'static str = "filter";
        const SUMMARY: &'static str = "";
        const INPUTS: Inputs = Inputs::One;
        const OUTPUTS: &'static [Port] = &[];

        fn plan(_: Nothing, _: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
            Some(Box::new(Never))
        }
    }

    fn with(input: &str) -> (Tree, String) {
        let registry = Registry::new(vec![Kind::of::<Socket>(), Kind::of::<Filter>()]);
        let text =
            "nodes:\n  - { id: s, kind: socket, path: x.sock, mode: 1, lateness: 2s }\n  - { id: f, kind: filter }\n";
        let mut sources = Sources::default();
        let mut tree = Tree::parse(Path::new("p.yaml"), text.to_owned(), &mut sources, &|_| None).expect("valid YAML");
        let mut problems = Vec::new();
        apply(&mut tree, &[input.to_owned()], &registry, &mut sources, &mut problems);
        (tree, sources.render(&problems, false))
    }

    #[test]
    fn a_source_reads_the_recording_and_keeps_the_options_that_still_make_sense() {
        let (tree, faults) = with("s=/tmp/a=b.jsonl");
        assert_eq!(faults, "");
        let Some(Value::List(nodes)) = tree.get("nodes").map(|nodes| &nodes.value) else { panic!("{tree:?}") };
        let option = |name: &str| nodes[0].get(name).and_then(Tree::text).map(|text| text.value);
        assert_eq!(option("kind").as_deref(), Some("file"));
        assert_eq!(option("path").as_deref(), Some("/tmp/a=b.jsonl"));
        assert_eq!((option("mode"), option("lateness").as_deref()), (None, Some("2s")));
    }

    #[test]
    fn what_cannot_read_a_recording_is_a_fault_at_its_place() {
        for (input, says) in [
            ("s", "given as NODE=PATH"),
            ("=x", "given as NODE=PATH"),
            ("t=x", "no node has the id `t`"),
            ("f=x", "`f` is a filter, which cannot read a recording"),
        ] {
            let (_, faults) = with(input);
            assert!(faults.contains(says) && faults.contains("--input"), "{input}: {faults}");
        }
    }
}
