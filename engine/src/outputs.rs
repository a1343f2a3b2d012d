//! What SIGHUP opens again: files that sinks write to, which a log rotation may have moved meanwhile.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Something that a sink writes to under a name that others may give to something else.
pub trait Reopen: Send + Sync {
    /// Opens what is under the name now and goes on there; what was written before is complete where it is. False if
    /// nothing is written any more.
    ///
    /// # Errors
    /// If that cannot be opened; the message names it. The sink then goes on with what it has open.
    fn reopen(&self) -> Result<bool, String>;
}

/// The outputs of a run.
#[derive(Default)]
pub struct Outputs(Mutex<Vec<(String, Weak<dyn Reopen>)>>);

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.lock().iter().map(|(name, _)| name)).finish()
    }
}

impl Outputs {
    /// Adds an output of the node `id`, for as long as somebody else holds it.
    pub fn add(&self, id: &str, output: Weak<dyn Reopen>) {
        self.0.lock().push((id.to_owned(), output));
    }

    /// Opens all outputs again. What there is to say of it, unless there are none.
    pub(crate) fn reopen(&self) -> Option<String> {
        let outputs: Vec<(String, Arc<dyn Reopen>)> = {
            let mut all = self.0.lock();
            all.retain(|(_, output)| output.strong_count() > 0);
            all.iter().filter_map(|(id, output)| Some((id.clone(), output.upgrade()?))).collect()
        };
        let (mut opened, mut faults) = (Vec::new(), String::new());
        for (id, output) in outputs {
            match output.reopen() {
                Ok(true) => opened.push(id),
                Ok(false) => {}
                Err(message) => faults.push_str(&format!("; {id} goes on as it was: {message}")),
            }
        }
        match (opened.is_empty(), faults.is_empty()) {
            (true, true) => None,
            (true, false) => Some(format!("no output reopened{faults}")),
            (false, _) => Some(format!("reopened {}{faults}", opened.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Output(Result<bool, String>);

    impl Reopen for Output {
        fn reopen(&self) -> Result<bool, String> {
            self.0.clone()
        }
    }

    #[test]
    fn what_was_opened_and_what_was_not_is_said_and_what_is_gone_is_forgotten() {
        let outputs = Outputs::default();
        assert_eq!(outputs.reopen(), None);
        let add = |id: &str, result| {
            let output: Arc<dyn Reopen> = Arc::new(Output(result));
            outputs.add(id, Arc::downgrade(&output));
            output
        };
        let kept = [add("rows", Ok(true)), add("over", Ok(false)), add("late", Err("/x cannot be opened".to_owned()))];
        drop(add("gone", Ok(true)));
        let said = outputs.reopen();
        assert_eq!(said.as_deref(), Some("reopened rows; late goes on as it was: /x cannot be opened"));
        drop(kept);
        assert_eq!(outputs.reopen(), None);
    }
}
