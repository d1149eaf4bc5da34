//! ARP on one link: asking who has an address, hearing who else wants it, and telling who has it now.
//!
//! A packet socket belongs for ever to the namespace of the thread that opened it. So a thread that has entered a container's
//! namespace opens it and ends, and nothing else of fanli is ever there. RFC 5227 is the source of the frames and the rules.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};
use rustix::time::Timespec;

use tokio::sync::oneshot;

use super::netlink::Mac;
use super::netns::{Namespace, within};
use super::waiting::waiting;
use super::{Actuator, Probe};
use crate::failure::{Context as _, Failure};

/// `ETH_P_ARP` and `ETH_P_IPV6` (`linux/if_ether.h`).
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// How often an address is announced: at once, and again after these pauses, as a switch or a neighbour may miss one frame.
/// RFC 5227 has them 2 s apart; these end within 100 ms, because until then a socket is open in the container.
const MORE_ANNOUNCEMENTS: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(70)];

/// How long a look by hand listens.
const LOOK: Duration = Duration::from_millis(250);

/// How patiently an address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// How many probes.
    pub probes: u32,
    /// The longest random wait before the first.
    pub before: Duration,
    /// The pause between two: at random between these.
    pub between: (Duration, Duration),
    /// How long to listen after the last.
    pub after: Duration,
}

impl Asking {
    /// 0.3 to 0.52 s in all. A machine on the same wire answers within a millisecond; three probes are for frames that get lost.
    pub const QUICK: Self = Self {
        probes: 3,
        before: Duration::from_millis(20),
        between: (Duration::from_millis(100), Duration::from_millis(200)),
        after: Duration::from_millis(100),
    };
    /// The timers of RFC 5227, section 1.1: 4 to 7 s in all.
    pub const STRICT: Self = Self {
        probes: 3,
        before: Duration::from_secs(1),
        between: (Duration::from_secs(1), Duration::from_secs(2)),
        after: Duration::from_secs(2),
    };
    /// One question, and an answer within 2 ms: for an address that this host has a right to, where every millisecond counts.
    pub const GLANCE: Self = Self {
        probes: 1,
        before: Duration::ZERO,
        between: (Duration::ZERO, Duration::ZERO),
        after: Duration::from_millis(2),
    };
}

/// What was heard about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: nobody who is awake and reachable has it.
    Silence,
    /// Somebody speaks as its owner.
    Owner(Mac),
    /// Somebody else asks for it, to take it.
    Rival(Mac),
}

/// A random time up to `most`.
pub fn at_random(most: Duration) -> Duration {
    // The standard library's own keys are random, and different on each call.
    let random = RandomState::new().build_hasher().finish() % 1000;
    most.saturating_mul(u32::try_from(random).unwrap_or(0)) / 1000
}

impl Probe {
    /// Asks on a link who has `address`, as a stranger: the sender of an ARP probe is 0.0.0.0, so no table changes anywhere
    /// (RFC 5227, section 2.1.1). `own` is the MAC of that link. Comes back at the first word about the address.
    ///
    /// `likely`, the MAC that a copy of ours would have, is asked directly too: a macvlan hands broadcasts to a work queue
    /// (`macvlan_broadcast_enqueue` in the kernel), which on a busy host comes to them after milliseconds, and its own frames at once.
    ///
    /// # Errors
    /// The link is down or gone, or packet sockets are refused (they need root).
    pub async fn ask_arp(
        &self,
        inside: Option<&Namespace>,
        (link, own): (u32, Mac),
        address: Ipv4Addr,
        likely: Option<Mac>,
        asking: &Asking,
    ) -> Result<Heard, Failure> {
        let asking = *asking;
        listening(inside, link, address, move |socket| ask(socket, (link, own), address, likely, asking)).await
    }

    /// Asks once, and gives the MAC of every reply within a quarter of a second: more than one is more than one owner, be they
    /// two with the same MAC.
    ///
    /// # Errors
    /// As [`Probe::ask_arp`].
    pub async fn who_has(
        &self,
        inside: Option<&Namespace>,
        (link, own): (u32, Mac),
        address: Ipv4Addr,
    ) -> Result<Vec<Mac>, Failure> {
        listening(inside, link, address, move |socket| {
            let frame = arp_request(own, Ipv4Addr::UNSPECIFIED, address);
            sendto(socket, &frame, SendFlags::empty(), &LinkAddress::of(link, ARP, [0xff; 6]))?;
            let (mut replies, until) = (Vec::new(), Instant::now() + LOOK);
            while let Some(frame) = next(socket, until)? {
                if let (Heard::Owner(mac), Some([0, 2])) = (meaning(&frame, own, address), frame.get(20..22)) {
                    replies.push(mac);
                }
            }
            Ok(replies)
        })
        .await
    }
}

/// Does something with a socket that hears ARP on a link, on a thread for work that blocks: it ends by itself within its own time,
/// whatever becomes of the step.
async fn listening<T: Send + 'static>(
    inside: Option<&Namespace>,
    link: u32,
    address: Ipv4Addr,
    work: impl FnOnce(&OwnedFd) -> Result<T, Errno> + Send + 'static,
) -> Result<T, Failure> {
    let what = || format!("cannot ask the network for {address}");
    let socket = within(inside, || open(Some((link, ARP))))?.with_context(what)?;
    let (tell, told) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _ = tell.send(work(&socket));
        // The kernel takes 10 to 25 ms to close a packet socket (it waits until no processor can still use it), and nobody
        // else has to wait for that.
        drop(socket);
    });
    waiting(&what(), told).await.with_context(what)?.with_context(what)
}

fn ask(
    socket: &OwnedFd,
    (link, own): (u32, Mac),
    address: Ipv4Addr,
    likely: Option<Mac>,
    asking: Asking,
) -> Result<Heard, Errno> {
    let frame = arp_request(own, Ipv4Addr::UNSPECIFIED, address);
    let everybody = LinkAddress::of(link, ARP, [0xff; 6]);
    let directly = likely.filter(|mac| *mac != own).map(|mac| {
        let mut frame = frame.clone();
        frame.iter_mut().zip(mac.0).for_each(|(place, byte)| *place = byte);
        (LinkAddress::of(link, ARP, mac.0), frame)
    });
    let mut pause = at_random(asking.before);
    for turn in 0..=asking.probes {
        let until = Instant::now() + pause;
        while let Some(frame) = next(socket, until)? {
            let heard = meaning(&frame, own, address);
            if heard != Heard::Silence {
                return Ok(heard);
            }
        }
        if turn < asking.probes {
            for (to, frame) in directly.iter().map(|(to, frame)| (to, frame)).chain([(&everybody, &frame)]) {
                sendto(socket, frame, SendFlags::empty(), to)?;
            }
        }
        let (least, most) = asking.between;
        let between = least + at_random(most.saturating_sub(least));
        pause = if turn + 1 < asking.probes { between } else { asking.after };
    }
    Ok(Heard::Silence)
}

/// The next frame, unless `until` comes first.
fn next(socket: &OwnedFd, until: Instant) -> Result<Option<Vec<u8>>, Errno> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        let mut frame = vec![0_u8; 128];
        match recv(socket, &mut frame, RecvFlags::DONTWAIT) {
            Ok((_, length)) => {
                frame.truncate(length);
                return Ok(Some(frame));
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a frame says of an address (RFC 5227, section 2.1.1): any sender with it is its owner, a probe for it of somebody else is
/// a rival's.
fn meaning(frame: &[u8], own: Mac, address: Ipv4Addr) -> Heard {
    let part = |from: usize, length: usize| frame.get(from..from + length);
    // Ethernet's type, then hardware, protocol and their lengths.
    if part(12, 8) != Some(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4]) {
        return Heard::Silence;
    }
    let mac = part(22, 6).and_then(|bytes| bytes.try_into().ok()).map(Mac);
    let (Some(mac), Some(sender), Some(target)) = (mac, part(28, 4), part(38, 4)) else { return Heard::Silence };
    let request = part(20, 2) == Some(&[0, 1]);
    let address = address.octets();
    if mac == own {
        Heard::Silence
    } else if sender == address {
        Heard::Owner(mac)
    } else if request && sender == [0; 4] && target == address {
        Heard::Rival(mac)
    } else {
        Heard::Silence
    }
}

impl Actuator {
    /// Tells the neighbours of an interface, inside a namespace or of this host, who has its addresses now: ARP announcements (RFC 5227, section
    /// 2.3), unsolicited neighbour advertisements for IPv6 (RFC 4861, section 7.2.6). Without them they may ask the old MAC for
    /// as long as their tables keep it. The first is sent before this returns; the others go out in the background, and the
    /// run does not end before them.
    ///
    /// # Errors
    /// The first could not be sent: no reason to fail a step (moby#49593).
    pub fn announce(
        &self,
        inside: Option<&Namespace>,
        link: u32,
        mac: Mac,
        addresses: &[IpAddr],
    ) -> Result<(), Failure> {
        let frames: Vec<_> = addresses.iter().map(|address| announcement(link, mac, *address)).collect();
        let what =
            || format!("cannot announce {}", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        // No protocol: this socket hears nothing.
        let socket =
            inside.map_or_else(|| Ok(open(None)), |inside| inside.within(|| open(None)))?.with_context(what)?;
        let send = move || -> Result<(), Errno> {
            for (to, frame) in &frames {
                sendto(&socket, frame, SendFlags::empty(), to)?;
            }
            Ok(())
        };
        send().with_context(what)?;
        self.background.start(move || {
            for pause in MORE_ANNOUNCEMENTS {
                std::thread::sleep(pause);
                // The container may be gone by now.
                let _ = send();
            }
        });
        Ok(())
    }
}

/// A packet socket; with a link and a protocol it hears those frames there, from now on.
fn open(hears: Option<(u32, u16)>) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    if let Some((link, protocol)) = hears {
        bind(&socket, &LinkAddress::of(link, protocol, [0; 6]))?;
    }
    Ok(socket)
}

/// An ARP request, padded to Ethernet's least length.
fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let fields: [&[u8]; 9] = [
        &[0xff; 6],
        &mac.0,
        &ARP.to_be_bytes(),
        &[0, 1, 0x08, 0, 6, 4, 0, 1],
        &mac.0,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
        &[0; 18],
    ];
    fields.concat()
}

fn announcement(link: u32, mac: Mac, address: IpAddr) -> (LinkAddress, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (LinkAddress::of(link, ARP, [0xff; 6]), arp_request(mac, address, address)),
        IpAddr::V6(address) => {
            let all_nodes = [0x33, 0x33, 0, 0, 0, 1];
            (LinkAddress::of(link, IPV6, all_nodes), advertisement(mac, address, all_nodes))
        }
    }
}

/// An unsolicited neighbour advertisement to all nodes, with the override flag.
fn advertisement(mac: Mac, address: Ipv6Addr, to: [u8; 6]) -> Vec<u8> {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let mut body = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &address.octets(), &[2, 1], &mac.0].concat();
    let length = [0, 32];
    let pseudo = [&address.octets()[..], &all, &[0, 0], &length, &[0, 0, 0, 58], &body].concat();
    let sum =
        pseudo.chunks(2).fold(0_u32, |sum, pair| sum + pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0);
    for (place, byte) in body.iter_mut().skip(2).zip(check.to_be_bytes()) {
        *place = byte;
    }
    let head = [0x60, 0, 0, 0, 0, 32, 58, 255];
    [&to[..], &mac.0, &IPV6.to_be_bytes(), &head, &address.octets(), &all, &body].concat()
}

/// `sockaddr_ll` (packet(7)): which interface a frame leaves by or comes from.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    index: u32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

impl LinkAddress {
    fn of(index: u32, protocol: u16, to: [u8; 6]) -> Self {
        let mut address = [0; 8];
        address.iter_mut().zip(to).for_each(|(place, byte)| *place = byte);
        Self {
            family: AddressFamily::PACKET.as_raw(),
            protocol: protocol.to_be(),
            index,
            hardware: 0,
            packet: 0,
            length: 6,
            address,
        }
    }
}

// SAFETY: the struct has the layout of `sockaddr_ll` and lives until the closure returns; the length is its own size.
#[expect(unsafe_code, reason = "rustix knows no packet addresses")]
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let size = SocketAddrLen::try_from(size_of::<Self>()).unwrap_or(0);
        f(std::ptr::from_ref(self).cast(), size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 1, 10, 77, 0, 2]);
    const OTHER: Mac = Mac([2, 9, 9, 9, 9, 9]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    #[test]
    fn an_announcement_is_an_arp_request_for_the_own_address() {
        let (_, frame) = announcement(1, MAC, ADDRESS.into());
        assert_eq!(&frame[..14], &[255, 255, 255, 255, 255, 255, 2, 1, 10, 77, 0, 2, 8, 6]);
        assert_eq!(&frame[14..22], &[0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(&frame[22..42], &[2, 1, 10, 77, 0, 2, 10, 77, 0, 2, 0, 0, 0, 0, 0, 0, 10, 77, 0, 2]);
        assert_eq!((frame.len(), size_of::<LinkAddress>()), (60, 20));
    }

    #[test]
    fn an_advertisement_has_a_right_checksum() {
        let address: Ipv6Addr = "fd00::2".parse().unwrap();
        let frame = advertisement(MAC, address, [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!((frame[20], frame[21], frame[54]), (58, 255, 136));
        // The sum over pseudo header and message, checksum included, is all ones.
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], &frame[54..]].concat();
        let mut sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }

    #[test]
    fn what_a_frame_says() {
        let probe = arp_request(OTHER, Ipv4Addr::UNSPECIFIED, ADDRESS);
        assert_eq!(meaning(&probe, MAC, ADDRESS), Heard::Rival(OTHER));
        assert_eq!(meaning(&probe, OTHER, ADDRESS), Heard::Silence, "our own probe");
        assert_eq!(meaning(&probe, MAC, Ipv4Addr::new(10, 77, 0, 3)), Heard::Silence);
        let (_, owner) = announcement(1, OTHER, ADDRESS.into());
        assert_eq!(meaning(&owner, MAC, ADDRESS), Heard::Owner(OTHER));
        // Who asks for it to speak with it says nothing of whose it is.
        let asked = arp_request(OTHER, Ipv4Addr::new(10, 77, 0, 9), ADDRESS);
        assert_eq!(meaning(&asked, MAC, ADDRESS), Heard::Silence);
        for end in 0..42 {
            assert_eq!(meaning(&owner[..end], MAC, ADDRESS), Heard::Silence, "cut at {end}");
        }
    }

    #[test]
    fn quick_is_quick_and_random_is_bounded() {
        for _ in 0..100 {
            assert!(at_random(Duration::from_millis(20)) < Duration::from_millis(20));
        }
        let Asking { before, between, after, .. } = Asking::QUICK;
        assert!(before + between.1 * 2 + after <= Duration::from_millis(600));
    }
}
