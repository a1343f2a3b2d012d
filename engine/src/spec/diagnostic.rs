//! What is wrong with a configuration, and how it is shown: file:line:column, the line, a caret, the nearest name.

use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::Span;
use crate::text::{line, masked, printable};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in one lower-case sentence.
    pub message: String,
    /// Where; `None` if the file itself cannot be read.
    pub span: Option<Span>,
    /// What was probably meant, or what is allowed.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A fault at a place.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), span: Some(span), help: None }
    }

    /// Adds what was probably meant.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the nearest of the allowed names, or all of them if none is near.
    pub fn nearest<'a>(self, wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        match nearest(wrong, names.iter().copied()) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None if names.is_empty() => self,
            None if names.len() > 40 => self.help(format!("there are {} names, none of them near", names.len())),
            None => self.help(format!("known here: {}", names.join(", "))),
        }
    }
}

/// The name that `wrong` was most likely meant to be.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The texts of the files that a configuration was read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<(PathBuf, String)>,
}

impl Sources {
    /// Adds a file's text; the index goes into [`Span::source`].
    pub fn add(&mut self, path: &Path, text: String) -> u32 {
        self.files.push((path.to_owned(), text));
        (self.files.len() - 1) as u32
    }

    /// The files, in the order in which they were added.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    /// The text of a file.
    pub fn text(&self, source: u32) -> &str {
        self.files.get(source as usize).map_or("", |(_, text)| text)
    }

    /// Line and column of a place, both from 1; the column counts characters.
    pub fn position(&self, span: Span) -> (usize, usize) {
        let text = self.text(span.source);
        let before = text.get(..span.start as usize).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// All diagnostics as text for a terminal, in the order of their places, with colour if asked for.
    pub fn render(&self, diagnostics: &[Diagnostic], colour: bool) -> String {
        let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
        sorted.sort_by_key(|d| d.span.map(|s| (s.source, s.start)));
        sorted.dedup();
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let shown: Vec<String> = sorted.iter().map(|d| self.render_one(d, &renderer)).collect();
        shown.join("\n\n")
    }

    /// Each diagnostic in one line, in the order of their places: `file:line:column: message (help)`.
    pub fn lines(&self, diagnostics: &[Diagnostic]) -> Vec<String> {
        let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
        sorted.sort_by_key(|d| d.span.map(|s| (s.source, s.start)));
        sorted.dedup();
        let in_a_line = |d: &&Diagnostic| {
            let place = d.span.and_then(|span| {
                let (file, _) = self.files.get(span.source as usize)?;
                let (line, column) = self.position(span);
                Some(format!("{}:{line}:{column}: ", file.display()))
            });
            let help = d.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            line(&format!("{}{}{help}", place.unwrap_or_default(), d.message)).into_owned()
        };
        sorted.iter().map(in_a_line).collect()
    }

    fn render_one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let mut group = Level::ERROR.primary_title(printable(&diagnostic.message));
        let located = diagnostic.span.and_then(|span| Some((span, self.files.get(span.source as usize)?)));
        let (path, shown);
        let mut elements = match located {
            None => annotate_snippets::Group::with_title(group),
            Some((span, (file, text))) => {
                (path, shown) = (line(&file.display().to_string()).into_owned(), masked(text));
                let end = (span.end as usize).min(text.len());
                let start = (span.start as usize).min(end);
                group = group.id("config").clone();
                let snippet = Snippet::source(&*shown).path(path.as_str());
                group.element(snippet.annotation(AnnotationKind::Primary.span(start..end)))
            }
        };
        if let Some(help) = &diagnostic.help {
            elements = elements.element(Level::HELP.message(printable(help)));
        }
        renderer.render(&[elements])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_place_caret_and_the_nearest_name() {
        let mut sources = Sources::default();
        let text = "name: x\nnodes:\n  - { id: a, kind: filtre }\n";
        let source = sources.add(Path::new("p.yaml"), text.to_owned());
        let start = text.find("filtre").expect("there") as u32;
        let fault = Diagnostic::new(Span { source, start, end: start + 6 }, "unknown kind `filtre`")
            .nearest("filtre", ["filter", "derive"]);
        let shown = sources.render(&[fault], false);
        assert!(shown.contains("p.yaml:3:20"), "{shown}");
        assert!(shown.contains("^^^^^^"), "{shown}");
        assert!(shown.contains("did you mean `filter`?"), "{shown}");
    }

    #[test]
    fn far_names_are_not_suggested() {
        assert_eq!(nearest("host", ["src_ip", "ja4"]), None);
        assert_eq!(nearest("hots", ["host", "ja4"]), Some("host"));
    }
}
