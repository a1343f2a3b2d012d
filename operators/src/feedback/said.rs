//! What analysts have said that is in effect, and which of it says something of a client.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use engine::batch::Time;

use crate::source::feedback::{ABOUT, Label};

/// Values of the columns [`ABOUT`]. Of a client, those that its rows have; of what was said, those that it names.
pub(super) type Who = [Option<Rc<str>>; ABOUT.len()];

/// What was said of somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    /// When, in ns. First, so that of several words the latest is the greatest.
    pub at: i64,
    pub label: Label,
    pub by: Box<str>,
}

/// A word, or that one is taken back.
#[derive(Clone, Debug)]
pub(super) struct Saying {
    pub about: Who,
    pub word: Option<Rc<Word>>,
    /// When it ends.
    pub until: Time,
}

/// Sets of columns, as bits, from the most specific to the least; those of one length are equally specific.
const SHAPES: [&[usize]; ABOUT.len()] = [&[0b111], &[0b011, 0b101, 0b110], &[0b001, 0b010, 0b100]];

/// What is in effect.
#[derive(Debug, Default)]
pub(super) struct Said {
    words: HashMap<Who, (Time, Rc<Word>)>,
    ends: BTreeSet<(Time, Who)>,
    /// How many words there are of each set of columns.
    shapes: [usize; 1 << ABOUT.len()],
}

/// Which columns have a value.
fn shape(who: &Who) -> usize {
    who.iter().enumerate().filter(|(_, value)| value.is_some()).map(|(nth, _)| 1 << nth).sum()
}

impl Said {
    /// Takes a word in, or takes one back. Whether that makes a difference.
    pub fn hear(&mut self, Saying { about, word, until }: Saying) -> bool {
        let before = self.forget(&about);
        let is_other = before != word;
        if let Some(word) = word {
            self.shapes[shape(&about)] += 1;
            self.ends.insert((until, about.clone()));
            self.words.insert(about, (until, word));
        }
        is_other
    }

    fn forget(&mut self, about: &Who) -> Option<Rc<Word>> {
        let (until, word) = self.words.remove(about)?;
        self.ends.remove(&(until, about.clone()));
        self.shapes[shape(about)] -= 1;
        Some(word)
    }

    /// Forgets what has ended at a time; about whom it was.
    pub fn end(&mut self, time: Time) -> Vec<Who> {
        let mut ended = Vec::new();
        while self.ends.first().is_some_and(|(until, _)| *until <= time) {
            let Some((_, about)) = self.ends.pop_first() else { break };
            self.forget(&about);
            ended.push(about);
        }
        ended
    }

    /// When the next word ends.
    pub fn next_end(&self) -> Option<Time> {
        self.ends.first().map(|(until, _)| *until)
    }

    pub fn len(&self) -> usize {
        self.words.len()
    }

    pub fn knows(&self, about: &Who) -> bool {
        self.words.contains_key(about)
    }

    /// What is said of a client: of the words all of whose columns are equal the one with the most columns, then the latest.
    pub fn of(&self, client: &Who) -> Option<Rc<Word>> {
        let has = shape(client);
        let word = |columns: &usize| {
            if columns & has != *columns || self.shapes[*columns] == 0 {
                return None;
            }
            let about = std::array::from_fn(|nth| client[nth].clone().filter(|_| columns & (1 << nth) != 0));
            self.words.get(&about).map(|(_, word)| word)
        };
        SHAPES.iter().find_map(|shapes| shapes.iter().filter_map(word).max()).cloned()
    }
}

/// Whether what is said `about` somebody is about this client.
pub(super) fn is_about(about: &Who, client: &Who) -> bool {
    about.iter().zip(client).all(|(about, client)| about.is_none() || about == client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(text: [&str; 3]) -> Who {
        text.map(|text| (!text.is_empty()).then(|| text.into()))
    }

    fn word(at: i64, label: Label) -> Option<Rc<Word>> {
        Some(Rc::new(Word { at, label, by: "ada".into() }))
    }

    #[test]
    fn the_most_specific_word_counts_and_then_the_latest() {
        let (good, bad) = (Label::FalsePositive, Label::TruePositive);
        let mut said = Said::default();
        let client = who(["192.0.2.1", "shop", "t13"]);
        let hear = |said: &mut Said, about, word| said.hear(Saying { about: who(about), word, until: 99 });
        assert!(hear(&mut said, ["", "", "t13"], word(9, bad)));
        assert_eq!(said.of(&client), word(9, bad));
        assert!(hear(&mut said, ["192.0.2.1", "", ""], word(3, good)));
        assert_eq!(said.of(&client), word(9, bad), "one column each: the latest");
        assert!(hear(&mut said, ["192.0.2.1", "shop", ""], word(1, good)));
        assert_eq!(said.of(&client), word(1, good), "two columns");
        assert_eq!(said.of(&who(["192.0.2.1", "cdn", "t13"])), word(9, bad));
        assert_eq!(said.of(&who(["192.0.2.1", "", ""])), word(3, good), "a client without a host");
        assert_eq!(said.of(&who(["192.0.2.9", "shop", ""])), None);
        assert!(!hear(&mut said, ["192.0.2.1", "shop", ""], word(1, good)), "said again");
        assert!(hear(&mut said, ["192.0.2.1", "shop", ""], None));
        assert!(!hear(&mut said, ["192.0.2.1", "shop", ""], None), "taken back twice");
        assert_eq!((said.of(&client), said.len()), (word(9, bad), 2));
    }

    #[test]
    fn words_end() {
        let mut said = Said::default();
        let about = who(["", "shop", ""]);
        for until in [50, 30] {
            said.hear(Saying { about: about.clone(), word: word(1, Label::FalsePositive), until });
        }
        assert_eq!(said.end(29), Vec::<Who>::new());
        assert_eq!((said.end(30), said.len(), said.next_end()), (vec![about], 0, None));
    }

    #[test]
    fn whom_a_word_is_about() {
        let client = who(["192.0.2.1", "shop", ""]);
        for (about, is) in [(["", "shop", ""], true), (["192.0.2.1", "cdn", ""], false), (["", "", "t13"], false)] {
            assert_eq!(is_about(&who(about), &client), is, "{about:?}");
        }
    }
}
