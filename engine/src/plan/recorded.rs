//! `--input NODE=PATH`: sources that read a recording in place of what they would receive.

use std::path::Path;

use crate::registry::Registry;
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
    let scalar = |text: &str, span| Tree {
        value: Value::Scalar { text: text.to_owned(), plain: false, filled: false },
        span,
    };
    for (name, value) in options.iter_mut().filter(|(name, _)| name.value == "kind") {
        *value = scalar(recorded.kind, name.span);
    }
    options.push((Located::new(recorded.path.to_owned(), path_span), scalar(&full, path_span)));
    Ok(())
}
