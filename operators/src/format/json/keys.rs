//! Which keys of a line hold which cells, also inside of objects and lists.

use ahash::HashMap;

use super::super::cell::{Cell, Cells};
use super::super::path::{EACH, Path, Step};

/// The level of a line's own object.
pub(in crate::format) const ROOT: usize = 0;

/// Names of request headers are case-insensitive (RFC 9110, section 5.1).
const HEADER: &str = "header_";

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Target {
    /// A cell.
    Cell(usize),
    /// An object or a list in which there are cells.
    Level(usize),
}

/// A key that was found: its number among those of its object, and what it leads to.
pub(in crate::format) type Found = (usize, Target);

/// Two paths that cannot both be taken: one is the other, or leads into it.
#[derive(Debug)]
struct Conflict;

/// The keys of a format, by the objects and lists in which they are.
#[derive(Debug)]
pub(in crate::format) struct Keys {
    levels: Vec<Level>,
    folded: String,
    /// The address behind the last key that was read; 0 if it does not stand in the line as it is.
    pub after: usize,
}

/// The keys of one object, or the numbers of one list's elements.
///
/// Keys usually come in the order of the line before, so the next one is guessed and then checked.
#[derive(Debug, Default)]
struct Level {
    /// The last one is no key: its next one is the first.
    keys: Vec<Key>,
    by_name: HashMap<String, usize>,
    elements: Vec<(usize, Target)>,
    /// All cells in it.
    cells: Vec<usize>,
}

/// A key of an object.
#[derive(Debug, Default)]
struct Key {
    name: String,
    /// `None` is no key.
    target: Option<Target>,
    /// The number of the key that came next the last time.
    next: usize,
}

impl Keys {
    /// Keys that lead to the cells 0, 1, 2…, and the number of a path that another one before it excludes: nothing leads
    /// to its cell.
    pub(in crate::format) fn new<'p>(paths: impl Iterator<Item = &'p Path>) -> (Self, Option<usize>) {
        let mut keys = Self { levels: vec![Level::default()], folded: String::new(), after: 0 };
        let mut excluded = None;
        for (cell, path) in paths.enumerate() {
            if keys.insert(path, cell).is_err() {
                excluded = excluded.or(Some(cell));
            }
        }
        for level in &mut keys.levels {
            level.keys.push(Key::default());
            let last = level.keys.len() - 1;
            level
                .keys
                .iter_mut()
                .enumerate()
                .for_each(|(number, key)| key.next = if number < last { number + 1 } else { 0 });
        }
        (keys, excluded)
    }

    fn insert(&mut self, path: &Path, cell: usize) -> Result<(), Conflict> {
        let mut at = ROOT;
        for (number, step) in path.steps().iter().enumerate() {
            let last = number + 1 == path.steps().len();
            let fresh = if last { Target::Cell(cell) } else { Target::Level(self.levels.len()) };
            match (self.levels[at].step(step), fresh) {
                (None, _) => {
                    self.levels[at].add(step, fresh, at == ROOT);
                    if let Target::Level(_) = fresh {
                        self.levels.push(Level::default());
                    }
                }
                (Some(Target::Level(_)), Target::Level(_)) => {}
                _ => return Err(Conflict),
            }
            if let Some(Target::Level(level)) = self.levels[at].step(step) {
                self.levels[level].cells.push(cell);
                at = level;
            }
        }
        Ok(())
    }

    /// The number before that of an object's first key.
    pub(in crate::format) fn start(&self, level: usize) -> usize {
        self.levels[level].keys.len() - 1
    }

    /// Looks up a key of the object `level`, which came after the one with the number `previous`.
    #[inline(always)]
    pub(in crate::format) fn find(&mut self, level: usize, previous: usize, key: &str) -> Option<Found> {
        let keys = &mut self.levels[level];
        let number = keys.keys[previous].next;
        let guess = &keys.keys[number];
        if guess.name == key
            && let Some(target) = guess.target
        {
            return Some((number, target));
        }
        keys.find_slowly(previous, key, &mut self.folded)
    }

    /// What an element of the list `level` leads to.
    pub(in crate::format) fn element(&self, level: usize, index: usize) -> Option<Target> {
        self.levels[level].elements.iter().find(|(at, _)| *at == index || *at == EACH).map(|(_, target)| *target)
    }

    /// A list has come that is empty, all of whose elements lead to a cell: that of several texts, of which there are none.
    pub(in crate::format) fn take_empty_list(&self, level: usize, cells: &mut Cells) {
        if let Some(Target::Cell(cell)) = self.element(level, EACH) {
            // A cell of texts takes any.
            let _ = cells.at(cell).text("", None);
        }
    }

    /// Forgets what an object or list of the same key before this one had: the last of equal keys counts.
    pub(in crate::format) fn clear(&self, level: usize, cells: &mut Cells) {
        for cell in &self.levels[level].cells {
            cells.values[*cell] = Cell::Missing;
        }
    }
}

impl Level {
    fn step(&self, step: &Step) -> Option<Target> {
        match step {
            Step::Key(key) => self.keys.iter().find(|at| at.name == *key).and_then(|at| at.target),
            Step::Index(index) => self.elements.iter().find(|(at, _)| at == index).map(|(_, target)| *target),
        }
    }

    fn add(&mut self, step: &Step, target: Target, root: bool) {
        let key = match step {
            Step::Key(key) => key,
            Step::Index(index) => return self.elements.push((*index, target)),
        };
        let number = self.keys.len();
        self.keys.push(Key { name: key.clone(), target: Some(target), next: 0 });
        self.by_name.insert(key.clone(), number);
        if root && let Some(folded) = fold(key, String::new()) {
            self.by_name.entry(folded).or_insert(number);
        }
    }

    /// Looks a key up that is not the expected one, and expects it the next time.
    #[inline(never)]
    fn find_slowly(&mut self, previous: usize, key: &str, folded: &mut String) -> Option<Found> {
        let found = self.look_up(key, folded)?;
        self.keys[previous].next = found;
        self.keys[found].target.map(|target| (found, target))
    }

    fn look_up(&self, key: &str, folded: &mut String) -> Option<usize> {
        if let Some(number) = self.by_name.get(key) {
            return Some(*number);
        }
        *folded = fold(key, std::mem::take(folded))?;
        self.by_name.get(folded.as_str()).copied()
    }
}

/// The name of a header's key in lower case with `_` for `-`, written into `out`; `None` if it is another key.
fn fold(key: &str, mut out: String) -> Option<String> {
    out.clear();
    let prefix = key.get(..HEADER.len())?;
    if !prefix.eq_ignore_ascii_case(HEADER) {
        return None;
    }
    out.extend(key.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }));
    Some(out)
}
