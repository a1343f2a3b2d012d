//! What comes into a run as single documents, such as by a route of the web service, and not as data that a source goes and
//! reads. A source opens an intake under a name; who has a document looks for the intake by that name.

mod document;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::Value;

pub use document::document;

/// Takes documents.
pub trait Intake: Send + Sync {
    /// Takes one in. What has been answered is on disk, and takes effect. Waits for the disk.
    ///
    /// # Errors
    /// If it is not taken; nothing has changed then, or what has changed is as if it had never been said.
    fn take(&self, document: Value) -> Result<Value, NotTaken>;

    /// What was taken in and is in effect.
    fn shown(&self) -> Value;
}

/// Why a document is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It is wrong; sent again, it will be so again.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be taken now, such as while the disk is full.
    #[error("{0}")]
    NotNow(String),
}

/// The intakes of a run, by name.
#[derive(Default)]
pub struct Intakes(Mutex<BTreeMap<String, Weak<dyn Intake>>>);

impl fmt::Debug for Intakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}

impl Intakes {
    /// Opens an intake, for as long as somebody holds it.
    ///
    /// # Errors
    /// If another one of this name is open.
    pub fn open<I: Intake + 'static>(&self, name: &str, intake: &Arc<I>) -> Result<(), String> {
        let mut open = self.0.lock();
        if open.get(name).is_some_and(|other| other.strong_count() > 0) {
            return Err(format!("another node takes `{name}` already"));
        }
        let weak = Arc::downgrade(intake);
        open.insert(name.to_owned(), weak);
        Ok(())
    }

    /// The intake of this name, if it is open.
    pub fn find(&self, name: &str) -> Option<Arc<dyn Intake>> {
        self.0.lock().get(name)?.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Intake for Nothing {
        fn take(&self, document: Value) -> Result<Value, NotTaken> {
            Ok(document)
        }

        fn shown(&self) -> Value {
            Value::Null
        }
    }

    #[test]
    fn a_name_is_free_again_once_nobody_holds_its_intake() {
        let (intakes, first) = (Intakes::default(), Arc::new(Nothing));
        assert!(intakes.find("a").is_none());
        assert_eq!(intakes.open("a", &first), Ok(()));
        assert!(intakes.find("a").is_some() && intakes.find("b").is_none());
        assert_eq!(intakes.open("a", &Arc::new(Nothing)), Err("another node takes `a` already".to_owned()));
        drop(first);
        assert!(intakes.find("a").is_none());
        let second = Arc::new(Nothing);
        assert_eq!(intakes.open("a", &second), Ok(()));
        assert!(intakes.find("a").is_some());
    }
}
