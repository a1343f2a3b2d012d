//! Hellos and requests for the join, made from their number alone: the same in every run.
//!
//! Each of a number of clients, half of them IPv6, opens a connection every 20 s. A connection has a hello and, within 10 s after
//! it, three requests. Every row arrives up to 2 s after its time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, SchemaRef};
use engine::batch::{Batch, MAX_ROWS, Time, stream_schema, time_array};
use engine::time::Watermark;
use operators::format::{Format, Unit};

const S: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * S;
/// A client opens a connection every so often.
const PERIOD: u64 = 20 * S;
/// The first to the last request of a connection come within this time after its hello.
const SPREAD: u64 = 10 * S;
const DISORDER: u64 = 2 * S;

/// Requests of a connection.
pub const REQUESTS: u64 = 3;

/// Which side of the join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Hellos.
    Hello,
    /// Requests.
    Request,
    /// Requests with their hellos, as `correlate` puts them together; only wide.
    Joined,
}

/// What is made.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many clients there are.
    pub clients: u64,
    /// Events of both sides together.
    pub events: u64,
    /// All columns of `reqin_log` and `ja4sentinel`, or eight.
    pub wide: bool,
}

impl Load {
    /// Columns of one side.
    pub fn schema(&self, side: Side) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let ends = [Field::new("src_ip", DataType::Utf8, false), Field::new("src_port", DataType::UInt16, false)];
        match (self.wide, side) {
            (true, Side::Hello) => Arc::clone(&Format::ja4sentinel(Unit::Ns).schema),
            (true, Side::Request) => Arc::clone(&Format::reqin_log(Unit::Ns).schema),
            (_, Side::Joined) => joined(),
            (false, Side::Hello) => stream_schema(ends.into_iter().chain([text("ja4"), text("tls_sni")])),
            (false, Side::Request) => stream_schema(ends.into_iter().chain([text("host"), text("path")])),
        }
    }

    /// Batches of one side with the watermark before each, in the order of arrival.
    pub fn batches(self, side: Side) -> impl Iterator<Item = (Time, Batch)> + Send {
        let mut events = Events { load: self, side, next: 0, arriving: BinaryHeap::new() };
        let mut watermark = Watermark::new(Duration::from_nanos(DISORDER), Duration::from_millis(100));
        let schema = self.schema(side);
        let mut seq = 0;
        std::iter::from_fn(move || {
            let rows: Vec<Event> = events.by_ref().take(MAX_ROWS).collect();
            if rows.is_empty() {
                return None;
            }
            let time = watermark.time();
            rows.iter().for_each(|row| _ = watermark.observe(row.time as i64));
            let columns = schema.fields().iter().map(|field| column(field, &rows, seq)).collect();
            seq += rows.len() as u64;
            Some((time, Batch::new(RecordBatch::try_new(Arc::clone(&schema), columns).ok()?)))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    arrival: u64,
    time: u64,
    connection: u64,
    client: u64,
}

/// The events of one side in the order of arrival.
struct Events {
    load: Load,
    side: Side,
    /// The next connection.
    next: u64,
    arriving: BinaryHeap<Reverse<Event>>,
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let connections = self.load.events / (1 + REQUESTS);
        loop {
            let opened = START + (u128::from(self.next) * u128::from(PERIOD) / u128::from(self.load.clients)) as u64;
            let due = self.arriving.peek().is_some_and(|Reverse(event)| event.arrival <= opened);
            if due || self.next == connections {
                return self.arriving.pop().map(|Reverse(event)| event);
            }
            let numbers = if self.side == Side::Hello { 0..1 } else { 1..1 + REQUESTS };
            for number in numbers {
                let random = mix(self.next * 8 + number);
                let time = if number == 0 { opened } else { opened + 1 + random % SPREAD };
                let arrival = time + mix(random) % DISORDER;
                let client = self.next % self.load.clients;
                self.arriving.push(Reverse(Event { arrival, time, connection: self.next, client }));
            }
            self.next += 1;
        }
    }
}

/// Columns of requests, of hellos, and what the join adds.
fn joined() -> SchemaRef {
    let (requests, hellos) = (&Format::reqin_log(Unit::Ns).schema, &Format::ja4sentinel(Unit::Ns).schema);
    let further = hellos.fields().iter().filter(|field| requests.index_of(field.name()).is_err());
    let added = [
        ("correlated", DataType::UInt8),
        ("orphan_side", DataType::Utf8),
        ("keepalives", DataType::UInt16),
        ("a_timestamp", DataType::UInt64),
        ("b_timestamp", DataType::UInt64),
    ];
    let added = added.map(|(name, ty)| Field::new(name, ty, true));
    let both = requests.fields().iter().chain(further).map(|field| field.as_ref().clone());
    Arc::new(arrow::datatypes::Schema::new(both.chain(added).collect::<Vec<_>>()))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn column(field: &Field, rows: &[Event], first: u64) -> ArrayRef {
    let number = |row: &Event| mix(row.connection ^ ((field.name().len() as u64) << 40));
    match (field.name().as_str(), field.data_type()) {
        ("time", _) => time_array(rows.iter().map(|row| row.time as i64).collect()),
        ("seq", _) => Arc::new(UInt64Array::from_iter_values(first..first + rows.len() as u64)),
        ("src_ip", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| address(row.client)))),
        ("dst_ip", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "192.0.2.10"))),
        ("src_port", _) => Arc::new(UInt16Array::from_iter_values(rows.iter().map(|row| row.client as u16 | 1024))),
        ("http_version", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "HTTP/2.0"))),
        ("sensor_id", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "sensor-1"))),
        (name, DataType::Utf8) => Arc::new(StringArray::from_iter(rows.iter().map(|row| text(name, number(row))))),
        (_, DataType::UInt8) => Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| number(row) as u8))),
        (_, DataType::UInt16) => Arc::new(UInt16Array::from_iter_values(rows.iter().map(|row| number(row) as u16))),
        (_, DataType::UInt64) => Arc::new(UInt64Array::from_iter_values(rows.iter().map(number))),
        (_, DataType::Float64) => Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| number(row) as f64))),
        (_, DataType::Boolean) => {
            Arc::new(rows.iter().map(|row| Some(number(row).is_multiple_of(2))).collect::<BooleanArray>())
        }
        (_, other) => arrow::array::new_null_array(other, rows.len()),
    }
}

fn address(client: u64) -> String {
    if client.is_multiple_of(2) {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 | (client as u32 / 16)).to_string()
    } else {
        std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(mix(client / 16))).to_string()
    }
}

/// Text as long as such a column's usually is; one header in two is missing.
fn text(column: &str, number: u64) -> Option<String> {
    let length = match column {
        "header_user_agent" => 110,
        "client_headers" | "header_order_signature" | "ja3" => 150,
        "header_sec_ch_ua" => 60,
        "ja4" | "header_accept" => 36,
        "ja3_hash" | "path" => 32,
        name if name.starts_with("header_") && number.is_multiple_of(2) => return None,
        _ => 12,
    };
    let mut text = format!("t{:x}", number % 1_000);
    text.extend(std::iter::repeat_n('x', length - text.len()));
    Some(text)
}
