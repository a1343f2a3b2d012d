//! What an operator sees while it is planned.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;

use super::redirect::Redirect;
use crate::batch::EdgeType;
use crate::expr::{ExprFault, Scalar, Session, find_word};
use crate::reference::read_text;
use crate::spec::{Diagnostic, Located, Setting, Sources, Span, Tree};

/// Under this name a node's definition has the folder of the embedded store, if it uses that.
pub(crate) const DATA_DIR: &str = "data_dir";

/// What a node has asked for while it was planned.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub files: RefCell<BTreeMap<String, Setting>>,
    pub paths: RefCell<BTreeMap<String, String>>,
}

impl Notes {
    /// A YAML file has been read.
    fn file(&self, written: &Path, content: Setting) {
        self.files.borrow_mut().insert(written.display().to_string(), content);
    }

    /// A path has been looked up.
    fn path(&self, written: &str, full: &Path) {
        let full = std::path::absolute(full).unwrap_or_else(|_| full.to_owned());
        self.paths.borrow_mut().insert(written.to_owned(), full.display().to_string());
    }
}

/// What an operator sees while it is planned, and where it reports faults.
pub struct PlanContext<'a> {
    /// The node's id.
    pub id: &'a str,
    /// The place of the whole node.
    pub span: Span,
    /// Watermarks move in steps of this.
    pub tick: Duration,
    pub(crate) data_dir: &'a Path,
    pub(crate) notes: Notes,
    pub(crate) inputs: &'a [(String, EdgeType, Span)],
    pub(crate) base: &'a Path,
    pub(crate) redirect: Option<&'a Redirect>,
    pub(crate) sources: &'a mut Sources,
    pub(crate) problems: &'a mut Vec<Diagnostic>,
    pub(crate) warnings: &'a mut Vec<Diagnostic>,
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) session: &'a Session,
}

impl PlanContext<'_> {
    /// The inputs' names and types, in the order of the kind's ports, or as written where the user chooses names.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &EdgeType)> {
        self.inputs.iter().map(|(name, ty, _)| (name.as_str(), ty))
    }

    /// The type of an input. An index that the kind has no port for is an empty stream type.
    pub fn input(&self, index: usize) -> EdgeType {
        match self.inputs.get(index) {
            Some((_, ty, _)) => ty.clone(),
            None => EdgeType::stream(Arc::new(Schema::empty())),
        }
    }

    /// Where an input is named in the YAML.
    pub fn input_span(&self, index: usize) -> Span {
        self.inputs.get(index).map_or(self.span, |(_, _, span)| *span)
    }

    /// Reports a fault; the plan will be refused.
    pub fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// Reports a fault at a place.
    pub fn error(&mut self, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::new(span, message));
    }

    /// Says what is probably not meant; the plan can be run all the same.
    pub fn warn(&mut self, warning: Diagnostic) {
        self.warnings.push(warning);
    }

    /// Refuses a relation where only a stream makes sense.
    pub fn stream_input(&mut self, index: usize) -> Option<EdgeType> {
        let ty = self.input(index);
        if ty.is_relation() {
            let span = self.input_span(index);
            self.error(span, "this input is a relation, whose rows can be taken back; a stream is needed here");
            return None;
        }
        Some(ty)
    }

    /// Checks that an input has a column; the fault is at `span` and names the nearest.
    pub fn column(&mut self, schema: &Schema, name: &str, span: Span) -> Option<usize> {
        let found = schema.index_of(name).ok();
        if found.is_none() {
            let names = schema.fields().iter().map(|f| f.name().as_str());
            self.report(Diagnostic::new(span, format!("no column `{name}`")).nearest(name, names));
        }
        found
    }

    /// A path in the YAML: relative to the pipeline's file.
    pub fn path(&self, path: &Path) -> PathBuf {
        let full = self.base.join(path);
        self.notes.path(&path.display().to_string(), &full);
        full
    }

    /// A path in the YAML that is written to: relative to the pipeline's file, unless this run writes elsewhere.
    pub fn output_path(&self, path: &Path) -> PathBuf {
        let written = self.base.join(path);
        let full = self.redirect.map_or_else(|| written.clone(), |redirect| redirect.path(&written));
        self.notes.path(&path.display().to_string(), &full);
        full
    }

    /// Where the embedded store lives.
    pub fn data_dir(&self) -> &Path {
        self.notes.path(DATA_DIR, self.data_dir);
        self.data_dir
    }

    /// Compiles an SQL expression over `schema`; faults are reported at their place in the text.
    pub fn scalar(&mut self, sql: &Located<String>, schema: &Schema) -> Option<Scalar> {
        match self.session.scalar(&sql.value, schema) {
            Ok(scalar) => Some(scalar),
            Err(fault) => {
                self.expression_fault(sql, &fault);
                None
            }
        }
    }

    /// The expression compiler, for operators that need more than [`PlanContext::scalar`].
    pub fn session(&self) -> &Session {
        self.session
    }

    /// Reports what is wrong with an expression, at the part of it that is wrong.
    pub fn expression_fault(&mut self, sql: &Located<String>, fault: &ExprFault) {
        let text = self.sources.text(sql.span.source);
        let written = text.get(sql.span.start as usize..sql.span.end as usize).unwrap_or_default();
        // The part is looked for in the text as written, which may be quoted or a block.
        let span = match fault.part.as_deref().and_then(|part| find_word(written, part)) {
            Some((at, len)) => {
                Span { start: sql.span.start + at as u32, end: sql.span.start + (at + len) as u32, ..sql.span }
            }
            None => sql.span,
        };
        let mut problem = Diagnostic::new(span, fault.message.clone());
        problem.help.clone_from(&fault.help);
        self.report(problem);
    }

    /// Reads a further YAML file, such as a feature library; its faults show its own lines.
    pub fn yaml(&mut self, path: &Located<PathBuf>) -> Option<Tree> {
        let full = self.base.join(&path.value);
        let text = match read_text(&full) {
            Ok(text) => text,
            Err(error) => {
                self.error(path.span, format!("{} cannot be read: {error}", full.display()));
                return None;
            }
        };
        match Tree::parse(&full, text, self.sources, self.variable) {
            Ok(tree) => {
                self.notes.file(&path.value, Setting::of(&tree));
                Some(tree)
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }
}
