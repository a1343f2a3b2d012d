//! Attacks that were tried by hand, each against another part of the rules: nothing is hidden, and what is not the server's is
//! flagged.

use super::forged::{GET, other};
use super::wire::{ACK, DATA, Fault, ISN, Wire};
use super::*;

/// Index of each hello, whether it is the client's own, and whether it is flagged.
pub(super) fn rows(capture: &Capture) -> Vec<(u8, bool, bool)> {
    // The first characters are those of transport and version.
    let is_own = |hello: &Hello| hello.ja4.get(3..) == JA4.get(3..);
    capture.hellos.iter().map(|hello| (hello.index, is_own(hello), hello.ambiguous)).collect()
}

fn at(capture: &mut Capture, ms: i64, packet: &[u8]) {
    capture.now += (ms - 1) * SECOND / 1000;
    capture.frame(101, packet);
}

#[test]
fn post_content_longer_than_stream() {
    let mut c = Capture::new(Limits::default());
    let head = b"POST http://b.example/ HTTP/1.1\r\nContent-Length: 900\r\n\r\n";
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, head),
        Wire::server(ISN + 1 + head.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
}

#[test]
fn prelude_then_reordered_hello() {
    let record = sample::chrome().record();
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n";
    let l = line.len() as u32;
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, line),
        Wire::client(ISN + 1 + l + 200, DATA, &record[200..]),
        Wire::server(ISN + 1 + l, ACK),
        Wire::client(ISN + 1 + l, DATA, &record[..200]),
        Wire::server(ISN + 1 + l + record.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    assert_eq!(rows(&c), [(0, true, false)]);
}

#[test]
fn two_hellos_in_one_forged_segment() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &[other(), other()].concat()),
        Wire::client(ISN + 1, DATA, &record),
        Wire::server(ISN + 1 + record.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
    assert!(!r.is_empty());
}

#[test]
fn syn_supersedes_waiting() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &other()),
        Wire::client(1 << 30, SYN, b""),
        Wire::client(ISN + 1, DATA, &record),
        Wire::server(ISN + 1 + record.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
    assert!(!r.is_empty());
}

#[test]
fn rival_begins_while_answered_hides_short_first_segment() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(1 << 30, SYN, b""),
        Wire::client((1 << 30) + 1, DATA, &other()[..3]),
        Wire::client(ISN + 1, DATA, &record[..5]),
        Wire::client(ISN + 6, DATA, &record[5..]),
        Wire::server(ISN + 1 + record.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
    assert!(!r.is_empty(), "hidden");
}

#[test]
fn rivals_overwritten() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(1 << 30, SYN, b""),
        Wire::client(ISN, SYN, b""),
        Wire::client(1 << 29, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &record[..5]),
        Wire::client(ISN + 6, DATA, &record[5..]),
        Wire::server(ISN + 1 + record.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
    assert!(!r.is_empty(), "hidden");
}

#[test]
fn pure_ack_of_a_rival_before_the_syn_ack() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::client(1 << 30, SYN, b""),
        Wire::client((1 << 30) + 1, ACK, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &record[..5]),
        Wire::client(ISN + 6, DATA, &record[5..]),
        Wire::server(ISN + 1 + record.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
    assert!(!r.is_empty(), "hidden");
}

#[test]
fn flood_of_512_pieces() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire { fault: Some(Fault::Ttl), ..Wire::client(ISN + 1, DATA, GET) },
        Wire::client(ISN + 1, DATA, &record),
    ] {
        c.frame(101, &w.packet());
    }
    for n in 0..600u32 {
        c.frame(101, &Wire { fault: Some(Fault::Ttl), ..Wire::client(ISN + 1, DATA, &n.to_be_bytes()) }.packet());
        c.now -= SECOND / 1000;
    }
    c.frame(101, &Wire::server(ISN + 1 + record.len() as u32, ACK).packet());
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
    assert!(!r.is_empty(), "hidden");
}

#[test]
fn hiding_17_pieces() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in
        [Wire::client(ISN, SYN, b""), Wire::server(ISN + 1, SYN | ACK), Wire::client(ISN + 1, DATA, b"xxxxxxxxxxx")]
    {
        c.frame(101, &w.packet());
    }
    for n in 0..20u32 {
        c.frame(101, &Wire::client(ISN + 1, DATA, &n.to_be_bytes()).packet());
    }
    c.frame(101, &Wire::client(ISN + 1, DATA, &record).packet());
    c.frame(101, &Wire::server(ISN + 1 + record.len() as u32, ACK).packet());
    c.finish();
    let r = rows(&c);
    assert!(!r.is_empty(), "hidden");
}

#[test]
fn upload_after_gro_hello_without_server() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    c.frame(101, &Wire::client(ISN, SYN, b"").packet());
    let open = |w: Wire| Wire { is_open: true, ..w }.packet();
    c.frame(101, &open(Wire::client(ISN + 1, DATA, &record)));
    let mut seq = ISN + 1 + record.len() as u32;
    for _ in 0..20 {
        c.frame(101, &open(Wire::client(seq, DATA, &sample::record(23, &[7; 15000]))));
        seq += 15005;
    }
    c.finish();
    assert_eq!(rows(&c), [(0, true, false)]);
}

#[test]
fn small_segments_after_gro_hello_without_server() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    c.frame(101, &Wire::client(ISN, SYN, b"").packet());
    let open = |w: Wire| Wire { is_open: true, ..w }.packet();
    c.frame(101, &open(Wire::client(ISN + 1, DATA, &record)));
    let mut seq = ISN + 1 + record.len() as u32;
    for _ in 0..200 {
        c.frame(101, &open(Wire::client(seq, DATA, &sample::record(23, &[7; 50]))));
        seq += 55;
    }
    c.finish();
    assert_eq!(rows(&c), [(0, true, false)]);
}

#[test]
fn second_hello_within_contest() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    c.frame(101, &Wire::client(ISN, SYN, b"").packet());
    let open = |w: Wire| Wire { is_open: true, ..w }.packet();
    c.frame(101, &open(Wire::client(ISN + 1, DATA, &record)));
    c.frame(101, &open(Wire::client(ISN + 1 + record.len() as u32, DATA, &record)));
    c.finish();
    assert_eq!(rows(&c), [(0, true, false), (1, true, false)]);
}

#[test]
fn partial_ack_then_hold() {
    let record = sample::chrome().record();
    let mut forged = record.clone();
    forged[90..110].fill(0x13);
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &record[..80]),
        Wire::server(ISN + 81, ACK),
        Wire::client(ISN + 81, DATA, &forged[80..]),
    ] {
        c.frame(101, &w.packet());
    }
    at(&mut c, 500, &Wire::client(ISN + 81, DATA, &record[80..]).packet());
    c.frame(101, &Wire::server(ISN + 1 + record.len() as u32, ACK).packet());
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
}

#[test]
fn groups_hide() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [Wire::client(ISN, SYN, b""), Wire::server(ISN + 1, SYN | ACK)] {
        c.frame(101, &w.packet());
    }
    let mut junk = vec![b'x'; record.len()];
    for ttl in [50, 51, 52, 53, 54] {
        junk[4] = ttl;
        c.frame(101, &Wire { ttl, ..Wire::client(ISN + 1, DATA, &junk) }.packet());
    }
    c.frame(101, &Wire { ttl: 60, ..Wire::client(ISN + 1, DATA, &record) }.packet());
    junk[3] = b'a';
    c.frame(101, &Wire::client(ISN + 1, DATA, &junk).packet());
    c.frame(101, &Wire::server(ISN + 1 + record.len() as u32, ACK).packet());
    c.finish();
    let r = rows(&c);
    assert!(!r.is_empty(), "hidden");
}

#[test]
fn far_hello_in_an_answered_connection() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &record),
        Wire::server(ISN + 1 + record.len() as u32, ACK),
        Wire::client(1 << 30, DATA, &other()),
        Wire::server(ISN + 1 + record.len() as u32, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
}

#[test]
fn forged_syn_and_hello_after_answered() {
    let record = sample::chrome().record();
    let end = ISN + 1 + record.len() as u32;
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &record),
        Wire::server(end, ACK),
        Wire::client(end - 1000, SYN, b""),
        Wire::server(end, ACK),
        Wire::client(end - 999, DATA, &other()),
        Wire::server(end, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
}

#[test]
fn early_fills_after_hold() {
    let record = sample::chrome().record();
    let mut forged = record.clone();
    forged[90..110].fill(0x13);
    let mut c = Capture::new(Limits::default());
    for w in [Wire::client(ISN, SYN, &forged), Wire::client(ISN + 1, DATA, &record[..80])] {
        c.frame(101, &w.packet());
    }
    at(&mut c, 500, &Wire::client(ISN + 81, DATA, &record[80..]).packet());
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
}

#[test]
fn prelude_bound() {
    let mut c = Capture::new(Limits::default());
    c.frame(101, &Wire::client(ISN, SYN, b"").packet());
    c.frame(101, &Wire::server(ISN + 1, SYN | ACK).packet());
    let req = [&b"GET http://b.example/ HTTP/1.1\r\nCookie: "[..], &[b'a'; 2000], b"\r\n\r\n"].concat();
    let mut seq = ISN + 1;
    for n in 0..20 {
        c.frame(101, &Wire::client(seq, DATA, &req).packet());
        seq += req.len() as u32;
        c.frame(101, &Wire::server(seq, ACK).packet());
        if n > 9 {
            assert!(c.counters().not_tls > 0, "{n}");
        }
    }
}

#[test]
fn the_version_in_the_middle() {
    let record = sample::chrome().record();
    let noise = |byte: u8| [&[0x16, 3, 1][..], &vec![byte; record.len() - 3]].concat();
    let mut c = Capture::new(Limits::default());
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::client(ISN + 1, DATA, &noise(1)),
        Wire::client(ISN + 1, DATA, &record),
        Wire::client(ISN + 1, DATA, &noise(2)),
    ] {
        c.frame(101, &w.packet());
    }
    c.finish();
    assert_eq!(rows(&c), [(0, true, true)]);
}
