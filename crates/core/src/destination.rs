//! Which addresses the operator may connect to where a tenant names the host: public ones. It stands inside the cluster's
//! network, and would otherwise be everybody's way in: to itself, the nodes, a cloud's metadata. What is asked is the
//! address of the connection and not the name, which may stand for another one the next moment.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses with the same beginning, as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    address: IpAddr,
    bits: u32,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no range of addresses such as 10.0.0.0/8")]
pub struct NoRange(String);

impl FromStr for Range {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let refused = || NoRange(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(refused)?;
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let bits: u32 = bits.parse().map_err(|_| refused())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(refused()) } else { Ok(Self { address, bits }) }
    }
}

impl Range {
    fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(of), IpAddr::V4(address)) => {
                (of.to_bits() ^ address.to_bits()).checked_shr(32 - self.bits).unwrap_or_default() == 0
            }
            (IpAddr::V6(of), IpAddr::V6(address)) => {
                (of.to_bits() ^ address.to_bits()).checked_shr(128 - self.bits).unwrap_or_default() == 0
            }
            _ => false,
        }
    }
}

/// What the installation says of addresses.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// May be reached though they are not public.
    pub allowed: Vec<Range>,
    /// May not be reached though they look public: the cluster's own.
    pub forbidden: Vec<Range>,
}

impl Ranges {
    /// Whether a connection to this address may be made.
    pub fn admit(&self, address: IpAddr) -> bool {
        let address = plain(address);
        let in_any = |ranges: &[Range]| ranges.iter().any(|range| range.holds(address));
        in_any(&self.allowed) || !in_any(&self.forbidden) && is_public(address)
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, translated (NAT64) or tunnelled (6to4).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let joined = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        // The unspecified address and that of the host itself are no IPv4.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => joined(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            joined(high, low)
        }
        _ => address,
    }
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry> and the same of IPv6: what is not reached from anywhere.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // Shared by providers' customers, protocol assignments, benchmarks, and from 240 on reserved with broadcast.
        || a == 100 && (64..128).contains(&b)
        || (a, b, c) == (192, 0, 0)
        || a == 198 && (18..20).contains(&b)
        || a >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    // Of all there is, 2000::/3 is given out; of that, 2001::/23 for protocols and 2001:db8::/32 for books.
    let [a, b, ..] = address.segments();
    first & 0xe000 == 0x2000 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && a & 0xfff0 != 0x3ff0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(ranges: &Ranges, address: &str) -> bool {
        ranges.admit(address.parse().unwrap())
    }

    fn ranges(allowed: &[&str], forbidden: &[&str]) -> Ranges {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Ranges { allowed: all(allowed), forbidden: all(forbidden) }
    }

    #[test]
    fn only_public_addresses_are_reached() {
        let none = Ranges::default();
        for address in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(admits(&none, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "203.0.113.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "64:ff9b:1::1",
            "3fff::1",
        ] {
            assert!(!admits(&none, address), "{address}");
        }
    }

    #[test]
    fn an_installation_may_allow_more_and_forbid_more() {
        let some = ranges(&["10.1.0.0/16", "fd00::/8", "127.0.0.1/32"], &["8.8.0.0/16", "10.1.0.0/16"]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("::ffff:10.1.2.3", true),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("fd12::1", true),
            ("fc00::1", false),
            ("8.8.8.8", false),
            ("::ffff:8.8.8.8", false),
            ("8.9.0.1", true),
        ] {
            assert_eq!(admits(&some, address), expected, "{address}");
        }
        assert!(admits(&ranges(&["0.0.0.0/0"], &[]), "127.0.0.1"));
        assert!(!admits(&ranges(&[], &["::/0"]), "2606:4700::1111"));
    }

    #[test]
    fn a_range_is_an_address_and_a_number_of_bits() {
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "x/8", "10.0.0.0/-1", ""] {
            assert_eq!(text.parse::<Range>(), Err(NoRange(text.to_owned())));
        }
    }
}
