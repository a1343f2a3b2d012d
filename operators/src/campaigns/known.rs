//! The campaigns of the members of one worker, as they are at a time.

use std::collections::{BTreeMap, HashMap};

use differential_dataflow::consolidation::consolidate;
use engine::batch::Time;

use super::flow::{Campaign, NONE};
use super::id::Id;

/// A member's campaign, and whether it comes or goes.
type Update = ((Id, Campaign), isize);

/// What is known of members.
#[derive(Default)]
pub(super) struct Known {
    waiting: BTreeMap<Time, Vec<Update>>,
    campaigns: HashMap<Id, Campaign>,
}

impl Known {
    /// A member's campaign comes or goes at a time.
    pub fn push(&mut self, member: Id, campaign: Campaign, at: Time, diff: isize) {
        self.waiting.entry(at).or_default().push(((member, campaign), diff));
    }

    /// The next time at which something changes.
    pub fn next(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|(time, _)| *time)
    }

    /// Takes in what changes at a time; the members whose campaign is another one now, in order.
    pub fn learn(&mut self, time: Time) -> Vec<Id> {
        let mut updates = self.waiting.remove(&time).unwrap_or_default();
        consolidate(&mut updates);
        for ((member, _), _) in updates.iter().filter(|(_, diff)| *diff < 0) {
            self.campaigns.remove(member);
        }
        for ((member, campaign), _) in updates.iter().filter(|(_, diff)| *diff > 0) {
            self.campaigns.insert(*member, *campaign);
        }
        let mut members: Vec<Id> = updates.into_iter().map(|((member, _), _)| member).collect();
        members.dedup();
        members
    }

    /// The campaign of a member.
    pub fn of(&self, member: Option<Id>) -> Campaign {
        member.and_then(|member| self.campaigns.get(&member)).copied().unwrap_or(NONE)
    }
}
