//! The content of a file that a pipeline names beside its data. It is a regular file of a bounded size: nothing waits for
//! somebody to write to a pipe, and no device is read without end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The most bytes of a content. A large table of networks has 200 MB.
const MOST_BYTES: u64 = 512 << 20;

/// The most bytes of a YAML file.
const MOST_YAML: u64 = 16 << 20;

/// Reads a regular file of at most 512 MiB.
///
/// # Errors
/// If it is another kind of file, larger, or cannot be read.
pub fn read_content(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, MOST_BYTES)
}

/// Reads a regular file of at most 16 MiB as text.
///
/// # Errors
/// As [`read_content`], and if it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let content = read_up_to(path, MOST_YAML)?;
    String::from_utf8(content).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("byte {at} is not UTF-8"))
    })
}

fn read_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let bytes = file.metadata()?.len();
    let too_large = || io::Error::other(format!("it is larger than {most} bytes"));
    if bytes > most {
        return Err(too_large());
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    // It may grow while it is read.
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most { Err(too_large()) } else { Ok(content) }
}

/// Opens a regular file. A pipe is not waited for: it is opened without that, and refused.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("list.csv");
        std::fs::write(&path, "text").expect("written");
        assert_eq!(read_text(&path).expect("read"), "text");
        std::fs::write(&path, b"te\xffxt").expect("written");
        assert!(read_text(&path).expect_err("no text").to_string().contains("byte 2"));
        File::options().write(true).open(&path).and_then(|file| file.set_len(MOST_YAML + 1)).expect("longer");
        assert!(read_text(&path).expect_err("too large").to_string().contains("larger than"));
        File::options().write(true).open(&path).and_then(|file| file.set_len(MOST_BYTES + 1)).expect("longer");
        assert!(read_content(&path).expect_err("too large").to_string().contains("larger than"));
    }

    #[test]
    fn a_pipe_a_device_and_a_folder_are_refused_at_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("runs");
        assert!(made.success());
        for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            let refused = read_content(path).expect_err("refused").to_string();
            assert!(refused.contains("not a regular file"), "{refused}");
            assert!(read_text(path).is_err());
        }
    }
}
