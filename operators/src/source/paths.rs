//! Which files a source reads: one, several, or all that match a pattern.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use engine::spec::Located;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// Names of a folder that are looked at.
const MAX_NAMES: usize = 100_000;

/// Paths as an option has them.
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Paths {
    /// One.
    One(PathBuf),
    /// Several.
    Several(Vec<Located<PathBuf>>),
}

impl<'de> Deserialize<'de> for Paths {
    /// By hand: an untagged enum would lose the places.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Paths;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's path or a list of them")
            }
            fn visit_str<E>(self, path: &str) -> Result<Paths, E> {
                Ok(Paths::One(path.into()))
            }
            fn visit_i64<E>(self, path: i64) -> Result<Paths, E> {
                Ok(Paths::One(path.to_string().into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Paths, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(seq)).map(Paths::Several)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Paths {
    /// Each with its place.
    pub(crate) fn list(paths: Located<Self>) -> Vec<Located<PathBuf>> {
        match paths.value {
            Self::One(path) => vec![Located::new(path, paths.span)],
            Self::Several(paths) => paths,
        }
    }
}

/// A path of which names have `*`, `?` or `[`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The folder that it is relative to, whose names stand for themselves.
    base: PathBuf,
    names: PathBuf,
}

impl Pattern {
    /// Of a path as it was written, and the same looked up. `None` if it is a file's name, also of one that is called so.
    pub(crate) fn new(written: &Path, full: &Path) -> Option<Self> {
        let is_pattern = |name: &OsStr| name.as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte));
        if !written.iter().any(is_pattern) || full.exists() {
            return None;
        }
        let names = written.components().filter(|part| *part != Component::CurDir).count();
        let base = full.ancestors().nth(names).unwrap_or(Path::new("")).to_owned();
        let names = full.strip_prefix(&base).unwrap_or(full).to_owned();
        Some(Self { base, names })
    }

    /// Whether a file of this path matches, name by name.
    pub(super) fn matches(&self, path: &Path) -> bool {
        let Ok(path) = path.strip_prefix(&self.base) else { return false };
        let (pattern, path): (Vec<_>, Vec<_>) = (self.names.iter().collect(), path.iter().collect());
        let fits = |(pattern, name): (&&OsStr, &&OsStr)| fits(pattern.as_encoded_bytes(), name.as_encoded_bytes());
        pattern.len() == path.len() && pattern.iter().zip(&path).all(fits)
    }

    /// The files that match, by name. Folders that cannot be listed have none.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = vec![self.base.clone()];
        for part in &self.names {
            let wanted = part.as_encoded_bytes();
            if !wanted.iter().any(|byte| b"*?[".contains(byte)) {
                found.iter_mut().for_each(|path| path.push(part));
                continue;
            }
            // As in a shell, `*` is no name that is hidden.
            let fits = |name: &OsStr| {
                let name = name.as_encoded_bytes();
                fits(wanted, name) && (!name.starts_with(b".") || wanted.starts_with(b"."))
            };
            let mut next = Vec::new();
            for folder in found {
                let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
                let entries = std::fs::read_dir(listed).into_iter().flatten().flatten().take(MAX_NAMES);
                next.extend(
                    entries.map(|entry| entry.file_name()).filter(|name| fits(name)).map(|name| folder.join(name)),
                );
            }
            found = next;
        }
        found.retain(|path| path.is_file());
        found.sort();
        found.dedup();
        found
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.join(&self.names).display().fmt(f)
    }
}

/// Whether a name fits: `*` is any bytes, `?` one, `[a-z]` one of these, `[!a-z]` none of them.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], name[n]),
            Some(byte) if *byte == name[n] => Some(1),
            _ => None,
        };
        match (step, &mut star) {
            (Some(step), _) => {
                p += step;
                n += 1;
            }
            (None, Some((at, taken))) => {
                *taken += 1;
                (p, n) = (*at + 1, *taken);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How long a class of bytes is that has this one. A `[` that is not closed stands for itself.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    let close = pattern.iter().skip(first + 1).position(|byte| *byte == b']').map(|at| at + first + 1);
    let Some(close) = close else { return (byte == b'[').then_some(1) };
    let (mut at, mut is_in) = (first, false);
    while at < close {
        if at + 2 < close && pattern[at + 1] == b'-' {
            is_in |= (pattern[at]..=pattern[at + 2]).contains(&byte);
            at += 3;
        } else {
            is_in |= pattern[at] == byte;
            at += 1;
        }
    }
    (is_in != negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_as_in_a_shell() {
        for (pattern, name, right) in [
            ("*.log", "access.log", true),
            ("*.log", "access.log.1", false),
            ("*", "", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("access.log?[0-9]", "access.log.7", true),
            ("access.log?[!0-9]", "access.log.7", false),
            ("[]a]x", "]x", true),
            ("[abc", "[abc", true),
            ("*a*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), right, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_in_folders_that_match_too() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["b/x.log", "a/y.log", "a/x.log", "a/x.txt", "a/.x.log", "c.log/no"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let pattern = |written: &str| Pattern::new(Path::new(written), &dir.path().join(written));
        let all = pattern("./*/*.log").expect("a pattern");
        let wanted: Vec<_> = ["a/x.log", "a/y.log", "b/x.log"].iter().map(|name| dir.path().join(name)).collect();
        assert_eq!(all.files(), wanted);
        assert!(all.matches(&wanted[0]) && !all.matches(&dir.path().join("x.log")));
        assert_eq!(pattern("a/x.log"), None);
        std::fs::write(dir.path().join("[a].log"), "").expect("written");
        assert_eq!(pattern("[a].log"), None, "a file that has this very name");
        let strange = dir.path().join("[b]");
        std::fs::create_dir(&strange).expect("made");
        std::fs::write(strange.join("x.log"), "").expect("written");
        let inside = Pattern::new(Path::new("*.log"), &strange.join("*.log")).expect("a pattern");
        assert_eq!(inside.files(), [strange.join("x.log")], "names of the folder stand for themselves");
    }
}
