//! What `correlate` should find, computed without frontiers, schedules and state: for every request in the order of event
//! time, look at every hello.

/// A hello or a request: its time in ms from the start, its client, by how many ms its arrival is delayed, and what else
/// of it counts.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub at: i64,
    /// How long before `at` a request began.
    pub took: i64,
    pub client: u16,
    pub delay: i64,
    /// The server's port.
    pub port: Option<u16>,
    /// The server.
    pub server: u8,
    pub sensor: Option<u8>,
    /// Over QUIC.
    pub udp: bool,
    /// Which program said hello.
    pub program: u8,
}

/// A row of the result: the request's position, and its hello's position and number on the connection.
pub type Row = (u64, Option<(u64, u16)>);

/// Options of the join; times in ms.
#[derive(Clone, Debug)]
pub struct Rules {
    pub window: i64,
    pub ttl: i64,
    pub max_age: i64,
    pub longest: i64,
    pub tolerance: i64,
    pub emit_after: i64,
    pub one_to_one: bool,
    pub by_connection: bool,
    pub by_sensor: bool,
    /// Clients whose rows are dropped.
    pub excluded: Vec<u16>,
    /// Ports; empty means all.
    pub ports: Vec<u16>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            window: 10_000,
            ttl: 30_000,
            max_age: 3_600_000,
            longest: 900_000,
            tolerance: 500,
            emit_after: 500,
            one_to_one: false,
            by_connection: false,
            by_sensor: false,
            excluded: Vec::new(),
            ports: Vec::new(),
        }
    }
}

impl Rules {
    /// As options of the node.
    pub fn options(&self) -> String {
        let Self { window, ttl, max_age, longest, tolerance, emit_after, by_sensor, ports, .. } = self;
        let mode = if self.one_to_one { "one_to_one" } else { "one_to_many" };
        let key = if self.by_connection { "connection" } else { "source" };
        let excluded: Vec<String> = self.excluded.iter().map(|client| format!("'{}'", address(*client))).collect();
        format!(
            ", window: {window}ms, keepalive_ttl: {ttl}ms, max_age: {max_age}ms, \
             longest_request: {longest}ms, tolerance: {tolerance}ms, mode: {mode}, \
             key: {key}, match_sensor: {by_sensor}, exclude_source_ips: [{}], include_dest_ports: {ports:?}, \
             orphans: {{ emit_after: {emit_after}ms }}",
            excluded.join(", ")
        )
    }

    fn passes(&self, event: &Event) -> bool {
        let address_ok = self.excluded.iter().all(|client| address(*client) != address(event.client));
        address_ok && (self.ports.is_empty() || event.port.is_none_or(|port| self.ports.contains(&port)))
    }

    fn same_key(&self, a: &Event, b: &Event) -> bool {
        a.client == b.client
            && a.udp == b.udp
            && (!self.by_connection || (a.server, a.port.unwrap_or(0)) == (b.server, b.port.unwrap_or(0)))
            && (!self.by_sensor || a.sensor == b.sensor)
    }

    fn is_sighting(&self, first: &Event, second: &Event) -> bool {
        !self.by_sensor
            && self.same_key(first, second)
            && second.at - first.at <= 2_000
            && first.program == second.program
            && matches!((first.sensor, second.sensor), (Some(a), Some(b)) if a != b)
    }

    /// The positions of the hellos that count: those that pass, without further sightings.
    pub fn hellos(&self, hellos: &[Event]) -> Vec<usize> {
        let mut counted: Vec<usize> = Vec::new();
        for h in in_order(hellos).into_iter().filter(|h| self.passes(&hellos[*h])) {
            if !counted.iter().any(|first| self.is_sighting(&hellos[*first], &hellos[h])) {
                counted.push(h);
            }
        }
        counted
    }

    /// The rows of the result by the request's position.
    pub fn expected(&self, hellos: &[Event], requests: &[Event]) -> Vec<Row> {
        let counted = self.hellos(hellos);
        let mut last: Vec<Option<i64>> = vec![None; hellos.len()];
        let mut count = vec![0u16; hellos.len()];
        let mut rows = Vec::new();
        for i in in_order(requests).into_iter().filter(|i| self.passes(&requests[*i])) {
            let request = &requests[i];
            let begin = request.at - request.took;
            let usable = |h: &usize| {
                let hello = &hellos[*h];
                let alive = (hello.at + self.window).max(last[*h].map_or(i64::MIN, |l| l + self.ttl));
                let alive = alive.min(hello.at + self.max_age);
                self.same_key(hello, request)
                    && alive >= begin
                    && alive + self.longest >= request.at
                    && !(self.one_to_one && count[*h] > 0)
            };
            let usable: Vec<usize> = counted.iter().copied().filter(usable).collect();
            let before = usable.iter().copied().filter(|h| hellos[*h].at <= begin);
            let after =
                usable.iter().copied().filter(|h| hellos[*h].at > begin && hellos[*h].at <= begin + self.tolerance);
            let found =
                before.max_by_key(|h| (hellos[*h].at, *h)).or_else(|| after.min_by_key(|h| (hellos[*h].at, *h)));
            if let Some(h) = found {
                last[h] = Some(last[h].unwrap_or(i64::MIN).max(request.at));
                count[h] += 1;
            }
            rows.push((i as u64, found.map(|h| (h as u64, count[h]))));
        }
        rows.sort_unstable();
        rows
    }
}

/// The positions of events in the order of event time.
fn in_order(events: &[Event]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by_key(|&i| (events[i].at, i));
    order
}

/// A client's address; four clients share one and differ in the port.
pub fn address(client: u16) -> String {
    match client / 4 % 2 {
        0 => format!("2001:db8::{}", client / 4),
        _ => format!("192.0.2.{}", client / 4),
    }
}
