//! Attacks over QUIC and DTLS that were tried by hand: nothing is hidden, and what is not the server's is flagged.

use super::attacks::rows;
use super::*;
use crate::dtls::sample::records;
use crate::quic::sample::crypto;

fn q(header: &quic::sample::Header<'_>, frames: &[u8]) -> Vec<u8> {
    sample::udp_packet(&header.around(frames))
}

/// From the server.
pub(super) fn back(payload: &[u8]) -> Vec<u8> {
    let mut p = sample::udp_packet(payload);
    let (src, dst): (Vec<u8>, Vec<u8>) = (p[12..16].to_vec(), p[16..20].to_vec());
    p[12..16].copy_from_slice(&dst);
    p[16..20].copy_from_slice(&src);
    let (a, b): (Vec<u8>, Vec<u8>) = (p[20..22].to_vec(), p[22..24].to_vec());
    p[20..22].copy_from_slice(&b);
    p[22..24].copy_from_slice(&a);
    p
}

/// It does not reach the server.
pub(super) fn ttl(mut p: Vec<u8>) -> Vec<u8> {
    p[8] = 3;
    p
}

const ID: &[u8] = b"12345678";
fn header() -> quic::sample::Header<'static> {
    quic::sample::Header { key_id: ID, dcid: ID, ..Default::default() }
}

fn other_header() -> quic::sample::Header<'static> {
    quic::sample::Header { key_id: b"87654321", dcid: b"87654321", ..Default::default() }
}

fn other_message() -> Vec<u8> {
    let mut s = sample::chrome();
    s.ciphers.truncate(9);
    let mut m = s.message();
    m[6..38].fill(0xee);
    m
}

fn server_initial() -> Vec<u8> {
    back(&[&[0xc1, 0, 0, 0, 1, 4, 1, 2, 3, 4, 8][..], b"serverid", &[0, 0x40, 100], &[7; 100]].concat())
}

fn check(packets: &[Vec<u8>]) {
    let mut c = Capture::new(Limits::default());
    for p in packets {
        c.frame(101, p);
    }
    c.finish();
    let r = rows(&c);
    assert!(r.iter().all(|(i, right, amb)| *i > 0 || *right || *amb), "{r:?}");
    assert!(r.iter().any(|(i, _, _)| *i == 0), "hidden {r:?} {:?}", c.counters());
}

#[test]
fn garbage_crypto_hides() {
    check(&[
        ttl(q(&header(), &crypto(0, b"xxxxxxxxxx"))),
        q(&header(), &crypto(0, &sample::chrome().message())),
        server_initial(),
    ]);
}

#[test]
fn same_random_other_dcid() {
    let mut s = sample::chrome();
    s.ciphers.truncate(9);
    check(&[
        ttl(q(&other_header(), &crypto(0, &s.message()))),
        q(&header(), &crypto(0, &sample::chrome().message())),
        server_initial(),
    ]);
}

#[test]
fn two_hellos_in_one() {
    let m = other_message();
    check(&[
        ttl(q(&header(), &[crypto(0, &m), crypto(m.len(), &m)].concat())),
        q(&header(), &crypto(0, &sample::chrome().message())),
        server_initial(),
    ]);
}

#[test]
fn ack_of_first_half() {
    let m = sample::chrome().message();
    let mut f = m.clone();
    f[100..120].fill(0x13);
    check(&[
        q(&header(), &crypto(0, &m[..80])),
        ttl(q(&header(), &crypto(80, &f[80..]))),
        server_initial(),
        q(&header(), &crypto(80, &m[80..])),
        server_initial(),
    ]);
}

#[test]
fn other_dcid_ack_of_first_half() {
    let m = sample::chrome().message();
    check(&[
        ttl(q(&other_header(), &crypto(0, &other_message()))),
        q(&header(), &crypto(0, &m[..80])),
        server_initial(),
        q(&header(), &crypto(80, &m[80..])),
        server_initial(),
    ]);
}

#[test]
fn four_attempts_hide() {
    let m = sample::chrome().message();
    let mut p = vec![q(&header(), &crypto(0, &m[..80]))];
    for n in 0..4u8 {
        let id = [n; 8];
        p.push(ttl(q(&quic::sample::Header { key_id: &id, dcid: &id, ..Default::default() }, &crypto(0, &m[..80]))));
    }
    p.push(q(&header(), &crypto(80, &m[80..])));
    p.push(server_initial());
    check(&p);
}

#[test]
fn frames_flood() {
    let m = sample::chrome().message();
    let mut p = vec![q(&header(), &crypto(0, &m[..80]))];
    for n in 0..4u8 {
        let fr: Vec<u8> = (0..200).flat_map(|_| crypto(0, &[n])).collect();
        p.push(ttl(q(&header(), &fr)));
    }
    p.push(q(&header(), &crypto(80, &m[80..])));
    p.push(q(&header(), &crypto(0, &m)));
    p.push(server_initial());
    check(&p);
}

#[test]
fn forged_new_connection_after_the_answer() {
    let m = sample::chrome().message();
    check(&[
        q(&header(), &crypto(0, &m)),
        server_initial(),
        ttl(q(&other_header(), &crypto(0, &other_message()))),
        server_initial(),
    ]);
}

#[test]
fn broken_hello_hides() {
    let m = sample::chrome().message();
    let mut f = m.clone();
    f[38] = 255;
    check(&[ttl(q(&header(), &crypto(0, &f))), q(&header(), &crypto(0, &m)), server_initial()]);
}

#[test]
fn too_long_hides() {
    let m = sample::chrome().message();
    check(&[
        ttl(q(&header(), &crypto(0, &[1, 0xff, 0xff, 0xff, 3, 3]))),
        q(&header(), &crypto(0, &m)),
        server_initial(),
    ]);
}

fn d(records: &[Vec<u8>]) -> Vec<u8> {
    sample::udp_packet(&records.concat())
}

fn dtls_other() -> Vec<u8> {
    let mut s = sample::chrome();
    s.ciphers.truncate(9);
    let mut b = s.dtls_body(b"");
    b[2..34].fill(0xee);
    b
}

/// The server's HelloVerifyRequest.
pub(super) fn verify_request() -> Vec<u8> {
    back(&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 3, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0xfe, 0xff, 0])
}

#[test]
fn message_1_after_forged() {
    let b = sample::chrome().dtls_body(b"");
    check(&[
        ttl(d(&records(&dtls_other(), 0, 4000))),
        ttl(d(&records(&dtls_other(), 1, 4000))),
        d(&records(&b, 0, 4000)),
        verify_request(),
    ]);
}

#[test]
fn partials_evicted() {
    let b = sample::chrome().dtls_body(b"");
    let r = records(&b, 0, 300);
    let mut p = vec![d(&r[..1])];
    for n in 1..6 {
        let mut o = b.clone();
        o.resize(o.len() + n, 0);
        p.push(ttl(d(&records(&o, 0, 300)[..1])));
    }
    p.push(d(&r[1..]));
    p.push(verify_request());
    check(&p);
}

#[test]
fn new_connection_after_answer() {
    let b = sample::chrome().dtls_body(b"");
    check(&[d(&records(&b, 0, 4000)), verify_request(), ttl(d(&records(&dtls_other(), 0, 4000))), verify_request()]);
}
