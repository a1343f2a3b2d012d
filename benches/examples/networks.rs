//! How long does a file of networks take to load, how much memory does it take, and what does an address cost to look up?
//!
//!     networks [FILE…]
//!
//! Without a file: 500,000 ranges and as many networks, made here, with 80,000 systems.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use benches::process::resident;
use operators::enrich::asn::Table;

/// Ranges of a file that is made here.
const RANGES: u32 = 500_000;

/// Addresses that are looked up.
const LOOK_UPS: usize = 2_000_000;

fn main() -> Result<(), String> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    for file in &files {
        let content = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        measure(file, &content)?;
    }
    if files.is_empty() {
        measure("ranges", made(|first, last, asn| format!("{first},{last},{asn},Organisation {asn}\n")).as_bytes())?;
        let header = "network,asn,country_code,name,org,domain\n".to_owned();
        let networks = made(|first, _, asn| format!("{first}/23,{asn},FR,AS-{asn},Organisation {asn},as{asn}.test\n"));
        measure("networks", (header + &networks).as_bytes())?;
    }
    Ok(())
}

/// A row for each of the ranges, which are of 512 addresses, with gaps.
fn made(row: impl Fn(Ipv4Addr, Ipv4Addr, u32) -> String) -> String {
    (0..RANGES).fold(String::new(), |mut rows, nth| {
        let first = (nth << 13) & !511;
        let _ = rows.write_str(&row(first.into(), (first | 511).into(), nth.wrapping_mul(2_654_435_761) % 80_000));
        rows
    })
}

fn measure(name: &str, content: &[u8]) -> Result<(), String> {
    let before = resident();
    let begin = Instant::now();
    let table = Table::parse(content).map_err(|why| format!("{name}:{why}"))?;
    let (loaded, after) = (begin.elapsed(), resident());
    let of_v4: Vec<IpAddr> = randoms().map(|number| IpAddr::V4(Ipv4Addr::from(number as u32))).collect();
    // Within 2a00::/12, where many networks of IPv6 are.
    let of_v6: Vec<IpAddr> =
        randoms().map(|number| IpAddr::V6(Ipv6Addr::from((0x2a0 << 116) | (number >> 12)))).collect();
    println!(
        "{name}: {} networks, {} bytes; loaded in {:.2} s; {} MB resident before, {} MB after",
        table.networks(),
        content.len(),
        loaded.as_secs_f64(),
        before,
        after
    );
    for (version, addresses) in [("IPv4", of_v4), ("IPv6", of_v6)] {
        let begin = Instant::now();
        let found = addresses.iter().filter(|address| black_box(table.get(**address)).is_some()).count();
        let each = begin.elapsed().as_nanos() as f64 / addresses.len() as f64;
        println!("  {version}: {each:.0} ns a look-up, {:.0} % found", 100.0 * found as f64 / addresses.len() as f64);
    }
    Ok(())
}

/// Numbers in an order that no cache knows (SplitMix64), the same in each run.
fn randoms() -> impl Iterator<Item = u128> {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..LOOK_UPS).map(move |_| (u128::from(next()) << 64) | u128::from(next()))
}
