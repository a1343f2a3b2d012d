//! What a program asks of Linux for which there is no safe function: rows in memory that several processes share, descriptors over
//! a socket, a priority, and what a child process begins with. Each `unsafe` block says why it is sound; no other crate of the project has one.

mod descend;
mod pass;
mod priority;
mod sealed;

pub use descend::{close_inherited, ignore_ends};
pub use pass::{MAX_DESCRIPTORS, receive, send};
pub use priority::give_way;
pub use sealed::Sealed;
