//! What goes first, and what a connection takes.

use super::*;
use crate::flow::Stage;
use crate::quic;

#[test]
fn a_flood_of_syns_takes_half_of_the_table() {
    let syn = crate::sample::syn();
    let mut table = FlowTable::new();
    for n in 0..10 {
        let mut flow = Flow::new(0, n, Stage::First);
        flow.syn = (n < 6).then_some(syn);
        flow.stage = if n == 9 { Stage::Done } else { Stage::First };
        table.insert(key(n as u16), flow, 0);
    }
    assert_eq!(drain(&mut table), [0, 1, 9, 2, 3, 4, 5, 6, 7, 8]);
}

fn key(n: u16) -> FlowKey {
    FlowKey { src: 1, dst: 2, src_port: n, dst_port: 443, udp: false }
}

fn drain(table: &mut FlowTable) -> Vec<u32> {
    std::iter::from_fn(|| table.oldest().and_then(|at| taken(table, at))).collect()
}

/// Removes a flow; its start.
fn taken(table: &mut FlowTable, at: Index) -> Option<u32> {
    let start = table.get(at).map(|flow| flow.start);
    table.remove(at);
    start
}

#[test]
fn finished_flows_go_first_then_the_oldest() {
    let mut table = FlowTable::new();
    let at: Vec<Index> = (0..5).map(|n| table.insert(key(n), Flow::new(0, n.into(), Stage::First), 0)).collect();
    table.touch(at[0], 1);
    for n in [3, 1] {
        table.get_mut(at[n]).expect("a flow").stage = Stage::Done;
        table.touch(at[n], 2);
    }
    assert_eq!(drain(&mut table), [3, 1, 2, 4, 0]);
    assert_eq!(table.len(), 0);
}

#[test]
fn whoever_holds_bytes_goes_first_when_the_buffers_are_full() {
    let mut table = FlowTable::new();
    let at: Vec<Index> = (0..6).map(|n| table.insert(key(n), Flow::new(0, n.into(), Stage::First), 0)).collect();
    for n in [5, 4, 3, 2] {
        let flow = table.get_mut(at[n]).expect("a flow");
        flow.assembly = Some(Box::default());
        flow.stage = if n < 4 { Stage::Second } else { Stage::First };
        table.touch(at[n], 1);
    }
    let holders = std::iter::from_fn(|| table.oldest_holder().and_then(|at| taken(&mut table, at)));
    assert_eq!(holders.collect::<Vec<_>>(), [3, 2, 5, 4]);
    assert_eq!(drain(&mut table), [0, 1], "the order by age is that of all");
}

#[test]
fn slots_are_used_again_and_keys_are_found() {
    let mut table = FlowTable::new();
    for round in 0..3 {
        for n in 0..1000 {
            table.insert(key(n), Flow::new(0, round * 1000 + u32::from(n), Stage::First), 0);
        }
        let at = table.find(&key(500)).expect("a flow");
        assert_eq!(table.get(at).map(|flow| flow.start), Some(round * 1000 + 500));
        assert_eq!(drain(&mut table).len(), 1000);
        assert_eq!(table.find(&key(500)), None);
    }
    assert_eq!(table.slots.len(), 1000);
}

#[test]
fn a_flow_without_data_is_small() {
    assert!(size_of::<Option<Slot>>() <= 256, "{}", size_of::<Option<Slot>>());
    // What 100,000 connections take whose hello is out, QUIC included: as docs/sensor.md says.
    let quic = size_of::<quic::Connection>() + 16;
    assert!(100_000 * (size_of::<Option<Slot>>() + quic) <= 48 << 20, "{quic}");
}
