//! Addresses and networks as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::BadArgument;

/// The address that a text is; one of IPv4 within IPv6 is of IPv4.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

/// The addresses of a family whose first `bits` are those of `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    is_v4: bool,
    /// The first address as a number.
    base: u128,
    pub(crate) bits: u8,
}

impl Network {
    /// Reads `address/bits`.
    pub(crate) fn parse(text: &str) -> Result<Self, BadArgument> {
        let fault = |message: String, help: Option<String>| BadArgument { message, part: text.to_owned(), help };
        let none = || {
            fault(
                format!("`{text}` is not a network"),
                Some("a network is an address and its bits, such as 192.0.2.0/24".to_owned()),
            )
        };
        let Some((address, bits)) = text.split_once('/') else {
            let Ok(address) = text.parse::<IpAddr>() else { return Err(none()) };
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Err(fault(
                format!("`{text}` is not a network: an address needs a prefix length"),
                Some(format!("write {text}/{bits} for this address alone")),
            ));
        };
        if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(none());
        }
        let (Ok(written), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>()) else { return Err(none()) };
        let most = if written.is_ipv4() { 32 } else { 128 };
        if bits > most {
            return Err(fault(format!("`{text}` is not a network: it has 0 to {most} bits"), None));
        }
        let canonical = written.to_canonical();
        let (address, bits) = match (written, canonical) {
            (IpAddr::V6(_), IpAddr::V4(_)) if bits >= 96 => (canonical, bits - 96),
            _ => (written, bits),
        };
        let network = Self::of(address, bits).ok_or_else(none)?;
        if network.base != number(address) {
            let right = format!("{}/{bits}", network.address());
            return Err(fault(format!("`{text}` has bits behind its prefix"), Some(format!("the network is {right}"))));
        }
        Ok(network)
    }

    /// The network of an address; `None` if its family has fewer bits.
    pub(crate) fn of(address: IpAddr, bits: u8) -> Option<Self> {
        let is_v4 = address.is_ipv4();
        let zeros = (if is_v4 { 32u8 } else { 128 }).checked_sub(bits)?;
        let base = number(address);
        let base = base.checked_shr(zeros.into()).and_then(|kept| kept.checked_shl(zeros.into())).unwrap_or(0);
        Some(Self { is_v4, base, bits })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.is_v4 == address.is_ipv4() && Self::of(address, self.bits) == Some(*self)
    }

    pub(crate) fn address(&self) -> IpAddr {
        match u32::try_from(self.base) {
            Ok(base) if self.is_v4 => IpAddr::V4(Ipv4Addr::from_bits(base)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(self.base)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(51), ..ProptestConfig::default() })]

        /// An address is in its own prefix, and in another network exactly if the bits before its length are equal.
        #[test]
        fn a_network_has_the_addresses_that_begin_as_it_does(a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), same in 0u8..=128, bits in 0u8..=128) {
            let (a, b) = (u128::from_be_bytes(a), u128::from_be_bytes(b));
            // The first `same` bits are equal.
            let tail = u128::MAX.checked_shr(same.into()).unwrap_or(0);
            let other = a & !tail | b & tail;
            let (v6, other) = (IpAddr::V6(Ipv6Addr::from_bits(a)), IpAddr::V6(Ipv6Addr::from_bits(other)));
            let network = Network::of(v6, bits).expect("fits");
            prop_assert!(network.contains(v6));
            let text = format!("{}/{bits}", network.address());
            let equal = (0..u32::from(bits)).all(|bit| (number(v6) ^ number(other)) >> (127 - bit) & 1 == 0);
            prop_assert_eq!(network.contains(other), equal);
            let read = Network::parse(&text).expect("a network");
            prop_assert!(read == network || network.address().to_canonical().is_ipv4());
        }
    }
}
