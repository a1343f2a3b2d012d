//! Rows that are corrected when their member's campaign changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use engine::batch::Time;

use super::flow::{Campaign, NONE};
use super::id::Id;
use super::known::Known;

/// A row as it leaves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Given {
    pub member: Option<Id>,
    /// The input's columns, encoded.
    pub whole: Rc<[u8]>,
    pub campaign: Campaign,
    /// It will never be taken back.
    pub settled: bool,
}

/// Rows that leave or are taken back at one time.
pub(super) type Updates = Vec<(Given, isize)>;

/// A row as it comes: its columns, and whether the input will never take it back.
type Whole = (Rc<[u8]>, bool);

/// A row that is corrected.
struct Held {
    /// From then on it keeps what it has.
    until: Time,
    campaign: Campaign,
    count: isize,
}

/// The rows of one worker that are corrected, and those that the input may still take back.
pub(super) struct Remembered {
    rows: HashMap<Id, BTreeMap<Whole, Held>>,
    /// The members with rows that end at a time, or did before they were taken back.
    ends: BTreeMap<Time, BTreeSet<Id>>,
    pub len: usize,
    max: usize,
    /// Rows for which there was no room.
    pub not_joined: usize,
}

impl Remembered {
    pub fn new(max: usize) -> Self {
        Self { rows: HashMap::new(), ends: BTreeMap::new(), len: 0, max, not_joined: 0 }
    }

    /// The next time at which rows end.
    pub fn next(&self) -> Option<Time> {
        self.ends.first_key_value().map(|(time, _)| *time)
    }

    /// Rows that end: those that the input will not take back leave for good.
    pub fn end(&mut self, time: Time, out: &mut Updates) {
        for member in self.ends.remove(&time).unwrap_or_default() {
            let Some(rows) = self.rows.get_mut(&member) else { continue };
            rows.retain(|(whole, settled), held| {
                let leaves = *settled && held.until == time;
                if leaves {
                    let given = |settled| Given {
                        member: Some(member),
                        whole: whole.clone(),
                        campaign: held.campaign,
                        settled,
                    };
                    out.extend([(given(false), -held.count), (given(true), held.count)]);
                    self.len -= 1;
                }
                !leaves
            });
            if rows.is_empty() {
                self.rows.remove(&member);
            }
        }
    }

    /// A row that comes at `now` with what is known then.
    pub fn insert(&mut self, member: Option<Id>, row: Whole, until: Time, now: Time, known: &Known, out: &mut Updates) {
        let (whole, settled) = row;
        let given = |campaign, settled| Given { member, whole: whole.clone(), campaign, settled };
        let Some(key) = member else {
            out.push((given(NONE, settled), 1));
            return;
        };
        let campaign = known.of(member);
        if settled && until <= now {
            out.push((given(campaign, true), 1));
            return;
        }
        let rows = self.rows.get_mut(&key);
        if let Some(held) = rows.and_then(|rows| rows.get_mut(&(whole.clone(), settled))) {
            held.count += 1;
            out.push((given(held.campaign, false), 1));
        } else if self.len < self.max {
            out.push((given(campaign, false), 1));
            let held = Held { until, campaign, count: 1 };
            self.rows.entry(key).or_default().insert((whole.clone(), settled), held);
            self.len += 1;
            if until > now {
                self.ends.entry(until).or_default().insert(key);
            }
        } else {
            self.not_joined += 1;
            out.push((given(NONE, settled), 1));
        }
    }

    /// A row that is taken back, with what it had.
    pub fn remove(&mut self, member: Option<Id>, whole: Rc<[u8]>, out: &mut Updates) {
        let row = (whole, false);
        let mut campaign = NONE;
        if let Some(key) = member
            && let Some(rows) = self.rows.get_mut(&key)
            && let Some(held) = rows.get_mut(&row)
        {
            campaign = held.campaign;
            held.count -= 1;
            if held.count == 0 {
                rows.remove(&row);
                self.len -= 1;
            }
            if rows.is_empty() {
                self.rows.remove(&key);
            }
        }
        out.push((Given { member, whole: row.0, campaign, settled: false }, -1));
    }

    /// Corrects the rows of members whose campaign is another one now.
    pub fn correct(&mut self, members: &[Id], now: Time, known: &Known, out: &mut Updates) {
        for member in members {
            let campaign = known.of(Some(*member));
            for ((whole, _), held) in self.rows.get_mut(member).into_iter().flatten() {
                if held.until <= now || held.campaign == campaign {
                    continue;
                }
                let given = |campaign| Given { member: Some(*member), whole: whole.clone(), campaign, settled: false };
                out.extend([(given(held.campaign), -held.count), (given(campaign), held.count)]);
                held.campaign = campaign;
            }
        }
    }
}
