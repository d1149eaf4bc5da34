//! Questions and orders to the kernel over one rtnetlink socket, one at a time.
//!
//! The kernel works a request off within `send`, so its answer is there when `send` comes back: there is nothing to wait for, and
//! no task in between that has to be woken for each: a plug is a dozen requests, a look at a hundred nodes is hundreds.

use std::io;
use std::time::Duration;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::sync::Mutex;

/// What one packet of the kernel's may hold: it makes lists in pieces of at most this (`netlink_recvmsg`).
const PACKET: usize = 32 << 10;
/// How often a list is asked for again because what it lists changed meanwhile.
const MOST_TURNS: u32 = 5;

/// One socket. Dropped, it is closed.
pub(super) struct Talk {
    socket: Socket,
    /// The number of the last request; held until that is answered.
    last: Mutex<u32>,
}

/// The kernel's word on a request.
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    /// What was listed changed meanwhile.
    interrupted: bool,
}

impl Talk {
    /// A socket in the network namespace of the calling thread. The kernel gives it its number with the first request.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, last: Mutex::new(0) })
    }

    /// Everything that the kernel lists for this.
    pub(super) async fn list(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..MOST_TURNS {
            let answer = self.ask(message.clone(), NLM_F_DUMP).await?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(io::Error::other(format!("it changed {MOST_TURNS} times while it was listed")))
    }

    /// The one thing that this asks for.
    pub(super) async fn get(&self, message: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        Ok(self.ask(message, 0).await?.messages.into_iter().next())
    }

    /// One order, and that it was carried out.
    pub(super) async fn order(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).await.map(drop)
    }

    async fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Answer> {
        let mut last = self.last.lock().await;
        *last = last.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = *last;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        patiently(|| self.socket.send(&bytes, 0)).await?;

        let mut answer = Answer { messages: Vec::new(), interrupted: false };
        let mut packet = Vec::with_capacity(PACKET);
        loop {
            packet.clear();
            let (_, from) = patiently(|| self.socket.recv_from(&mut packet, 0)).await?;
            // The kernel's own number is 0: nobody else is listened to.
            if from.port_number() == 0 && read(&packet, *last, flags, &mut answer)? {
                return Ok(answer);
            }
        }
    }
}

/// Reads one packet; true when the answer is whole.
fn read(mut rest: &[u8], number: u32, flags: u16, answer: &mut Answer) -> io::Result<bool> {
    while !rest.is_empty() {
        let head = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
        let length = usize::try_from(head.length()).unwrap_or(usize::MAX);
        let message = rest.get(..length).unwrap_or(rest);
        // An earlier request that was given up may still be answered.
        let ours = head.sequence_number() == number;
        answer.interrupted |= ours && head.flags() & NLM_F_DUMP_INTR != 0;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if !ours {
            continue;
        }
        // Kernels say things of links that nobody here has heard of: what cannot be read is as if it were not there.
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else { continue };
        match message.payload {
            NetlinkPayload::InnerMessage(message) => {
                answer.messages.push(message);
                // Only lists and orders have an end of their own.
                if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                    return Ok(true);
                }
            }
            NetlinkPayload::Error(error) => {
                return match error.code {
                    None => Ok(true),
                    Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
                };
            }
            NetlinkPayload::Done(done) => {
                return match done.code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            NetlinkPayload::Overrun(_) => return Err(io::Error::from(rustix::io::Errno::NOBUFS)),
            _ => {}
        }
    }
    Ok(false)
}

/// Does something with the socket. What the kernel cannot do at once (it is short of memory) is tried again after a moment; how
/// long, is for the caller to limit.
async fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            done => return done,
        }
    }
}

/// What can be listened to: groups of `linux/rtnetlink.h`.
#[derive(Clone, Copy, Debug)]
pub(in crate::system) enum Group {
    /// `RTNLGRP_LINK`.
    Links = 1,
    /// `RTNLGRP_NEIGH`, with the tables of bridges and tunnels.
    Neighbours = 3,
    /// `RTNLGRP_IPV4_IFADDR`.
    Addresses = 5,
    /// `RTNLGRP_IPV4_ROUTE`.
    Routes = 7,
    /// `RTNLGRP_IPV6_IFADDR`.
    Addresses6 = 9,
}

/// Hears whether something of the host's network has changed. The kernel puts each change into the socket before whoever made it
/// comes back from the call.
pub(in crate::system) struct Ear {
    socket: Socket,
}

impl Ear {
    pub(in crate::system) fn open(groups: &[Group]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(*group as u32)?;
        }
        Ok(Self { socket })
    }

    /// Whether there was a change since the last question. Takes all that there is to hear.
    pub(in crate::system) fn heard(&self) -> io::Result<bool> {
        let mut heard = false;
        // Cut off: that there was something is all that counts.
        let mut packet = Vec::with_capacity(64);
        loop {
            packet.clear();
            match self.socket.recv(&mut packet, 0) {
                Ok(_) => heard = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
                // There was more than fits.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => heard = true,
                Err(error) => return Err(error),
            }
        }
    }
}
