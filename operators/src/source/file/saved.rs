//! What a log is told of followed files, so that another run goes on where this one was.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use engine::contract::Resume;

use super::super::tail::{Identity, Mark, Place};

/// Places of followed files.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(super) enum Saved {
    /// Of a source that names several or a pattern.
    Several {
        files: Vec<SavedFile>,
        /// Files that the pattern matches and that have been read under other names.
        read: Vec<SavedRead>,
    },
    /// Of a source of one.
    One(Place),
}

/// The place of one of several.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedFile {
    pub path: String,
    /// By which the positions of its lines name it.
    pub number: usize,
    /// Lines of it before the place.
    pub lines: u64,
    /// `None` if it has not begun.
    pub place: Option<Place>,
}

/// A file that has been read under another name. Older versions have written no `mark`, and lists.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedRead {
    pub identity: Identity,
    /// Of a copy of another file, up to where.
    pub to: Option<u64>,
    /// By what its text is known again.
    #[serde(default)]
    pub mark: Option<Mark>,
}

/// A path as places name it: any bytes, as text.
pub(super) fn name(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().escape_ascii().to_string()
}

/// The path that has this name. `None` if it is no name.
pub(super) fn path_of(name: &str) -> Option<PathBuf> {
    let (mut path, mut rest) = (Vec::with_capacity(name.len()), name.as_bytes());
    while let [first, more @ ..] = rest {
        let (byte, after) = match (first, more) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?, after)
            }
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [byte @ (b'\'' | b'"' | b'\\'), after @ ..]) => (*byte, after),
            (b'\\', _) => return None,
            (byte, after) => (*byte, after),
        };
        path.push(byte);
        rest = after;
    }
    Some(OsString::from_vec(path).into())
}

impl Saved {
    /// What the log was told.
    ///
    /// # Errors
    /// If it was told something else: by another version, or by a source of another kind.
    pub fn of(resume: &Resume) -> Result<Option<Self>, String> {
        let Some(cursor) = &resume.cursor else { return Ok(None) };
        let read = serde_json::from_slice(&cursor.place);
        read.map(Some).map_err(|error| {
            format!(
                "the position that its log has saved cannot be read ({error}): go on with the version that wrote it, or give \
                 the source another id, with which it begins anew"
            )
        })
    }

    /// The places of a source of several, whatever it was before; the place of one goes to the file that it is in, else to
    /// the first of `paths`.
    pub fn several(self, paths: &[(&Path, Option<Identity>)]) -> (Vec<SavedFile>, Vec<SavedRead>) {
        match self {
            Self::Several { mut files, read } => {
                let mut numbers = HashSet::new();
                files.retain(|file| file.number < super::super::numbers::MAX_FILES && numbers.insert(file.number));
                (files, read)
            }
            Self::One(place) => {
                let own = paths.iter().find(|(_, identity)| *identity == Some(place.identity)).or(paths.first());
                let file =
                    |(path, _): &(&Path, _)| SavedFile { path: name(path), number: 0, lines: 0, place: Some(place) };
                (own.map(file).into_iter().collect(), Vec::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::contract::Cursor;

    use super::*;

    fn saved(words: &str) -> Result<Option<Saved>, String> {
        Saved::of(&Resume {
            cursor: Some(Cursor { place: words.as_bytes().to_vec(), ..Cursor::default() }),
            ..Resume::default()
        })
    }

    #[test]
    fn a_position_of_an_older_version_still_counts() {
        let place = Place { identity: (7, 9), offset: 300, head: (256, 5), ..Place::default() };
        let old = r#"{"identity":[7,9],"offset":300,"head":[256,5]}"#;
        assert_eq!(saved(old), Ok(Some(Saved::One(place.clone()))));
        assert_eq!(saved(r#"{"identity":[7,9],"offset":300}"#).map(|saved| saved.is_some()), Ok(true));
        let paths = [(Path::new("/a"), Some((1, 1))), (Path::new("/b"), Some((7, 9)))];
        let (files, _) = Saved::One(place.clone()).several(&paths);
        assert_eq!((files[0].path.as_str(), &files[0].place), ("/b", &Some(place)), "the file that it is in");
    }

    #[test]
    fn what_is_no_position_is_refused_with_what_to_do() {
        for words in ["", "{}", "[1,2]", "\u{1}\u{2}"] {
            assert!(saved(words).is_err_and(|error| error.contains("give the source another id")), "{words}");
        }
        assert_eq!(Saved::of(&Resume::default()), Ok(None));
    }

    #[test]
    fn places_of_several_come_back_by_their_names() {
        let odd = Path::new("/log/\u{e4}.log");
        let file = SavedFile { path: name(odd), number: 3, lines: 8, place: Some(Place::default()) };
        let one = |inode, to, mark| SavedRead { identity: (1, inode), to, mark };
        let all = vec![one(2, None, Some(Mark::new(b"one\n", 4, b"one\n"))), one(3, Some(4), None)];
        let words = serde_json::to_string(&Saved::Several { files: vec![file], read: all.clone() });
        let back = saved(&words.expect("JSON")).expect("read").expect("there");
        let (files, read) = back.several(&[]);
        assert_eq!((files[0].path.as_str(), files[0].number, files[0].lines), (name(odd).as_str(), 3, 8));
        assert_eq!(read, all);
        let old = saved(r#"{"files":[],"read":[[[1,2],null],[[1,3],4]]}"#).expect("read").expect("there");
        assert_eq!(old.several(&[]).1, [one(2, None, None), one(3, Some(4), None)], "as an older version wrote it");
    }

    #[test]
    fn a_name_is_the_path_again() {
        let all: Vec<u8> = (1..=255).collect();
        for path in [b"/log/\xc3\xa4.log".to_vec(), b"/log/bob's \\x.log".to_vec(), all] {
            let path = PathBuf::from(OsString::from_vec(path));
            assert_eq!(path_of(&name(&path)), Some(path));
        }
        assert_eq!(["\\", "\\x1", "\\xzz", "\\q"].map(path_of), [None, None, None, None]);
    }
}
