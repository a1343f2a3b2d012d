//! What to say when requests come and find no hellos.

use engine::contract::{Seen, Sign};

/// Requests after which it is said while more may come.
const MANY: u64 = 100;

/// The counter of requests without a hello.
pub(super) const ORPHANS: &str = "orphan_requests";

/// The counter of those among them whose time is a whole second.
pub(super) const WHOLE_SECONDS: &str = "orphans_at_whole_seconds";

/// The counter of those among them that came without TLS, by their `scheme`.
pub(super) const PLAIN: &str = "orphans_without_tls";

/// What the counters of the join say.
pub(super) fn requests(seen: &Seen) -> Sign {
    let orphans = seen.counter(ORPHANS);
    let requests = seen.counter("correlated") + orphans;
    if requests == 0 || requests < MANY && !seen.over {
        return Sign::Unclear;
    }
    let rounded = seen.counter(WHOLE_SECONDS);
    // Of exact times one in a thousand is a whole second, if they are in ms.
    let rounded = rounded > 0 && rounded >= orphans - orphans / 10;
    let nearly_all = orphans > 0 && orphans >= requests - requests / 20;
    let many_rounded = rounded && orphans >= requests / 5;
    if !nearly_all && !many_rounded {
        return Sign::Fine;
    }
    let hellos = seen.inputs.first().copied().unwrap_or(0);
    let mostly = |counter: &str| seen.counter(counter) >= orphans - orphans / 10;
    let cause = if mostly(PLAIN) {
        "these requests came without TLS, for their `scheme` is `http`, and without TLS there is no hello: read the log of the \
         server that ends TLS, or, where a proxy in front ends it, let this server log the scheme, address and port that the \
         proxy saw"
    } else if mostly("orphans_without_port") {
        "these requests have no `src_port`, without which nothing tells which connection they came by: let the server log it"
    } else if mostly("requests_too_long") {
        "these requests took longer than `longest_request`: raise it, or look whether the durations have the right unit"
    } else if mostly("orphans_after_expiry") {
        "their hellos had expired: raise `window` and `keepalive_ttl` to what the server waits for a request"
    } else if hellos == 0 {
        "no hello has come at all: TLS may end elsewhere, such as at a load balancer, or the capture is of another interface, \
         port or time"
    } else if rounded {
        "the times of these requests are whole seconds, so they are before their hellos: let the server log fractions"
    } else {
        "hellos come, but of other connections: compare `src_ip`, `src_port` and `time` of both inputs; behind a proxy the \
         server sees the proxy's address and port"
    };
    Sign::Wrong(format!("{orphans} of {requests} requests have found no hello: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(hellos: u64, correlated: u64, orphans: u64, rounded: u64) -> Seen {
        let named = [("correlated", correlated), (ORPHANS, orphans), (WHOLE_SECONDS, rounded)];
        Seen { inputs: vec![hellos, correlated + orphans], named: named.into_iter().collect(), ..Seen::default() }
    }

    #[test]
    fn the_likely_cause_is_named() {
        for (seen, says) in [
            (seen(0, 0, 500, 0), "500 of 500 requests have found no hello: no hello has come"),
            (seen(900, 10, 490, 3), "of other connections"),
            (seen(900, 10, 490, 480), "whole seconds"),
            (seen(900, 250, 250, 250), "whole seconds"),
        ] {
            let Sign::Wrong(said) = requests(&seen) else { panic!("{says}") };
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn requests_without_tls_are_told_from_a_capture_that_sees_nothing() {
        let with = |plain: u64| {
            let mut seen = seen(0, 0, 500, 0);
            seen.named.insert(PLAIN, plain);
            let Sign::Wrong(said) = requests(&seen) else { panic!("wrong") };
            said
        };
        assert!(with(500).contains("came without TLS") && with(460).contains("came without TLS"));
        assert!(with(20).contains("no hello has come at all"));
    }

    #[test]
    fn some_orphans_are_nothing_strange() {
        assert_eq!(requests(&seen(900, 450, 50, 50)), Sign::Fine);
        assert_eq!(requests(&seen(900, 50, 450, 0)), Sign::Fine);
        assert_eq!(requests(&seen(900, 0, 0, 0)), Sign::Unclear);
        assert_eq!(requests(&seen(0, 0, 99, 0)), Sign::Unclear);
        assert!(matches!(requests(&Seen { over: true, ..seen(0, 0, 1, 0) }), Sign::Wrong(_)));
    }
}
