//! The rows that may be labelled otherwise, and what becomes of them at each tick.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use differential_dataflow::consolidation::consolidate;
use engine::batch::Time;

use super::said::{Said, Saying, Who, Word, is_about};

/// An encoded row, or the encoded columns that say whose it is.
pub(super) type Bytes = Rc<[u8]>;

/// A row with what was said of it.
pub(super) type Given = (Bytes, Option<Rc<Word>>);

/// With more changes of what was said at once, each client is looked up, and not compared with each change.
const FEW: usize = 16;

/// Whose row, and which.
type Place = (Bytes, Bytes);

/// What comes in a tick.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// How many come, or go if it is negative, of the rows that may be taken back.
    open: BTreeMap<Place, isize>,
    /// How many come of those that stay.
    settled: BTreeMap<Place, usize>,
    clients: HashMap<Bytes, Who>,
    /// By event time and position.
    sayings: BTreeMap<(i64, u64), Saying>,
}

impl Arrivals {
    /// A row comes, or goes.
    pub fn row(&mut self, (client, who): (Bytes, impl FnOnce() -> Who), row: Bytes, diff: isize, settled: bool) {
        if !self.clients.contains_key(&client) {
            self.clients.insert(Rc::clone(&client), who());
        }
        if settled && diff > 0 {
            *self.settled.entry((client, row)).or_default() += diff.unsigned_abs();
        } else {
            *self.open.entry((client, row)).or_default() += diff;
        }
    }

    /// Something is said.
    pub fn saying(&mut self, order: (i64, u64), saying: Saying) {
        self.sayings.insert(order, saying);
    }
}

/// What leaves at a tick.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Leaving {
    /// Rows that may be taken back later, or are now if the number is negative.
    pub open: Vec<(Given, isize)>,
    /// Rows that stay.
    pub settled: Vec<Given>,
}

/// All that one worker holds.
#[derive(Debug)]
pub(super) struct Held {
    said: Said,
    max_said: usize,
    /// By the columns that say whose a row is.
    clients: HashMap<Bytes, Client>,
    /// When rows become ones that stay.
    ends: BTreeSet<(Time, Place)>,
    len: usize,
    max: usize,
    look_back: Time,
    tick: Time,
    /// What has come, by the tick at whose close it takes effect.
    pub waiting: BTreeMap<Time, Arrivals>,
    /// Rows that stay earlier than they should, for want of room.
    pub evicted: usize,
    /// Rows that went through without what was said of them, for want of room.
    pub not_held: usize,
    /// Words for which there was no room.
    pub not_heard: usize,
}

#[derive(Debug)]
struct Client {
    who: Who,
    word: Option<Rc<Word>>,
    /// How often each is there, and when it becomes one that stays, if it came as such.
    rows: HashMap<Bytes, (usize, Option<Time>)>,
}

impl Held {
    pub fn new((max, max_said): (usize, usize), look_back: Time, tick: Time) -> Self {
        Self {
            said: Said::default(),
            max_said,
            clients: HashMap::new(),
            ends: BTreeSet::new(),
            len: 0,
            max: max.max(1),
            look_back,
            tick: tick.max(1),
            waiting: BTreeMap::new(),
            evicted: 0,
            not_held: 0,
            not_heard: 0,
        }
    }

    /// How many different rows are held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How much is in effect.
    pub fn said(&self) -> usize {
        self.said.len()
    }

    /// The next time at which something may change.
    pub fn next(&self) -> Option<Time> {
        self.next_of_rows().into_iter().chain(self.said.next_end()).min()
    }

    fn next_of_rows(&self) -> Option<Time> {
        let waiting = self.waiting.first_key_value().map(|(time, _)| *time);
        waiting.into_iter().chain(self.ends.first().map(|(time, _)| *time)).min()
    }

    /// Does all that is due before the frontier, in the order of time. Without one all input has ended: rows that are to stay
    /// do so when their time comes, and the others are left as they are.
    pub fn advance(&mut self, frontier: Option<Time>, mut leave: impl FnMut(Time, Leaving)) {
        while let Some(time) = self.next().filter(|time| frontier.is_none_or(|frontier| *time < frontier)) {
            if frontier.is_none() && self.next_of_rows().is_none() {
                break;
            }
            let leaving = self.pass(time);
            if leaving != Leaving::default() {
                leave(time, leaving);
            }
        }
        if frontier.is_none() {
            *self = Self::new((self.max, self.max_said), self.look_back, self.tick);
        }
    }

    /// Does what is due at a time.
    fn pass(&mut self, time: Time) -> Leaving {
        let mut leaving = Leaving::default();
        let arrivals = self.waiting.remove(&time).unwrap_or_default();
        let mut changed = self.said.end(time);
        for saying in arrivals.sayings.into_values() {
            if saying.until <= time && saying.word.is_some() {
                continue;
            }
            if saying.word.is_some() && self.said.len() >= self.max_said && !self.said.knows(&saying.about) {
                self.not_heard += 1;
                continue;
            }
            let about = saying.about.clone();
            if self.said.hear(saying) {
                changed.push(about);
            }
        }
        self.label_again(&changed, &mut leaving);
        while self.ends.first().is_some_and(|(until, _)| *until <= time) {
            self.end_first(&mut leaving);
        }
        let clients = &arrivals.clients;
        // First what goes, so that there is room for what comes.
        for (place, diff) in arrivals.open.iter().filter(|(_, diff)| **diff < 0) {
            self.remove(place, diff.unsigned_abs(), &mut leaving);
        }
        for (place, diff) in arrivals.open.iter().filter(|(_, diff)| **diff > 0) {
            self.add(place, clients, (diff.unsigned_abs(), None), &mut leaving);
        }
        let until = time.saturating_add(self.look_back);
        let until = until.checked_next_multiple_of(self.tick).unwrap_or(until);
        for (place, count) in &arrivals.settled {
            self.add(place, clients, (*count, Some(until)), &mut leaving);
        }
        consolidate(&mut leaving.open);
        leaving.settled.sort_unstable();
        leaving
    }

    /// Corrects the rows of those of whom something else is said now.
    fn label_again(&mut self, changed: &[Who], leaving: &mut Leaving) {
        if changed.is_empty() {
            return;
        }
        for client in self.clients.values_mut() {
            if changed.len() <= FEW && !changed.iter().any(|about| is_about(about, &client.who)) {
                continue;
            }
            let word = self.said.of(&client.who);
            if word == client.word {
                continue;
            }
            let before = std::mem::replace(&mut client.word, word);
            for (row, (count, _)) in &client.rows {
                let count = count.cast_signed();
                leaving.open.push(((Rc::clone(row), before.clone()), -count));
                leaving.open.push(((Rc::clone(row), client.word.clone()), count));
            }
        }
    }

    fn remove(&mut self, place: &Place, count: usize, leaving: &mut Leaving) {
        let (client, row) = place;
        let mut left = count;
        if let Some(known) = self.clients.get_mut(client)
            && let Some((held, until)) = known.rows.get_mut(row)
        {
            let gone = left.min(*held);
            left -= gone;
            *held -= gone;
            leaving.open.push(((Rc::clone(row), known.word.clone()), -gone.cast_signed()));
            if *held == 0 {
                let until = *until;
                self.forget(place, until);
            }
        }
        // What found no room was given without a word, and is taken back so.
        if left > 0 {
            leaving.open.push(((Rc::clone(row), None), -left.cast_signed()));
        }
    }

    /// A row comes: one that stays at a time, or one that may be taken back.
    fn add(
        &mut self,
        place: &Place,
        clients: &HashMap<Bytes, Who>,
        (count, until): (usize, Option<Time>),
        leaving: &mut Leaving,
    ) {
        let (client, row) = place;
        let who = || clients.get(client).cloned().unwrap_or_default();
        let is_known = self.clients.get(client).is_some_and(|known| known.rows.contains_key(row));
        let has_room = self.look_back > 0 || until.is_none();
        if !(is_known || has_room && self.make_room(leaving)) {
            match until {
                Some(_) => {
                    let word = self.said.of(&who());
                    self.evicted += if has_room { count } else { 0 };
                    leaving.settled.extend(std::iter::repeat_n((Rc::clone(row), word), count));
                }
                None => {
                    self.not_held += count;
                    leaving.open.push(((Rc::clone(row), None), count.cast_signed()));
                }
            }
            return;
        }
        let said = &self.said;
        let known = self.clients.entry(Rc::clone(client)).or_insert_with(|| {
            let who = who();
            Client { word: said.of(&who), who, rows: HashMap::new() }
        });
        leaving.open.push(((Rc::clone(row), known.word.clone()), count.cast_signed()));
        let held = known.rows.entry(Rc::clone(row)).or_insert_with(|| {
            self.len += 1;
            (0, None)
        });
        held.0 += count;
        if let Some(until) = until {
            if let Some(before) = held.1.replace(until) {
                self.ends.remove(&(before, place.clone()));
            }
            self.ends.insert((until, place.clone()));
        }
    }

    /// Whether there is room for a row, if need be by having the one stay that would do so first.
    fn make_room(&mut self, leaving: &mut Leaving) -> bool {
        if self.len >= self.max {
            self.evicted += self.end_first(leaving);
        }
        self.len < self.max
    }

    /// Has the row stay that would do so first; how often it was there.
    fn end_first(&mut self, leaving: &mut Leaving) -> usize {
        let Some((until, place)) = self.ends.first().cloned() else { return 0 };
        let (client, row) = &place;
        let found = self.clients.get(client).and_then(|known| Some((known.word.clone(), known.rows.get(row)?.0)));
        self.forget(&place, Some(until));
        let Some((word, count)) = found else { return 0 };
        leaving.open.push(((Rc::clone(row), word.clone()), -count.cast_signed()));
        leaving.settled.extend(std::iter::repeat_n((Rc::clone(row), word), count));
        count
    }

    fn forget(&mut self, place: &Place, until: Option<Time>) {
        if let Some(until) = until {
            self.ends.remove(&(until, place.clone()));
        }
        let Some(known) = self.clients.get_mut(&place.0) else { return };
        self.len -= usize::from(known.rows.remove(&place.1).is_some());
        if known.rows.is_empty() {
            self.clients.remove(&place.0);
        }
    }
}
