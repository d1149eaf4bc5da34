//! A VLAN on a network card: `eth0.120`, made with its first container and gone with its last.

use crate::failure::Failure;
use crate::resource::attach::Attach;
use crate::resource::attach::look::View;
use crate::resource::attach::record::records;
use crate::system::netlink::{Link, NetlinkHands};
use crate::system::{Actuator, Probe};

impl Attach {
    fn vlan_alias(&self) -> String {
        format!("fanli:1:vlan:{}", self.card())
    }

    /// Refuses a VLAN that cannot be made, or that could not carry what is declared once it is there.
    pub(in crate::resource::attach) async fn refuse_vlan(&self, view: &View, probe: &Probe) -> Result<(), Failure> {
        let card = self.card();
        let below = self.below(view)?;
        if !below.up {
            return Err(Failure::new(format!("network card {} is down", below.name)).hint("set it up first"));
        }
        if view.parent.is_none() {
            let host = probe.netlink(None)?;
            let refused = host.refuse_vlan(&card).await;
            host.close().await;
            refused?;
        }
        let made = Link {
            index: view.parent.as_ref().map_or(0, |parent| parent.index),
            name: card,
            kind: "vlan".to_owned(),
            parent: Some(below.index),
            mac: below.mac,
            mtu: view.parent.as_ref().map_or(below.mtu, |parent| parent.mtu),
            up: true,
            carrier: below.carrier,
            ..Link::default()
        };
        let wanted = self.wanted().map_err(|error| Failure::new(format!("`{}`: {}", error.field, error.message)))?;
        let view = View { parent: Some(made), ..view.clone() };
        self.usable_parent(&wanted, &view, self.earlier(view.record.as_ref()).as_ref())
    }

    /// The card that the VLAN stands on.
    fn below<'a>(&self, view: &'a View) -> Result<&'a Link, Failure> {
        let below = self.parent_word();
        let found = view.host.links.iter().find(|link| link.name == below);
        found.ok_or_else(|| Failure::new(format!("the host has no network card {below}")))
    }

    /// Makes the VLAN's link where it is missing; tells whether it did.
    pub(in crate::resource::attach) async fn ensure_vlan(
        &self,
        view: &View,
        hands: &Actuator,
    ) -> Result<bool, Failure> {
        let Some(vlan) = self.vlan.and_then(|vlan| u16::try_from(vlan).ok()) else { return Ok(false) };
        if view.parent.as_ref().is_some_and(|link| link.up) {
            return Ok(false);
        }
        let (card, under) = (self.card(), self.below(view)?);
        let host = hands.netlink_hands(None)?;
        let done = self.make_vlan(&host, view.parent.as_ref(), &card, under, vlan).await;
        host.close().await;
        done.map(|()| true)
    }

    async fn make_vlan(
        &self,
        host: &NetlinkHands,
        there: Option<&Link>,
        card: &str,
        under: &Link,
        vlan: u16,
    ) -> Result<(), Failure> {
        let index = match there {
            Some(link) => link.index,
            None => {
                host.add_vlan(card, under.index, vlan).await?;
                let made = host.link(card).await?.ok_or_else(|| Failure::new(format!("{card} went away again")))?;
                host.set_alias(made.index, &self.vlan_alias()).await?;
                made.index
            }
        };
        host.set_up(index, None).await
    }

    /// Takes the VLAN's link away when fanli made it and no other attachment of this host stands on it.
    pub(super) async fn leave_vlan(&self, view: &View, host: &NetlinkHands, probe: &Probe) -> Result<(), Failure> {
        let Some(link) = view.parent.as_ref().filter(|link| self.vlan.is_some() && link.alias == self.vlan_alias())
        else {
            return Ok(());
        };
        let own = self.record_name();
        let used = records(probe)?.iter().any(|(name, record)| *name != own && record.parent == link.name);
        if used { Ok(()) } else { host.delete_link(link.index).await }
    }
}
