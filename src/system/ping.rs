//! Reaching an address from the host or from inside a container: an ICMP echo (RFC 792), and a TCP connection.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with};
use rustix::time::Timespec;

use super::Probe;
use super::netns::{Namespace, within};
use crate::failure::{Context as _, Failure};

/// How long an echo or a connection may take: limit `reach`.
const REACH: Duration = Duration::from_secs(1);
/// How many echoes are tried: the first may wait for ARP.
const TRIES: u16 = 2;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It was accepted.
    Open,
    /// The machine is there, and refused it.
    Refused,
    /// Nothing came back, or no way leads there: in the kernel's words.
    No(String),
}

impl Probe {
    /// Whether `to` answers an echo whose packet has `size` bytes in all, IPv4 header included.
    ///
    /// # Errors
    /// Raw sockets are refused (they need root). An address that cannot be reached is no error.
    pub async fn ping(&self, inside: Option<&Namespace>, to: Ipv4Addr, size: u32) -> Result<bool, Failure> {
        let what = || format!("cannot ping {to}");
        let open = || socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::ICMP));
        let socket = within(inside, open)?.with_context(what)?;
        let payload = usize::try_from(size).unwrap_or(0).saturating_sub(28).clamp(8, 65_000);
        tokio::task::spawn_blocking(move || echo(&socket, to, payload)).await.with_context(what)?.with_context(what)
    }

    /// Whether a TCP connection to `to` comes about.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn tcp(&self, inside: Option<&Namespace>, to: SocketAddr) -> Result<Reached, Failure> {
        let connect = || TcpStream::connect_timeout(&to, REACH).map(drop);
        Ok(match within(inside, connect)? {
            Ok(()) => Reached::Open,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Reached::Refused,
            Err(error) => Reached::No(error.to_string()),
        })
    }
}

fn echo(socket: &OwnedFd, to: Ipv4Addr, payload: usize) -> Result<bool, Errno> {
    // The process number tells ours from those of other programs on this host.
    let id = std::process::id().to_be_bytes();
    for turn in 0..TRIES {
        let request = request([id[2], id[3]], turn, payload);
        match sendto(socket, &request, SendFlags::empty(), &SocketAddrV4::new(to, 0)) {
            Ok(_) => {}
            Err(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::MSGSIZE | Errno::NETDOWN | Errno::HOSTDOWN) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let until = Instant::now() + REACH;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
            let mut packet = [0_u8; 128];
            let length = match recv(socket, &mut packet, RecvFlags::DONTWAIT) {
                Ok((_, length)) => length.min(packet.len()),
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(_) => break,
            };
            if packet.get(..length).is_some_and(|packet| answers(packet, to, [id[2], id[3]], turn)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn request(id: [u8; 2], turn: u16, payload: usize) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0][..], &id, &turn.to_be_bytes(), &vec![0x66; payload]].concat();
    let mut sum: u32 = message
        .chunks(2)
        .map(|pair| pair.iter().chain(&[0]).take(2).fold(0, |word, byte| word << 8 | u32::from(*byte)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let check = !u16::try_from(sum).unwrap_or(0);
    for (place, byte) in message.iter_mut().skip(2).zip(check.to_be_bytes()) {
        *place = byte;
    }
    message
}

/// Whether a packet, IPv4 header first, is the reply to that request.
fn answers(packet: &[u8], from: Ipv4Addr, id: [u8; 2], turn: u16) -> bool {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let message = packet.get(header..).unwrap_or_default();
    packet.get(12..16) == Some(&from.octets())
        && message.first() == Some(&0)
        && message.get(4..6) == Some(&id)
        && message.get(6..8) == Some(&turn.to_be_bytes())
}
