//! The files of reference data that the nodes of a pipeline name, also of one that cannot run because they are missing.

use std::path::{Path, PathBuf};

use engine::contract::read_text;
use engine::spec::{Pipeline, Sources, Tree, Value};

use crate::enrich::inspect::List;

/// A file that a node names.
pub(super) struct Named {
    pub node: String,
    pub list: List,
    pub path: PathBuf,
}

/// Whether a path is that of a pipeline.
pub(super) fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// The files, in the order of the nodes.
///
/// # Errors
/// If the pipeline cannot be read; one fault a line.
pub(super) fn files(path: &Path) -> Result<Vec<Named>, String> {
    let text = read_text(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let mut sources = Sources::default();
    let tree = Tree::parse(path, text, &mut sources, &|name| std::env::var(name).ok());
    let tree = tree.map_err(|problems| sources.lines(&problems).join("\n"))?;
    let mut problems = Vec::new();
    let Some(pipeline) = Pipeline::read(&tree, &mut problems) else {
        return Err(sources.lines(&problems).join("\n"));
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    for node in &pipeline.nodes {
        for (list, _, option) in List::ALL.into_iter().filter(|(_, kind, _)| *kind == node.kind.value) {
            let written = node.options.get(option).map(texts).unwrap_or_default();
            let named = |text| Named { node: node.id.value.clone(), list, path: folder.join(text) };
            files.extend(written.into_iter().map(named));
        }
    }
    Ok(files)
}

/// The texts of an option that is one or several.
fn texts(tree: &Tree) -> Vec<String> {
    match &tree.value {
        Value::List(items) => items.iter().flat_map(texts).collect(),
        _ => tree.text().map(|text| text.value).into_iter().collect(),
    }
}
