//! Rights that are given up once a capture is open.

use caps::{CapSet, CapsHashSet};

/// Gives up all capabilities of the calling thread, and of the threads that it starts from now on.
///
/// # Errors
/// The system's message.
pub(crate) fn drop_all() -> Result<(), String> {
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::set(None, set, &CapsHashSet::new()).map_err(|error| error.to_string())?;
    }
    Ok(())
}
