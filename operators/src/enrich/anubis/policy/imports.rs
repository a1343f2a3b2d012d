//! The rules of a file and of those that it imports.

use std::cmp::Ordering;
use std::path::{Component, Path, PathBuf};

use engine::contract::{ExprFault, PlanContext};
use engine::spec::{Diagnostic, Located, Span, Tree, Value};

use super::rule;
use super::{MAX_NETWORKS, MAX_RULES, MAX_THRESHOLDS, Rule, Threshold};
use crate::source::paths::Pattern;

/// Files at most, each as often as it is imported.
const MAX_FILES: usize = 1_000;
/// Imports within imports at most.
const MAX_DEPTH: usize = 16;
/// What is wrong is said so often at most: a file of another kind would have thousands of faults.
const MAX_FAULTS: usize = 50;
/// What stands in an import before a path beneath the folder `data`.
const DATA: &str = "(data)/";

/// Reads rules.
pub(super) struct Reader<'a, 'b> {
    context: &'a mut PlanContext<'b>,
    /// The folder of the policy's file.
    folder: PathBuf,
    /// The folder that `(data)` stands for.
    data: PathBuf,
    /// The files that are being read, each imported by the one before it.
    open: Vec<PathBuf>,
    files: usize,
    networks: usize,
    faults: usize,
    /// A bound has been met: nothing more is read.
    full: bool,
    rules: Vec<Rule>,
}

impl<'a, 'b> Reader<'a, 'b> {
    pub fn new(policy: &Located<PathBuf>, data: Option<&Located<PathBuf>>, context: &'a mut PlanContext<'b>) -> Self {
        let folder = plain(policy.parent().unwrap_or(Path::new("")));
        let data = data.map_or_else(|| folder.clone(), |data| plain(data));
        let open = vec![plain(policy)];
        Self { context, folder, data, open, files: 1, networks: 0, faults: 0, full: false, rules: Vec::new() }
    }

    /// Reports a fault.
    pub fn report(&mut self, fault: Diagnostic) {
        self.count();
        self.context.report(fault);
    }

    /// Reports a fault at a place.
    pub fn error(&mut self, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::new(span, message));
    }

    /// Says what is probably not meant.
    pub fn warn(&mut self, warning: Diagnostic) {
        self.context.warn(warning);
    }

    /// Reports a fault of an expression, at the part of it that is wrong.
    pub fn expression(&mut self, text: &Located<String>, fault: &ExprFault) {
        self.count();
        self.context.expression_fault(text, fault);
    }

    fn count(&mut self) {
        self.faults += 1;
        self.full |= self.faults >= MAX_FAULTS;
    }

    /// The rules, if nothing was wrong.
    pub fn finish(self) -> Option<Vec<Rule>> {
        (self.faults == 0).then_some(self.rules)
    }

    /// The rules and imports of a list.
    pub fn rules(&mut self, items: &[Tree]) {
        for item in items {
            if self.full {
                return;
            }
            match item.get("import") {
                Some(import) => self.import(item, import),
                None => self.rule(item),
            }
        }
    }

    fn rule(&mut self, item: &Tree) {
        if self.rules.len() == MAX_RULES {
            self.full = true;
            return self.error(item.span, format!("a policy has at most {MAX_RULES} rules"));
        }
        let category = self.category();
        let Some(rule) = rule::read(item, category, self) else { return };
        self.networks += rule.addresses.len();
        if self.networks > MAX_NETWORKS {
            self.full = true;
            return self.error(item.span, format!("the rules of a policy have at most {MAX_NETWORKS} networks"));
        }
        self.rules.push(rule);
    }

    /// The thresholds of a list.
    pub fn thresholds(&mut self, items: &[Tree]) -> Vec<Threshold> {
        if let Some(item) = items.get(MAX_THRESHOLDS) {
            self.error(item.span, format!("a policy has at most {MAX_THRESHOLDS} thresholds"));
            return Vec::new();
        }
        items.iter().filter_map(|item| rule::threshold(item, self)).collect()
    }

    fn import(&mut self, item: &Tree, import: &Tree) {
        if item.entries().is_some_and(|entries| entries.len() > 1) {
            return self.error(item.span, "an item is a rule or an import, not both");
        }
        let Some(written) = import.text().filter(|text| !text.value.is_empty()) else {
            return self.error(import.span, "an import is a file's path");
        };
        let path = match self.place(&written.value) {
            Ok(path) => path,
            Err(why) => return self.error(written.span, why),
        };
        match self.matching(&path) {
            None => self.file(Located::new(path, written.span)),
            Some(files) if files.is_empty() => {
                let message = format!("no file matches {}", path.display());
                self.report(Diagnostic::new(written.span, message).help("`**` and `{a,b}` mean nothing in an import"));
            }
            Some(files) => {
                for file in files {
                    self.file(Located::new(file, written.span));
                }
            }
        }
    }

    /// The path that an import means, relative to the pipeline's file as the policy's is.
    fn place(&self, written: &str) -> Result<PathBuf, String> {
        let Some(beneath) = written.strip_prefix(DATA) else { return Ok(plain(&self.folder.join(written))) };
        let path = Path::new(beneath);
        match path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            true => Ok(plain(&self.data.join(path))),
            false => Err(format!("`{written}` is not beneath the folder `data`")),
        }
    }

    /// The files that a path with `*`, `?` or `[` means, in natural order: `2-a.yaml` before `10-a.yaml`.
    fn matching(&self, path: &Path) -> Option<Vec<PathBuf>> {
        let full = self.context.path(path);
        let pattern = Pattern::new(path, &full)?;
        let names = path.components().count();
        let base = full.ancestors().nth(names).unwrap_or(Path::new("")).to_owned();
        let mut files = pattern.files();
        files.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
        Some(files.iter().map(|file| file.strip_prefix(&base).map_or_else(|_| file.clone(), plain)).collect())
    }

    /// The rules of a file.
    fn file(&mut self, path: Located<PathBuf>) {
        if self.full {
            return;
        }
        if let Some(at) = self.open.iter().position(|open| *open == path.value) {
            let circle: Vec<_> = self.open[at..].iter().map(|path| path.display().to_string()).collect();
            self.full = true;
            return self.error(path.span, format!("the file imports itself: {}", circle.join(" imports ")));
        }
        self.files += 1;
        if self.open.len() > MAX_DEPTH || self.files > MAX_FILES {
            self.full = true;
            let message = format!("a policy has at most {MAX_DEPTH} imports within each other and {MAX_FILES} in all");
            return self.error(path.span, message);
        }
        let Some(tree) = self.context.yaml(&path) else {
            self.count();
            return;
        };
        let Value::List(items) = &tree.value else {
            return self.error(tree.span, format!("what is imported is a list of rules, not {}", tree.kind()));
        };
        self.open.push(path.value);
        self.rules(items);
        self.open.pop();
    }

    /// The folder of the file that is being read: beneath `data`, or beside the policy's file.
    fn category(&self) -> String {
        let file = self.open.last().map_or(Path::new(""), PathBuf::as_path);
        let beneath = file.strip_prefix(&self.data).or_else(|_| file.strip_prefix(&self.folder));
        let folder = match beneath {
            Ok(beneath) => beneath.parent().and_then(|folder| folder.components().next()),
            Err(_) => file.parent().and_then(|folder| folder.components().next_back()),
        };
        folder.map_or_else(|| "root".to_owned(), |folder| folder.as_os_str().to_string_lossy().into_owned())
    }
}

/// A path without `.` in it.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The order of texts in which numbers count as such.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    let part = |text: &str, is_number: bool| text.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(text.len());
    loop {
        let is_number = a.starts_with(|c: char| c.is_ascii_digit()) && b.starts_with(|c: char| c.is_ascii_digit());
        if a.is_empty() || b.is_empty() || !is_number && a.as_bytes()[0] != b.as_bytes()[0] {
            return a.cmp(b);
        }
        let ((x, rest_a), (y, rest_b)) = (a.split_at(part(a, is_number)), b.split_at(part(b, is_number)));
        let digits = |text: &str| text.trim_start_matches('0').len();
        let order = match is_number {
            true => digits(x).cmp(&digits(y)).then_with(|| x.trim_start_matches('0').cmp(y.trim_start_matches('0'))),
            false => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}
