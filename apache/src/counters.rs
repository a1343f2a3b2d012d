//! Numbers of the whole server: they lie in memory that its processes share.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// All zero at the server's start; they go on through a graceful restart. All bytes zero are a valid value, by which shared memory
/// can be used as it comes.
#[repr(C)]
#[derive(Default)]
pub struct Counters {
    /// Records sent.
    pub sent: AtomicU64,
    /// Of these, records of which a part was left out, because a datagram takes no more.
    pub cut: AtomicU64,
    /// Records lost because the socket's queue was full.
    pub lost_full: AtomicU64,
    /// Records lost because nobody was there to receive.
    pub lost_unreachable: AtomicU64,
    /// Records lost because the system takes no datagram of the least size.
    pub lost_too_large: AtomicU64,
    /// Records lost by a defect of the module.
    pub lost_defect: AtomicU64,
    /// Connections that began with HTTP/2.
    pub h2_connections: AtomicU64,
    /// Of these, connections without a complete first request in their first bytes.
    pub h2_incomplete: AtomicU64,
}

impl Counters {
    /// One more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Names and numbers.
    pub fn all(&self) -> [(&'static str, u64); 8] {
        [
            ("Sent", &self.sent),
            ("Cut", &self.cut),
            ("LostFull", &self.lost_full),
            ("LostUnreachable", &self.lost_unreachable),
            ("LostTooLarge", &self.lost_too_large),
            ("LostDefect", &self.lost_defect),
            ("H2Connections", &self.h2_connections),
            ("H2Incomplete", &self.h2_incomplete),
        ]
        .map(|(name, counter)| (name, counter.load(Relaxed)))
    }

    /// What mod_status shows: lines for programs, or a part of its page.
    pub fn status(&self, for_programs: bool) -> String {
        let mut text = String::new();
        if !for_programs {
            text += "<hr />\n<h2>mod_reqin_log</h2>\n<table border=\"0\">\n";
        }
        for (name, number) in self.all() {
            text += &match for_programs {
                true => format!("ReqinLog{name}: {number}\n"),
                false => format!("<tr><th>{name}</th><td>{number}</td></tr>\n"),
            };
        }
        if !for_programs {
            text += "</table>\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_all_numbers() {
        let counters = Counters::default();
        Counters::add(&counters.sent);
        assert!(counters.status(true).starts_with("ReqinLogSent: 1\nReqinLogCut: 0\n"));
        assert!(counters.status(false).contains("<tr><th>Sent</th><td>1</td></tr>"));
        assert_eq!(counters.status(true).lines().count(), counters.all().len());
    }
}
