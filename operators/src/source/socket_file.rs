//! Files of unix sockets: one that an earlier run left is replaced, and anything else there is somebody's.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use engine::contract::PlanContext;
use engine::spec::{Diagnostic, Located};

/// The permissions that an option asks for; by default the owner and the group may write. Faults go to the context.
pub(super) fn mode(option: Option<&Located<String>>, context: &mut PlanContext<'_>) -> Option<u32> {
    let Some(text) = option else { return Some(0o660) };
    let mode = u32::from_str_radix(text.value.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o777);
    if mode.is_some_and(|mode| mode & 0o002 != 0) {
        let message = format!("with `{}` every user of this machine can write to the socket", text.value);
        context.warn(Diagnostic::new(text.span, message).help("0660 lets the owner and the group"));
    }
    if mode.is_none() {
        context.error(text.span, format!("`{}` is not a permission such as \"0660\"", text.value));
    }
    mode
}

/// Whether a socket stands at `path`; anything else there is somebody's file.
///
/// # Errors
/// If something else does.
pub(super) fn only_a_socket(path: &Path) -> Result<bool, String> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => Err(format!("{} exists and is not a socket", path.display())),
        Err(_) => Ok(false),
    }
}

/// Whether a socket can be made there.
///
/// # Errors
/// If it cannot.
pub(super) fn probe(path: &Path) -> Result<(), String> {
    only_a_socket(path)?;
    // Beside it, under a name no longer than most: a socket of its own name would be taken from who has it.
    let probe = path.with_file_name(format!(".{}", std::process::id()));
    let bound = UnixDatagram::bind(&probe).and_then(|_| std::fs::remove_file(&probe));
    bound.map_err(|error| format!("the socket {} cannot be made: {error}", path.display()))
}

/// A socket's file, which goes when this does.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// Has `bind` make a socket there, whose file gets these permissions.
    ///
    /// # Errors
    /// If it cannot be made, or somebody else has one there.
    pub fn bind<S>(
        path: &Path,
        mode: u32,
        bind: impl FnOnce(&Path) -> std::io::Result<S>,
    ) -> Result<(Self, S), String> {
        let fault =
            |what: &str, error: std::io::Error| format!("the socket {} cannot be {what}: {error}", path.display());
        if only_a_socket(path)? {
            let datagrams = UnixDatagram::unbound().and_then(|probe| probe.connect(path)).is_ok();
            if datagrams || UnixStream::connect(path).is_ok() {
                return Err(format!("the socket {} is in use by another process", path.display()));
            }
            std::fs::remove_file(path).map_err(|error| fault("replaced", error))?;
        }
        let socket = bind(path).map_err(|error| fault("made", error))?;
        let inode = std::fs::symlink_metadata(path).map_err(|error| fault("made", error))?.ino();
        let file = Self { path: path.to_owned(), inode };
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(|error| fault("given its permissions", error))?;
        Ok((file, socket))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// After this nobody new can send.
    pub fn unlink(&self) {
        let own = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if own && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.unlink();
    }
}
