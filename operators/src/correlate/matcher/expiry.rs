//! Hellos that go: those that have expired, and those that a bound pushes out.

use super::hello::Due;
use super::{END, Matcher, Outcomes, Side};

impl Matcher {
    /// Lets go of hellos that no request at or after `now` can match, looking at `limit` at most. Returns how many it
    /// looked at; fewer than `limit` were all.
    pub fn expire(&mut self, now: i64, limit: usize, out: &mut Outcomes) -> usize {
        for looked in 0..limit {
            let Some(due) = self.schedule.pop_before(now) else { return looked };
            if self.is_due(due, now) {
                self.let_go(due.hello, out);
            }
        }
        limit
    }

    /// Takes out a hello that has expired.
    fn let_go(&mut self, slot: u32, out: &mut Outcomes) {
        let (side, matches) = self.remove(slot);
        if matches > 0 {
            out.finished.push(side.row);
        } else {
            out.alone.push(side);
        }
    }

    /// Pushes out the hello that would expire first; `now` is the time of the row that needs its room. One that only a
    /// request which has begun by now can match leaves as if it had expired.
    pub(super) fn evict(&mut self, now: i64, out: &mut Outcomes) {
        while let Some(due) = self.schedule.pop_before(END) {
            if !self.is_due(due, due.at.saturating_add(1)) {
                continue;
            }
            if self.hellos[due.hello as usize].alive_until(&self.rules) < now {
                out.expired_early += 1;
                self.let_go(due.hello, out);
            } else {
                let (side, _) = self.remove(due.hello);
                out.evicted.push(side);
            }
            return;
        }
    }

    /// Whether a hello expires before `now`; if it has been matched since it was scheduled, it is scheduled again.
    fn is_due(&mut self, due: Due, now: i64) -> bool {
        let at = self.hellos[due.hello as usize].held_until(&self.rules);
        if at >= now {
            self.schedule.push(Due { at, ..due });
        }
        at < now
    }

    /// Takes a hello, which is not scheduled any more, out of its connection. Returns it and how often it was matched.
    fn remove(&mut self, slot: u32) -> (Side, u32) {
        let hello = &self.hellos[slot as usize];
        let (side, matches, connection, earlier) = (hello.side(), hello.matches, hello.connection, hello.earlier);
        let later = self.chain(connection).find(|other| self.hellos[*other as usize].earlier == slot);
        match later {
            Some(later) => self.hellos[later as usize].earlier = earlier,
            None => self.connections[connection].latest = earlier,
        }
        self.units -= self.hellos[slot as usize].units as usize;
        self.connections[connection].hellos -= 1;
        self.connections.forget_if_empty(connection);
        self.free.push(slot);
        (side, matches)
    }
}
