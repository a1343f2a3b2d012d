//! Which node a worker works for: a panic says so.

use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static HERE: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
}

/// A node, as its operators enter it.
#[derive(Clone, Debug)]
pub struct Here(Rc<str>);

/// While it lives, the thread works for the node. If a panic ends it, the node stays noted.
#[derive(Debug)]
#[must_use]
pub struct Entered;

impl Here {
    /// The node, or a part of it, of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// This thread works for the node now.
    pub fn enter(&self) -> Entered {
        HERE.with_borrow_mut(|here| *here = Some(Rc::clone(&self.0)));
        Entered
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            HERE.with_borrow_mut(|here| *here = None);
        }
    }
}

/// The node that this thread worked for when it panicked.
pub(crate) fn panicked_in() -> Option<Rc<str>> {
    HERE.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_name_of_its_node() {
        let here = Here::new("score");
        drop(here.enter());
        assert_eq!(panicked_in(), None);
        let panicked = std::panic::catch_unwind(|| {
            let _here = Here::new("score").enter();
            panic!("a defect");
        });
        assert!(panicked.is_err());
        assert_eq!(panicked_in().as_deref(), Some("score"));
        assert_eq!(panicked_in(), None, "once");
    }
}
