//! Names of interfaces as numbers, which go with the packets through the extractor and come back with its hellos.

use std::collections::HashMap;
use std::sync::Arc;

/// Names that are told apart. A file can have more, and they stay as long as the table.
const MAX_NAMES: usize = 65_536;

/// The names so far.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    /// The number that was asked for last: mostly it is the next one too.
    last: u32,
}

impl Interfaces {
    /// The number of a name. 0 stands for no name, and for those that are too many.
    pub(crate) fn number(&mut self, name: Option<&str>) -> u32 {
        let Some(name) = name else { return 0 };
        if self.name(self.last) == Some(name) {
            return self.last;
        }
        let known = self.numbers.get(name).copied();
        self.last = known.unwrap_or_else(|| self.add(name));
        self.last
    }

    fn add(&mut self, name: &str) -> u32 {
        let number = match u32::try_from(self.names.len() + 1) {
            Ok(number) if self.names.len() < MAX_NAMES => number,
            _ => return 0,
        };
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    /// The name of a number.
    pub(crate) fn name(&self, number: u32) -> Option<&str> {
        let at = (number as usize).checked_sub(1)?;
        self.names.get(at).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_number_and_what_is_too_much_has_none() {
        let mut interfaces = Interfaces::default();
        let numbers =
            [None, Some("eth0"), Some("eth0"), Some("eth1"), None, Some("eth0")].map(|name| interfaces.number(name));
        assert_eq!(numbers, [0, 1, 1, 2, 0, 1]);
        assert_eq!([0, 1, 2, 3].map(|number| interfaces.name(number)), [None, Some("eth0"), Some("eth1"), None]);
        for nth in 2..MAX_NAMES + 10 {
            interfaces.number(Some(&format!("eth{nth}")));
        }
        assert_eq!((interfaces.number(Some("one more")), interfaces.number(Some("eth1"))), (0, 2));
        assert_eq!(interfaces.names.len(), MAX_NAMES);
    }
}
