//! Permissions of files and folders, as a pipeline says them.

use super::{Diagnostic, Located};
use crate::files::Modes;

/// Permissions that everybody has who is neither the owner nor in the group.
const OTHERS: u32 = 0o007;

/// The permissions that are written, or the default ones; what is wrong with them goes to `problems`, what is probably not meant
/// to `warnings`.
pub(super) fn read(
    file: Option<&Located<String>>,
    dir: Option<&Located<String>>,
    problems: &mut Vec<Diagnostic>,
    warnings: &mut Vec<Diagnostic>,
) -> Modes {
    let mut mode = |text: Option<&Located<String>>, needed: u32, most: u32, default: u32, what: &str| {
        let Some(text) = text else { return default };
        let Some(mode) = octal(&text.value, most) else {
            let example = format!("`{}` is not a permission such as \"{default:04o}\", at most {most:04o}", text.value);
            problems.push(Diagnostic::new(text.span, example));
            return default;
        };
        if mode & needed != needed {
            let message = format!("with `{}` the engine itself cannot use its {what}", text.value);
            let help = format!("the owner needs {needed:04o}");
            problems.push(Diagnostic::new(text.span, message).help(help));
        }
        if mode & OTHERS & 0o002 != 0 {
            let message = format!("with `{}` every user of this machine can write to the {what}", text.value);
            warnings
                .push(Diagnostic::new(text.span, message).help(format!("{default:04o} lets the owner write alone")));
        }
        mode
    };
    Modes {
        file: mode(file, 0o600, 0o666, Modes::DEFAULT.file, "files"),
        dir: mode(dir, 0o700, 0o777, Modes::DEFAULT.dir, "folders"),
    }
}

/// A number such as `0640` or `0o640`, without bits that `most` does not have.
fn octal(text: &str, most: u32) -> Option<u32> {
    u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mode| mode & !most == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Span;

    fn said(file: Option<&str>, dir: Option<&str>) -> (Modes, Vec<String>, Vec<String>) {
        let located = |text: &str| Located::new(text.to_owned(), Span::default());
        let (file, dir) = (file.map(located), dir.map(located));
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let modes = read(file.as_ref(), dir.as_ref(), &mut problems, &mut warnings);
        let messages = |all: Vec<Diagnostic>| all.into_iter().map(|one| one.message).collect();
        (modes, messages(problems), messages(warnings))
    }

    #[test]
    fn permissions_are_octal_and_those_that_make_no_sense_are_refused() {
        assert_eq!(said(None, None), (Modes { file: 0o640, dir: 0o750 }, Vec::new(), Vec::new()));
        assert_eq!(said(Some("0600"), Some("0o770")).0, Modes { file: 0o600, dir: 0o770 });
        for (file, dir) in [(Some("rw"), None), (Some("0755"), None), (None, Some("1777")), (None, Some(""))] {
            assert!(said(file, dir).1[0].contains("is not a permission"), "{file:?} {dir:?}");
        }
        assert!(said(Some("0440"), None).1[0].contains("the engine itself"));
        let (_, problems, warnings) = said(Some("0666"), Some("0777"));
        assert_eq!((problems.len(), warnings.len()), (0, 2));
        assert!(warnings[0].contains("every user of this machine can write to the files"), "{warnings:?}");
    }
}
