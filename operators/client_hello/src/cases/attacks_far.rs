//! Attacks with what lies far away, and with floods: a hello that has begun is not hidden, and what is not the server's is flagged.

use super::attacks::rows;
use super::forged::{GET, other};
use super::wire::{ACK, DATA, Fault, ISN, Wire};
use super::*;

/// A connection whose server is not seen, and what comes between the halves of its hello.
fn between_halves(forged: &[Wire]) -> Capture {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    let half = Wire::client(ISN + 1, DATA, &record[..200]);
    let rest = Wire::client(ISN + 201, DATA, &record[200..]);
    let opening = [Wire::client(ISN, SYN, b""), Wire::client(ISN + 1, ACK, b""), half];
    for w in opening.iter().chain(forged).chain([&rest]) {
        c.frame(101, &w.packet());
    }
    c.finish();
    c
}

#[test]
fn data_far_from_its_window_between_the_halves() {
    let far = ISN + (1 << 24);
    for payload in [other(), other()[..100].to_vec()] {
        for seq in [far, ISN.wrapping_sub(1 << 24), ISN.wrapping_add(0x7f00_0000)] {
            assert_eq!(rows(&between_halves(&[Wire::client(seq, DATA, &payload)])), [(0, true, false)], "{seq}");
        }
    }
    for payload in [GET, &other()[100..]] {
        let forged = [Wire::client(far - 1, SYN, b""), Wire::client(far, DATA, payload)];
        let found = rows(&between_halves(&forged));
        assert!(matches!(found[..], [(0, true, true)]), "{found:?}");
    }
}

#[test]
fn data_behind_another_syn_before_the_hello() {
    let record = sample::chrome().record();
    let far = ISN + (1 << 24);
    for payload in [GET, &other()[100..]] {
        let mut c = Capture::new(Limits::default());
        for w in [
            Wire::client(ISN, SYN, b""),
            Wire::client(ISN + 1, ACK, b""),
            Wire::client(far - 1, SYN, b""),
            Wire::client(far, DATA, payload),
            Wire::client(ISN + 1, DATA, &record),
        ] {
            c.frame(101, &w.packet());
        }
        c.finish();
        assert_eq!(rows(&c), [(0, true, true)]);
    }
}

#[test]
fn far_hellos_one_behind_another() {
    let record = sample::chrome().record();
    let mut c = Capture::new(Limits::default());
    let end = ISN + 1 + record.len() as u32;
    for w in [
        Wire::client(ISN, SYN, b""),
        Wire::server(ISN + 1, SYN | ACK),
        Wire::client(ISN + 1, DATA, &record),
        Wire::server(end, ACK),
    ] {
        c.frame(101, &w.packet());
    }
    for n in 1..6 {
        c.frame(101, &Wire::client(ISN + (n << 24), DATA, &other()).packet());
    }
    c.finish();
    let found = rows(&c);
    assert!(found[0] == (0, true, false) && found[1..].iter().all(|row| row.2), "{found:?}");
}

#[test]
fn floods_of_600() {
    let record = sample::chrome().record();
    for (fault, is_certain) in [(Fault::Checksum, true), (Fault::Ttl, false), (Fault::OldClock, false)] {
        let mut c = Capture::new(Limits::default());
        c.frame(101, &Wire::client(ISN, SYN, b"").packet());
        c.frame(101, &Wire::server(ISN + 1, SYN | ACK).packet());
        for _ in 0..600 {
            c.now -= SECOND / 1000;
            c.frame(101, &Wire { fault: Some(fault), ..Wire::client(ISN + 1, DATA, &other()) }.packet());
        }
        c.frame(101, &Wire::client(ISN + 1, DATA, &record).packet());
        c.frame(101, &Wire::server(ISN + 1 + record.len() as u32, ACK).packet());
        c.finish();
        let found = rows(&c);
        assert!(found.iter().any(|row| row.1), "{fault:?} {found:?}");
        assert!(found.iter().all(|row| row.2 != is_certain), "{fault:?} {found:?}");
    }
}
