//! No address twice: before an address is used here, this host's own lists and everybody on the wire are asked whether it is free.
//!
//! The address book is the lock; this is the last check before the plug, for what no book knows: a machine with an address by
//! hand, a copy that lives on after its host was given up. It is asked from the shim and never from the new link: a probe with
//! the computed MAC is not answered by a copy with the same MAC (measured: research/networking.md, section 1), and one from
//! the card itself never reaches the macvlans on it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::look::{self, View};
use super::record::{Record, records};
use super::segment::Segment;
use super::{Attach, Probing, Wanted};
use crate::failure::Failure;
use crate::resource::{Declared as _, interfaces};
use crate::system::arp::{Asking, Heard, at_random};
use crate::system::netlink::{Link, Mac, MacVlan, NetlinkHands};
use crate::system::{Actuator, Probe};
use crate::value::Digest;

/// How long our own MAC may answer because the container's old namespace is still going away on another host (limit `old copy`).
const OLD_COPY: Duration = Duration::from_secs(2);
/// How often somebody else may ask for the address at the same time before this one gives up (limit `rivals`).
const MOST_RIVALS: u32 = 8;

/// What a failure tells programs of another machine that answers for an address: the address, and its MAC.
pub const FOREIGN_ADDRESS: &str = "foreign_address";
/// See [`FOREIGN_ADDRESS`].
pub const FOREIGN_MAC: &str = "foreign_mac";

/// The link that is asked from.
struct From {
    link: u32,
    mac: Mac,
    /// Made for this alone.
    temporary: bool,
}

impl Attach {
    /// Refuses an address that somebody else has. Does nothing when the right link already has it.
    pub(super) async fn refuse_conflict(
        &self,
        wanted: &Wanted,
        view: &mut View,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        let own = view.own(self).filter(|link| link.up && link.mac == Some(wanted.mac.0));
        let in_place = own.is_some() && view.addresses.iter().any(|net| net.addr() == wanted.address.addr());
        if in_place || view.container.is_none() {
            return Ok(());
        }
        // The reasons why nothing can be plugged at all are told first.
        self.refuse_foreign(view)?;
        self.usable_parent(wanted, view, None)?;
        self.refuse_local(wanted, view, hands).await?;
        self.clear_old(wanted, view, hands).await?;
        if self.probe == Probing::Off {
            return Ok(());
        }
        let host = hands.netlink_hands(None)?;
        let asked = self.ask_network(wanted, view, &host, hands).await;
        host.close().await;
        asked
    }

    /// What this host knows by itself: its own addresses, and those that it gave to its other containers.
    async fn refuse_local(&self, wanted: &Wanted, view: &View, probe: &Probe) -> Result<(), Failure> {
        let address = wanted.address.addr();
        if let Some(link) = view.host.has(IpAddr::V4(address)) {
            let (name, mac) = (&link.name, link.mac.map(Mac));
            return Err(self
                .conflict(wanted, probe, format!("it belongs to this host itself, on {name}{}", with_mac(mac)))?
                .hint("give the node another address, and name this one in `exclude` of its `network` block"));
        }
        let own = self.record_name();
        let records = records(probe)?;
        let mut others: Vec<&Record> = records
            .of_address(IpAddr::V4(address))
            .filter_map(|(name, record)| (*name != own).then_some(record))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        // What is remembered of a container that is gone binds nobody.
        let (containers, _) = probe.recent_containers(true).await?;
        others.retain(|record| containers.contains(&record.container));
        let Some(Record { container, network, .. }) = others.first() else {
            return Ok(());
        };
        let owner = format!("it belongs to container {container} in network {network} on this host");
        Err(self
            .conflict(wanted, probe, owner)?
            .hint(format!("give one of the two another address; where {container} has one by now, run its play first")))
    }

    async fn ask_network(
        &self,
        wanted: &Wanted,
        view: &mut View,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        let had_shim = view.shim.is_some();
        let Some(from) = self.asked_from(view, host, hands).await? else { return Ok(()) };
        let asking = match self.probe {
            Probing::Strict => Asking::STRICT,
            // Ours before, on this host, by a record that is written only after the network was asked. A container that was
            // restarted must not wait for half a second; a live copy on the same wire answers within the 2 ms all the same.
            _ if self.was_ours(view) => Asking::GLANCE,
            _ => Asking::QUICK,
        };
        let asked_already = asking == Asking::GLANCE && view.silent_on == Some(from.link);
        let heard = if asked_already { Ok(()) } else { self.until_clear(wanted, &from, &asking, view, hands).await };
        let made_for_this = from.temporary || (heard.is_err() && !had_shim);
        if made_for_this {
            let gone = host.delete_link(from.link).await;
            if !from.temporary {
                view.shim = None;
            }
            return heard.and(gone);
        }
        heard
    }

    /// Whether the record says that this very attachment had this very address on this host.
    pub(super) fn was_ours(&self, view: &View) -> bool {
        let same = |record: &Record| Some(record.address) == self.address && record.parent == self.card();
        view.record.as_ref().is_some_and(same)
    }

    async fn until_clear(
        &self,
        wanted: &Wanted,
        from: &From,
        asking: &Asking,
        view: &View,
        probe: &Probe,
    ) -> Result<(), Failure> {
        let ours = |mac: Mac| view.links.iter().any(|link| link.mac == Some(mac.0) && look::marked(link));
        let address = wanted.address.addr();
        let (started, mut rivals) = (Instant::now(), 0);
        loop {
            match probe.ask_arp(None, (from.link, from.mac), address, Some(wanted.mac), asking).await? {
                Heard::Silence => return Ok(()),
                // The container's own link, under another name or with another MAC: it is mended.
                Heard::Owner(mac) if ours(mac) => return Ok(()),
                Heard::Owner(mac) if mac == wanted.mac && started.elapsed() < OLD_COPY => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Heard::Owner(mac) => return Err(self.refused(wanted, mac, probe).await?),
                // Both step back, for a different time each; who asks again later hears the other one as owner. So there are
                // never two winners, and one as soon as their times differ by more than a round.
                Heard::Rival(mac) => {
                    rivals += 1;
                    if rivals > MOST_RIVALS {
                        return Err(self
                            .conflict(wanted, probe, format!("somebody else asks for it at the same time, with {mac}"))?
                            .because(format!("over its limit `rivals` of {MOST_RIVALS} rounds"))
                            .hint(
                                "another controller plugs the same address now: give one of the two nodes another one",
                            ));
                    }
                    probe.progress(&format!("{mac} asks for {address} too: stepping back"), None);
                    tokio::time::sleep(at_random(Duration::from_millis(400) * rivals)).await;
                }
            }
        }
    }

    /// What to say of somebody who answers for the address.
    async fn refused(&self, wanted: &Wanted, mac: Mac, probe: &Probe) -> Result<Failure, Failure> {
        let here = interfaces::look(probe, |_| true).await?;
        let sibling = here.with_mac(mac).map(|container| container.name.as_str()).next();
        let address = wanted.address.addr();
        if mac == wanted.mac {
            let holders = Box::pin(probe.holders(mac, None)).await.unwrap_or_default();
            if sibling.is_none() && !holders.is_empty() {
                let place = format!("the old network of a container is alive on this host and answers with {mac}");
                return Ok(self.who_holds(self.conflict(wanted, probe, place)?, mac, None, probe).await);
            }
            let place = match sibling {
                Some(name) => format!(
                    "a copy is alive on this host: container {name} answers with {mac}, the MAC that fanli gives to this address"
                ),
                None => {
                    format!("a copy is alive on another host: {mac} answers, the MAC that fanli gives to this address")
                }
            };
            return Ok(self.conflict(wanted, probe, place)?.hint(
                "`fanli net list` shows which host has it: stop that container or take its interface away, then run again",
            ));
        }
        let (owner, hint) = match sibling {
            Some(name) => (
                format!("it belongs to container {name} on this host, with {mac}"),
                format!(
                    "fanli does not remember that it gave it {address}: take it from {name}, or give the node another address"
                ),
            ),
            None => (
                format!("it belongs to another machine on {}, with {mac}", self.card()),
                format!(
                    "find {mac} in the tables of your switch; then free the address there, or give the node another one and name {address} in `exclude`"
                ),
            ),
        };
        let failure = self.conflict(wanted, probe, owner)?.hint(hint);
        Ok(if sibling.is_none() { failure.fact(FOREIGN_ADDRESS, address).fact(FOREIGN_MAC, mac) } else { failure })
    }

    /// Both sides of a conflict in words.
    fn conflict(&self, wanted: &Wanted, probe: &Probe, owner: String) -> Result<Failure, Failure> {
        let host = probe.read_small("/proc/sys/kernel/hostname")?.unwrap_or_default();
        Ok(Failure::new(format!("address {} is taken", wanted.address.addr())).because(owner).because(format!(
            "it was to go to container {} in network {} on host {}, with {}",
            self.container,
            self.network,
            host.trim(),
            wanted.mac
        )))
    }

    /// The shim, made first where it is not there; without one a link that is taken away again. Where ports stand in a bridge,
    /// the bridge; before there is one, the card, which all others are behind. A tunnel that is not there yet leads to nobody.
    async fn asked_from(
        &self,
        view: &mut View,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<Option<From>, Failure> {
        let gone = || Failure::new("the link to ask from went away as soon as it was made");
        let that = |link: &Link| From { link: link.index, mac: Mac(link.mac.unwrap_or_default()), temporary: false };
        match self.segment() {
            Segment::Tunnel => return Ok(view.base.as_ref().filter(|base| base.up).map(that)),
            Segment::Bridge => return Ok(view.base.as_ref().filter(|base| base.up).or(view.parent.as_ref()).map(that)),
            Segment::Card if self.takes_card() => return Ok(view.parent.as_ref().map(that)),
            Segment::Card => {}
        }
        if self.host_reaches() {
            let name = self.way();
            let made = self.ensure_shim_link(&name, view, host, hands).await?;
            // One that was right was not touched.
            let right = view.shim.take().filter(|shim| shim.index == made && shim.up && shim.mac.is_some());
            let link = match right {
                Some(shim) => shim,
                None => host.link(&name).await?.ok_or_else(gone)?,
            };
            let (index, mac) = (link.index, Mac(link.mac.unwrap_or_default()));
            (view.shim, view.shim_filters) = (Some(link), true);
            return Ok(Some(From { link: index, mac, temporary: false }));
        }
        let parent =
            view.parent.as_ref().map(|parent| parent.index).ok_or_else(|| Failure::new("the parent went away"))?;
        let name = self.asking_name();
        // One that a killed run left stands on who knows what.
        if let Some(left) = host.link(&name).await? {
            host.delete_link(left.index).await?;
        }
        host.add_macvlan(&MacVlan { name: &name, parent, mac: None, mtu: None, inside: None }).await?;
        let link = host.link(&name).await?.ok_or_else(gone)?;
        let ready = async {
            hands.interface_switches(None, &name, &[("ipv6/disable_ipv6", "1")])?;
            host.set_up(link.index, None).await
        };
        if let Err(failure) = ready.await {
            return Err(host.delete_link(link.index).await.err().map_or(failure.clone(), |undo| failure.because(undo)));
        }
        Ok(Some(From { link: link.index, mac: Mac(link.mac.unwrap_or_default()), temporary: true }))
    }

    /// The name of the link that is made for one probe.
    pub(super) fn asking_name(&self) -> String {
        format!("fa{}", Digest::of(self.card().as_bytes()).short().chars().take(8).collect::<String>())
    }
}

fn with_mac(mac: Option<Mac>) -> String {
    mac.map_or_else(String::new, |mac| format!(", with {mac}"))
}

/// What fanli remembers on this host, for those who list it.
pub(in crate::resource) fn seen_records(probe: &Probe) -> Result<Vec<interfaces::SeenRecord>, Failure> {
    let mac = |record: &Record| Attach::from_args(record.args.clone()).ok()?.declared_mac();
    let record = |record: &Record| interfaces::SeenRecord {
        mac: mac(record),
        container: record.container.clone(),
        network: record.network.clone(),
        parent: record.parent.clone(),
        address: record.address,
        owner: record.owner.clone(),
        store: record.store.clone(),
        revision: record.revision.and_then(|revision| u64::try_from(revision).ok()),
    };
    let mut all: Vec<_> = records(probe)?.iter().map(|(_, found)| record(found)).collect();
    all.sort_by_key(|record| record.address);
    Ok(all)
}
