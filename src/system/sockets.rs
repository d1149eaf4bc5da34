//! Who listens on a port of this host, or in a container (`proc_net_tcp` in the kernel's documentation).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Probe;
use super::procfs::{namespace, open_ones, pids};
use crate::failure::{Context, Failure};

/// The state `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its process number, when it could be found.
    pub pid: Option<u32>,
    /// Its name.
    pub name: String,
}

/// A socket that listens, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The address that it listens on; unspecified for all.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The processes that have it open, as far as they could be found.
    pub pids: Vec<u32>,
    /// The path of their program, as its container sees it; else its name.
    pub program: String,
}

impl Probe {
    /// Connects, and closes the connection again; gives how long that took.
    ///
    /// # Errors
    /// Nobody takes the connection, or not within `limit` (`connect_timeout`).
    pub async fn connects(&self, to: SocketAddr, limit: Duration) -> Result<Duration, Failure> {
        let start = Instant::now();
        match timeout(limit, TcpStream::connect(to)).await {
            Ok(Ok(_)) => Ok(start.elapsed()),
            Ok(Err(error)) => Err(Failure::new(error.to_string())),
            Err(_) => Err(Failure::timeout("connect_timeout", limit)),
        }
    }

    /// The TCP sockets that listen in the network of a process, in the order of their ports. None when it has ended.
    ///
    /// # Errors
    /// The kernel's table cannot be read.
    pub fn listening_beside(&self, pid: u32) -> Result<Vec<Listening>, Failure> {
        let mut found = Vec::new();
        for table in [format!("/proc/{pid}/net/tcp"), format!("/proc/{pid}/net/tcp6")] {
            let Some(text) = self.read_small(&table)? else { continue };
            found.extend(text.lines().filter_map(listener));
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut owners: BTreeMap<u64, Vec<u32>> = found.iter().map(|(_, _, inode)| (*inode, Vec::new())).collect();
        // Whoever has a socket of a network is in it, but for oddities; and there are hundreds of others.
        let own = namespace(pid, "net");
        for pid in pids().filter(|pid| namespace(pid, "net") == own) {
            for inode in open_ones(pid, "socket") {
                owners.entry(inode).and_modify(|pids| pids.push(pid));
            }
        }
        let mut found: Vec<Listening> = found
            .into_iter()
            .map(|(address, port, inode)| {
                let mut pids = owners.remove(&inode).unwrap_or_default();
                pids.sort_unstable();
                pids.dedup();
                let program = pids.iter().find_map(|pid| self.process(*pid)).map(|(program, _)| program);
                let program = program.map(|path| path.trim_end_matches(" (deleted)").to_owned());
                let program = program.unwrap_or_else(|| "another process".to_owned());
                Listening { address, port, pids, program }
            })
            .collect();
        found.sort_by_key(|listening| (listening.port, listening.address));
        Ok(found)
    }

    /// Who listens on a TCP port of the host, on whatever address.
    pub fn listener(&self, port: u16) -> Result<Option<Listener>, Failure> {
        for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            let text = match std::fs::read_to_string(table) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.with_context(|| format!("cannot read {table}"))?,
            };
            if let Some(inode) = text.lines().find_map(|line| listening(line, port)) {
                return Ok(Some(owner(inode)));
            }
        }
        Ok(None)
    }

    /// Whether two processes see the same files: those of one container do.
    pub fn share_files(&self, one: u32, other: u32) -> bool {
        let one = namespace(one, "mnt");
        one.is_some() && one == namespace(other, "mnt")
    }
}

/// The inode of a listening socket with that port.
pub(super) fn listening(line: &str, port: u16) -> Option<u64> {
    listener(line).filter(|(_, found, _)| *found == port).map(|(_, _, inode)| inode)
}

/// Address, port and inode of a listening socket: `  0: 0100007F:1F90 00000000:0000 0A … uid timeout inode`.
fn listener(line: &str) -> Option<(IpAddr, u16, u64)> {
    let mut words = line.split_whitespace();
    let (address, port) = words.nth(1)?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?;
    if state != LISTEN {
        return None;
    }
    Some((kernels_address(address)?, u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

/// Words of four bytes, each as this machine writes a number.
fn kernels_address(hex: &str) -> Option<IpAddr> {
    let word = |from: usize| u32::from_str_radix(hex.get(from..from + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// The first process that has the socket open.
fn owner(inode: u64) -> Listener {
    let pid = pids().find(|pid| open_ones(*pid, "socket").contains(&inode));
    let name = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    Listener { pid, name: name.map_or_else(|| "another process".to_owned(), |name| name.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::{listener, listening};

    #[test]
    fn a_line_of_the_kernels_table() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 51766 1 0 100 0 0 10 0";
        assert_eq!(listening(line, 8080), Some(51766));
        assert_eq!(listening(line, 8081), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 8080), None);
        assert_eq!(listener(line), Some(("127.0.0.1".parse().unwrap(), 8080, 51766)));
        let six = line.replace("0100007F:", "00000000000000000000000001000000:");
        assert_eq!(listener(&six).unwrap().0, std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST));
        let mapped = line.replace("0100007F:", "0000000000000000FFFF00000100007F:");
        assert_eq!(listener(&mapped), listener(line));
    }
}
