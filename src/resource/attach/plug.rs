//! Plugging an interface in, mending one, and pulling it out.

use std::time::Instant;

use super::look::View;
use super::segment::{Base, Segment};
use super::{Attach, Wanted};
use crate::failure::Failure;
use crate::system::holders::How;
use crate::system::netlink::{Link, Mac, NetlinkHands};
use crate::system::netns::Namespace;
use crate::system::{Actuator, Probe};

/// The sockets that one plug needs.
pub(super) struct Sockets<'a> {
    pub(super) host: &'a NetlinkHands,
    pub(super) inside: &'a NetlinkHands,
    pub(super) namespace: &'a Namespace,
}

impl Attach {
    /// Brings the interface to what is wanted, whatever there is of it; gives its MAC address.
    pub(super) async fn plug(&self, wanted: &Wanted, view: &View, hands: &Actuator) -> Result<Mac, Failure> {
        let docker = hands.docker()?;
        let Some(container) = &view.container else {
            let there = docker.container(&self.container).await?.map(|found| found.status);
            let what = there.map_or_else(|| "does not exist".to_owned(), |status| format!("is not running ({status})"));
            return Err(Failure::new(format!("container {} {what}", self.container))
                .hint("only a running container has a network; put the `attach` after or into its `container` block"));
        };
        self.refuse_foreign(view)?;
        self.usable_parent(wanted, view, None)?;
        self.remember(hands)?;
        let namespace = hands.namespace(&docker, container).await?;
        let host = hands.netlink_hands(None)?;
        // A killed run may have left the link that it asked from.
        if let Some(left) = view.host.links.iter().find(|link| link.name == self.asking_name()) {
            host.delete_link(left.index).await?;
        }
        let done = self.plug_between(&host, &namespace, wanted, view, hands).await;
        host.close().await;
        done
    }

    async fn plug_between(
        &self,
        host: &NetlinkHands,
        namespace: &Namespace,
        wanted: &Wanted,
        view: &View,
        hands: &Actuator,
    ) -> Result<Mac, Failure> {
        let base = self.ensure_segment(view, host, hands).await?;
        let inside = hands.netlink_hands(Some(namespace))?;
        let sockets = Sockets { host, inside: &inside, namespace };
        let done = self.plug_with(&sockets, wanted, view, &base, hands).await;
        inside.close().await;
        let mac = done?;
        self.ensure_way(&base, view, host, hands).await?;
        Ok(mac)
    }

    async fn plug_with(
        &self,
        sockets: &Sockets<'_>,
        wanted: &Wanted,
        view: &View,
        base: &Base,
        hands: &Actuator,
    ) -> Result<Mac, Failure> {
        let started = Instant::now();
        for left in view.leftovers(self) {
            sockets.inside.delete_link(left.index).await?;
        }
        let kept = view.own(self).filter(|link| self.right_make(link, wanted, base));
        let (index, fresh) = match (view.own(self), kept) {
            (_, Some(link)) => (link.index, false),
            (old, None) => {
                if let Some(old) = old {
                    sockets.inside.delete_link(old.index).await?;
                }
                let made = self.make(sockets, wanted, base).await;
                if made.is_err() {
                    // The kernel may have made it although its answer was lost.
                    self.undo(sockets.namespace, hands).await?;
                }
                let index = made?;
                // By its number the link is found again when the container is gone and something else keeps the network. A plug
                // never fails for what is of use later.
                if let Err(failure) = sockets.host.number(sockets.namespace).await {
                    hands.progress(&failure.to_string(), None);
                }
                (index, true)
            }
        };
        let done = self.address(sockets, wanted, view, base, (index, fresh), hands).await;
        if let Err(failure) = done {
            if fresh {
                // Addresses and routes go with the link, so this is all there is to undo.
                self.undo(sockets.namespace, hands).await.map_err(|undo| failure.clone().because(undo))?;
            }
            let failure = self.who_holds(failure, wanted.mac, Some(sockets.namespace), hands).await;
            return Err(failure.within(format!("cannot attach container {} to {}", self.container, self.network)));
        }
        if fresh {
            let took = started.elapsed().as_micros();
            hands.progress(&format!("plugged {} in {}.{:03} ms", self.interface, took / 1000, took % 1000), None);
        }
        let mac = if self.takes_card() { base.link.mac.map_or(wanted.mac, Mac) } else { wanted.mac };
        // Neighbours that hear nothing ask again by themselves, later: no reason to fail (moby#49593).
        if let Err(failure) = hands.announce(Some(sockets.namespace), index, mac, &[wanted.address.addr().into()]) {
            hands.progress(&failure.to_string(), None);
        }
        Ok(mac)
    }

    /// Adds to a failure who keeps an old copy of this interface alive, where there is one on this host.
    pub(super) async fn who_holds(
        &self,
        failure: Failure,
        mac: Mac,
        except: Option<&Namespace>,
        probe: &Probe,
    ) -> Failure {
        // What cannot be found out now changes nothing about the failure.
        let holders = Box::pin(probe.holders(mac, except)).await.unwrap_or_default();
        if holders.is_empty() {
            return failure;
        }
        let told = holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let within = holders.iter().filter(|holder| !matches!(holder.how, How::Mounted(_)));
        let mut pids: Vec<String> = within.map(|holder| holder.pid.to_string()).collect();
        pids.dedup();
        let way_out = if pids.is_empty() {
            "unmount it there".to_owned()
        } else {
            format!("end what holds it, for instance `kill {}`", pids.join(" "))
        };
        failure
            .because(format!("an old network of container {} is still alive: {told}", self.container))
            .hint(format!("{way_out}: the kernel takes the old interface away with it"))
    }

    /// Takes away what was just made, over a socket of its own: the other one may be what failed.
    async fn undo(&self, namespace: &Namespace, hands: &Actuator) -> Result<(), Failure> {
        let (temporary, owner) = (self.temporary(), self.owner());
        let inside = hands.netlink_hands(Some(namespace))?;
        let done = async {
            let ours = |link: &&Link| link.name == temporary || link.alias.starts_with(&owner);
            for link in inside.links().await?.iter().filter(ours) {
                inside.delete_link(link.index).await?;
            }
            Ok(())
        };
        let done = done.await;
        inside.close().await;
        done
    }

    /// Whether the parent can carry the segment, before anything is touched; `leaving` is what will have been taken out by then.
    pub(super) fn usable_parent(&self, wanted: &Wanted, view: &View, leaving: Option<&Self>) -> Result<(), Failure> {
        let parent = self.usable_card(wanted, view, leaving)?;
        match self.segment() {
            Segment::Card => Ok(()),
            Segment::Bridge => self.refuse_bridge(view, parent),
            // The card has its address back when its bridge goes.
            Segment::Tunnel if leaving.is_some_and(|old| old.segment() == Segment::Bridge) => Ok(()),
            Segment::Tunnel => self.refuse_tunnel(view),
        }
    }

    fn usable_card<'a>(&self, wanted: &Wanted, view: &'a View, leaving: Option<&Self>) -> Result<&'a Link, Failure> {
        let card = self.card();
        let Some(parent) = &view.parent else {
            let hardware = |link: &&Link| link.kind != "macvlan" && link.name != "lo";
            let names: Vec<_> = view.host.links.iter().filter(hardware).map(|link| link.name.as_str()).collect();
            return Err(Failure::new(format!("the host has no network card {card}"))
                .hint(format!("it has {}", names.join(", "))));
        };
        if parent.kind.starts_with("macvlan") || parent.kind.starts_with("macvtap") {
            // The kernel would quietly take the card below it.
            return Err(Failure::new(format!("{card} is a macvlan itself"))
                .hint("name the network card that it stands on as `parent`"));
        }
        if !parent.up {
            return Err(Failure::new(format!("network card {card} is down")).hint("set it up first"));
        }
        let in_own = self.segment() == Segment::Bridge
            && view.base.as_ref().is_some_and(|base| parent.controller == Some(base.index));
        let name_of =
            |index: u32| view.host.links.iter().find(|link| link.index == index).map(|link| link.name.as_str());
        let left = leaving.map(Self::way);
        let in_way = |controller: &u32| !in_own && (left.is_none() || name_of(*controller) != left.as_deref());
        if let Some(name) = parent.controller.filter(in_way).map(name_of) {
            return Err(Failure::new(format!("{card} is a port of {}", name.unwrap_or("a bridge or bond")))
                .hint("name that as `parent` instead"));
        }
        let most = self.segment_mtu(view).unwrap_or(parent.mtu);
        if let Some(mtu) = wanted.mtu.filter(|mtu| *mtu > most) {
            let below =
                if most < parent.mtu { format!(" less the tunnel's {}", parent.mtu - most) } else { String::new() };
            return Err(Failure::new(format!("an MTU of {mtu} is more than the {} of {card}{below}", parent.mtu)));
        }
        // A bridge that goes gives the card its addresses back.
        let given_back = leaving.filter(|old| old.segment() == Segment::Bridge && old.card() == card);
        let bridge = given_back.and_then(|old| view.host.link(&old.way())).filter(|_| view.card_addresses.is_empty());
        let own = bridge.map_or_else(|| view.card_addresses.clone(), |bridge| view.host.addresses(bridge.index));
        if self.takes_card() && !own.is_empty() {
            let own = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Failure::new(format!(
                "{card} carries the host's own address {own}: `passthru` would cut it off"
            ))
            .hint("give the container a network card that the host does not use, or use `variant = bridge`"));
        }
        Ok(parent)
    }

    /// Pulls the interface out, and forgets it.
    pub(super) async fn unplug(&self, view: &View, hands: &Actuator) -> Result<(), Failure> {
        self.take_out(view, hands).await?;
        self.forget(hands)
    }

    /// Pulls the interface out, and takes away what nobody else needs of what it stood on.
    pub(super) async fn take_out(&self, view: &View, hands: &Actuator) -> Result<(), Failure> {
        if let Some(container) = &view.container {
            let probe: &Probe = hands;
            let namespace = probe.namespace(&hands.docker()?, container).await?;
            let inside = hands.netlink_hands(Some(&namespace))?;
            let mut done = Ok(());
            for link in view.own(self).filter(|link| self.is_own(link)).into_iter().chain(view.leftovers(self)) {
                done = done.and(inside.delete_link(link.index).await);
            }
            inside.close().await;
            done?;
        }
        let host = hands.netlink_hands(None)?;
        let mut done = self.remove_old(view, &host, hands).await;
        if done.is_ok() {
            done = self.leave_way(view, &host, hands).await;
        }
        if done.is_ok() {
            done = self.leave_segment(view, &host, hands).await;
        }
        host.close().await;
        done
    }
}
