//! What a generation listens on, beside what the node has: addresses that are not its own, ports that are another program's.

use std::net::{IpAddr, SocketAddr};

use super::mark::Listens;
use crate::failure::Failure;
use crate::system::Probe;
use crate::system::docker::{Container, Docker};
use crate::system::sockets::Listening;

/// The addresses that a running node has, without those of every network: loopback, and those of one link.
pub(super) async fn own_addresses(node: &Container, docker: &Docker, probe: &Probe) -> Result<Vec<IpAddr>, Failure> {
    let netlink = if node.network_mode == "host" {
        probe.netlink(None)?
    } else {
        probe.netlink(Some(&probe.namespace_to_look(docker, node).await?))?
    };
    let all = netlink.all_addresses().await;
    netlink.close().await;
    let of_link = |address: &IpAddr| matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
    let mut own: Vec<IpAddr> = all?.into_iter().map(|(_, net)| net.addr()).collect();
    own.retain(|address| !address.is_loopback() && !of_link(address));
    own.sort();
    own.dedup();
    Ok(own)
}

/// An address that a node with these does not have.
pub(super) fn foreign(listens: &Listens, own: &[IpAddr]) -> Option<Failure> {
    let is_own = |address: &IpAddr| address.is_unspecified() || address.is_loopback() || own.contains(address);
    let (address, port, program) = listens.iter().find(|(address, ..)| !is_own(address))?;
    let known: Vec<String> = own.iter().map(ToString::to_string).collect();
    let at = SocketAddr::new(*address, *port);
    let failure = Failure::new(format!("{program} listens on {at}, and {address} is no address of the node"));
    Some(if known.is_empty() {
        failure.hint("let the node run, or name its addresses with `addresses`")
    } else {
        failure.because(format!("the node has {}", known.join(", ")))
    })
}

/// A port that another program holds in the node.
pub(super) fn taken(listens: &Listens, node: Option<&Container>, probe: &Probe) -> Result<Option<Failure>, Failure> {
    let Some((node, pid)) = node.and_then(|node| Some((node, node.pid?))) else { return Ok(None) };
    let held = probe.listening_beside(pid)?;
    for (address, port, program) in listens {
        let own = |held: &Listening| {
            held.program == *program && held.pids.iter().any(|holder| probe.share_files(pid, *holder))
        };
        let Some(held) = held.iter().find(|held| held.port == *port && meet(*address, held.address) && !own(held))
        else {
            continue;
        };
        let process = held.pids.first().map_or_else(String::new, |pid| format!(", process {pid}"));
        return Ok(Some(
            Failure::new(format!(
                "{program} listens on port {port}, which {}{process}, has in container {}",
                held.program, node.name
            ))
            .hint("give the configuration another port, or stop that program first"),
        ));
    }
    Ok(None)
}

/// Whether two sockets cannot have the same port. Whether `::` leaves IPv4 alone is not to be seen: it is taken as the default, not.
fn meet(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(address: &str) -> Listens {
        vec![(address.parse().unwrap(), 80, "/usr/sbin/web".to_owned())]
    }

    #[test]
    fn only_own_addresses_are_listened_on() {
        let own = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        for fine in ["0.0.0.0", "::", "127.0.0.1", "::1", "10.0.0.5", "fd00::5"] {
            assert_eq!(foreign(&listens(fine), &own), None, "{fine}");
        }
        for wrong in ["10.0.0.6", "fd00::6"] {
            assert!(foreign(&listens(wrong), &own).is_some(), "{wrong}");
        }
        assert!(foreign(&listens("10.0.0.5"), &[]).unwrap().hint.is_some());
    }

    #[test]
    fn sockets_meet_on_the_same_address_or_on_all() {
        let meets = |one: &str, other: &str| meet(one.parse().unwrap(), other.parse().unwrap());
        assert!(meets("0.0.0.0", "127.0.0.1") && meets("10.0.0.5", "::") && meets("10.0.0.5", "10.0.0.5"));
        assert!(!meets("10.0.0.5", "127.0.0.1"));
    }
}
