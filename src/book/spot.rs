//! What a book hands out: addresses, or ports of a host; and which of them may be given at all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One thing that one owner at a time can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    /// An address.
    Address(IpAddr),
    /// A port of a host, where nodes share their hosts' network.
    Port(String, u16),
}

impl Spot {
    /// The address, where it is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Port(..) => None,
        }
    }

    /// A text whose order is that of addresses and of ports: `4/0a580a01`, `6/…`, `p/lab1/08080`.
    pub fn key(&self) -> String {
        match self {
            Self::Address(IpAddr::V4(address)) => format!("4/{:08x}", u32::from(*address)),
            Self::Address(IpAddr::V6(address)) => format!("6/{:032x}", u128::from(*address)),
            Self::Port(host, port) => format!("p/{host}/{port:05}"),
        }
    }

    /// The spot of a [`Spot::key`].
    pub fn of_key(key: &str) -> Option<Self> {
        let (kind, rest) = key.split_once('/')?;
        Some(match kind {
            "4" => Self::Address(Ipv4Addr::from(u32::from_str_radix(rest, 16).ok()?).into()),
            "6" => Self::Address(Ipv6Addr::from(u128::from_str_radix(rest, 16).ok()?).into()),
            "p" => {
                let (host, port) = rest.rsplit_once('/')?;
                Self::Port(host.to_owned(), port.parse().ok()?)
            }
            _ => return None,
        })
    }
}

/// `10.88.10.1`, `fd00::1`, `lab1:8080`, `[fd00::1]:8080`.
impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Port(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Port(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Spot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let port = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let port = port.parse().ok().filter(|port| *port > 0)?;
            (!host.is_empty() && !host.contains('/')).then(|| Self::Port(host.to_owned(), port))
        });
        port.ok_or_else(|| format!("`{text}` is neither an address nor `HOST:PORT`"))
    }
}

impl Serialize for Spot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Spot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Spots that may be given, in order: pieces from the first to the last, both included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    pieces: Vec<Piece>,
}

/// A run of spots of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    kind: Kind,
    first: u128,
    last: u128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
    Port(String),
}

impl Kind {
    fn spot(&self, number: u128) -> Option<Spot> {
        Some(match self {
            Self::V4 => Spot::Address(Ipv4Addr::from(u32::try_from(number).ok()?).into()),
            Self::V6 => Spot::Address(Ipv6Addr::from(number).into()),
            Self::Port(host) => Spot::Port(host.clone(), u16::try_from(number).ok()?),
        })
    }
}

fn number(address: IpAddr) -> (Kind, u128) {
    match address {
        IpAddr::V4(address) => (Kind::V4, u128::from(u32::from(address))),
        IpAddr::V6(address) => (Kind::V6, u128::from(address)),
    }
}

impl Candidates {
    /// The addresses from the first to the last; none when they are of two families or the wrong way around.
    pub fn addresses(first: IpAddr, last: IpAddr) -> Self {
        let ((kind, first), (other, last)) = (number(first), number(last));
        let pieces = if kind == other && first <= last { vec![Piece { kind, first, last }] } else { Vec::new() };
        Self { pieces }
    }

    /// The ports of a host from the first to the last.
    pub fn ports(host: &str, first: u16, last: u16) -> Self {
        let piece = Piece { kind: Kind::Port(host.to_owned()), first: first.into(), last: last.into() };
        Self { pieces: if first <= last { vec![piece] } else { Vec::new() } }
    }

    /// Without the addresses from the first to the last.
    #[must_use]
    pub fn without(self, first: IpAddr, last: IpAddr) -> Self {
        let ((kind, first), (other, last)) = (number(first), number(last));
        if kind != other || first > last {
            return self;
        }
        let mut pieces = Vec::new();
        for piece in self.pieces {
            if piece.kind != kind || piece.last < first || last < piece.first {
                pieces.push(piece);
                continue;
            }
            if piece.first < first {
                pieces.push(Piece { last: first - 1, ..piece.clone() });
            }
            if last < piece.last {
                pieces.push(Piece { first: last + 1, ..piece });
            }
        }
        Self { pieces }
    }

    /// How many there are; at most `u128::MAX`.
    pub fn len(&self) -> u128 {
        let len = |piece: &Piece| (piece.last - piece.first).saturating_add(1);
        self.pieces.iter().map(len).fold(0, u128::saturating_add)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether a spot is among them.
    pub fn contains(&self, spot: &Spot) -> bool {
        let (kind, at) = match spot {
            Spot::Address(address) => number(*address),
            Spot::Port(host, port) => (Kind::Port(host.clone()), u128::from(*port)),
        };
        self.pieces.iter().any(|piece| piece.kind == kind && piece.first <= at && at <= piece.last)
    }

    /// All of them once, beginning with the one at `start` (from 0, wrapping), then onwards, then from the first.
    pub fn from(&self, start: u128) -> impl Iterator<Item = Spot> + '_ {
        let total = self.len();
        let mut skip = if total == 0 { 0 } else { start % total };
        let mut at = 0;
        for piece in &self.pieces {
            let len = (piece.last - piece.first).saturating_add(1);
            if skip < len {
                break;
            }
            skip -= len;
            at += 1;
        }
        let (before, after) = self.pieces.split_at(at.min(self.pieces.len()));
        let whole = |piece: &Piece| (piece.kind.clone(), piece.first, piece.last);
        let mut turns: Vec<(Kind, u128, u128)> = Vec::new();
        let mut rest = None;
        if let Some((piece, later)) = after.split_first() {
            turns.push((piece.kind.clone(), piece.first + skip, piece.last));
            turns.extend(later.iter().map(whole));
            rest = (skip > 0).then(|| (piece.kind.clone(), piece.first, piece.first + skip - 1));
        }
        turns.extend(before.iter().map(whole));
        turns.extend(rest);
        turns.into_iter().flat_map(|(kind, first, last)| (first..=last).filter_map(move |at| kind.spot(at)))
    }

    /// The first and the last of the piece that a spot stands in: what is worth reading at once.
    pub(super) fn piece_end(&self, spot: &Spot) -> Option<Spot> {
        let Spot::Address(address) = spot else {
            return self.pieces.first().and_then(|piece| piece.kind.spot(piece.last));
        };
        let (kind, at) = number(*address);
        let piece = self.pieces.iter().find(|piece| piece.kind == kind && piece.first <= at && at <= piece.last)?;
        piece.kind.spot(piece.last)
    }
}

/// What a `network` block says of addresses: which may be given, and why others may not.
#[derive(Clone, Debug, Default)]
pub struct Lan {
    /// The network's name.
    pub name: String,
    /// Its addresses.
    pub subnet: Option<IpNet>,
    /// The router.
    pub gateway: Option<IpAddr>,
    /// The addresses that nodes may have, from the first to the last.
    pub pool: Option<(IpAddr, IpAddr)>,
    /// What is never given, from the first to the last each.
    pub exclude: Vec<(IpAddr, IpAddr)>,
}

impl Lan {
    /// The addresses of the pool that may be given; none without a pool.
    pub fn candidates(&self) -> Candidates {
        let Some((first, last)) = self.pool else { return Candidates::default() };
        let mut found = Candidates::addresses(first, last);
        if let Some((network, broadcast)) = self.edges() {
            found = found.without(network, network);
            if let Some(broadcast) = broadcast {
                found = found.without(broadcast, broadcast);
            }
        }
        if let Some(gateway) = self.gateway {
            found = found.without(gateway, gateway);
        }
        self.exclude.iter().fold(found, |found, (first, last)| found.without(*first, *last))
    }

    /// The network's own address and, in IPv4, the broadcast address. RFC 3021: a /31 has neither.
    fn edges(&self) -> Option<(IpAddr, Option<IpAddr>)> {
        let subnet = self.subnet.filter(|subnet| subnet.max_prefix_len() - subnet.prefix_len() > 1)?;
        let broadcast = Some(subnet.broadcast()).filter(IpAddr::is_ipv4);
        Some((subnet.network(), broadcast))
    }

    /// Why an address cannot be a node's: a text to follow "it ".
    pub fn objection(&self, address: IpAddr) -> Option<String> {
        if let Some(subnet) = self.subnet
            && !subnet.contains(&address)
        {
            return Some(format!("is not in {subnet}"));
        }
        if let (Some((network, broadcast)), Some(subnet)) = (self.edges(), self.subnet) {
            if address == network {
                return Some(format!("is the address of the network {subnet} itself"));
            }
            if broadcast == Some(address) {
                return Some(format!("is the broadcast address of {subnet}"));
            }
        }
        if self.gateway == Some(address) {
            return Some(format!("is the gateway of `{}`", self.name));
        }
        let excluded = self.exclude.iter().any(|(first, last)| *first <= address && address <= *last);
        excluded.then(|| format!("is excluded by `{}`", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidates, Lan, Spot};

    fn texts(found: impl Iterator<Item = Spot>) -> Vec<String> {
        found.map(|spot| spot.to_string()).collect()
    }

    fn ip(text: &str) -> std::net::IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn candidates_begin_anywhere_and_wrap() {
        let all = Candidates::addresses(ip("10.0.0.8"), ip("10.0.0.15")).without(ip("10.0.0.10"), ip("10.0.0.13"));
        assert_eq!(all.len(), 4);
        assert_eq!(texts(all.from(0)), ["10.0.0.8", "10.0.0.9", "10.0.0.14", "10.0.0.15"]);
        assert_eq!(texts(all.from(1)), ["10.0.0.9", "10.0.0.14", "10.0.0.15", "10.0.0.8"]);
        assert_eq!(texts(all.from(7)), ["10.0.0.15", "10.0.0.8", "10.0.0.9", "10.0.0.14"]);
        assert_eq!(texts(Candidates::default().from(3)), Vec::<String>::new());
        assert_eq!(texts(Candidates::ports("lab1", 80, 82).from(2)), ["lab1:82", "lab1:80", "lab1:81"]);
        // A pool larger than any loop: only what is asked for is made.
        let huge = Candidates::addresses(ip("fd00::"), ip("fd00::ffff:ffff:ffff:ffff"));
        let huge = huge.without(ip("fd00::"), ip("fd00::7fff:ffff:ffff:ffff"));
        assert_eq!(texts(huge.from(1).take(2)), ["fd00::8000:0:0:1", "fd00::8000:0:0:2"]);
        let everything = Candidates::addresses(ip("::"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(texts(everything.from(u128::MAX).take(1)).len(), 1);
    }

    #[test]
    fn what_may_not_be_given_is_no_candidate() {
        let lan = |subnet: &str, first: &str, last: &str, gateway: Option<&str>| Lan {
            name: "lan".to_owned(),
            subnet: Some(subnet.parse().unwrap()),
            gateway: gateway.map(ip),
            pool: Some((ip(first), ip(last))),
            exclude: Vec::new(),
        };
        let all = |lan: &Lan| {
            let found = lan.candidates();
            for spot in found.from(0) {
                assert_eq!(lan.objection(spot.address().unwrap()), None);
            }
            texts(found.from(0))
        };
        assert_eq!(all(&lan("10.0.0.0/30", "10.0.0.0", "10.0.0.3", None)), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(all(&lan("10.0.0.0/31", "10.0.0.0", "10.0.0.1", None)), ["10.0.0.0", "10.0.0.1"]);
        assert_eq!(all(&lan("10.0.0.0/31", "10.0.0.0", "10.0.0.1", Some("10.0.0.0"))), ["10.0.0.1"]);
        assert_eq!(all(&lan("10.0.0.7/32", "10.0.0.7", "10.0.0.7", None)), ["10.0.0.7"]);
        assert_eq!(all(&lan("fd00::/126", "fd00::", "fd00::3", None)), ["fd00::1", "fd00::2", "fd00::3"]);
        assert_eq!(all(&lan("fd00::/127", "fd00::", "fd00::1", None)), ["fd00::", "fd00::1"]);
        assert_eq!(all(&lan("fd00::9/128", "fd00::9", "fd00::9", None)), ["fd00::9"]);
    }

    #[test]
    fn keys_are_in_the_order_of_spots() {
        let mut spots: Vec<Spot> =
            ["10.0.0.9", "10.0.0.10", "9.255.0.1", "fd00::1", "fd00::a", "lab1:80", "lab1:8080", "[fd00::1]:80"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        for spot in &spots {
            assert_eq!(Spot::of_key(&spot.key()).as_ref(), Some(spot));
            assert_eq!(spot.to_string().parse::<Spot>().as_ref(), Ok(spot));
        }
        let mut by_key = spots.clone();
        by_key.sort_by_key(Spot::key);
        spots.sort();
        assert_eq!(spots, by_key);
        for wrong in ["", "lab1", "lab1:0", "lab1:99999", ":80", "a/b:80"] {
            assert!(wrong.parse::<Spot>().is_err(), "{wrong}");
        }
    }
}
