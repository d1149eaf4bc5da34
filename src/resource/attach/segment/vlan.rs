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
        let (card, below) = (self.card(), self.parent_word());
        let under = view.host.links.iter().find(|link| link.name == below);
        let under = under.ok_or_else(|| Failure::new(format!("the host has no network card {below}")))?;
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
