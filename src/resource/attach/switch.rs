//! From one mode, or one network card, to another: what the last run plugged goes before the new one comes.
//!
//! A macvlan, a bridge's port and a tunnel's port cannot become each other, and what they stand on is made and removed by the
//! attachments themselves. The record tells what the last one was: that is taken out as its own `state = absent` would do it,
//! segment and shim included where no other container needs them.

use super::look::{Others, View};
use super::record::{Record, records};
use super::segment::Segment;
use super::{Attach, AttachState, Mode, shim};
use crate::failure::Failure;
use crate::resource::{Declared as _, Param as _, Resource as _};
use crate::system::{Actuator, Probe};
use crate::value::Value;

/// How many containers are named that stand in the way.
const MOST_NAMED: usize = 3;

/// The mode that a record tells of.
fn mode_of(record: &Record) -> &str {
    record.args.get("mode").and_then(Value::as_str).unwrap_or_default()
}

impl Attach {
    /// What its port stands on; with Docker's own networks nothing of fanli's.
    fn place(&self) -> Option<(Segment, String, String)> {
        (!self.by_docker()).then(|| (self.segment(), self.card(), self.way()))
    }

    /// The attachment as the record has it, where that stood on something else.
    pub(super) fn earlier(&self, record: Option<&Record>) -> Option<Self> {
        let old = Self::from_args(record?.args.clone()).ok().filter(|old| old.check().is_ok())?;
        (old.place().is_some() && old.place() != self.place()).then_some(old)
    }

    /// Refuses what is known not to work. Looking is enough to know it, so who only looks is told it too, and who does more is told it
    /// while what was there before still works.
    pub(super) async fn refuse_impossible(&self, view: &View, probe: &Probe) -> Result<(), Failure> {
        // What a container is plugged into is asked of one that runs; what is taken out stands in nobody's way.
        if view.container.is_none() || self.state == AttachState::Absent {
            return Ok(());
        }
        self.refuse_mixed(view, probe).await?;
        // The link of a VLAN is made, and set up, with its first container.
        if self.vlan.is_some() && view.parent.as_ref().is_none_or(|parent| !parent.up) {
            return self.refuse_vlan(view, probe).await;
        }
        let leaving = self.earlier(view.record.as_ref());
        self.usable_parent(&self.wanted()?, view, leaving.as_ref())
    }

    /// Takes out what the record tells of when it stood on something else; the record stays until another one takes its place. True
    /// when there was any.
    pub(super) async fn leave_earlier(&self, view: &View, hands: &Actuator) -> Result<bool, Failure> {
        let Some(old) = self.earlier(view.record.as_ref()) else { return Ok(false) };
        let mut before = View::default();
        if self.by_docker() {
            // Its container has another network by now, or is gone.
            old.look_at_host(hands, &mut before).await?;
        } else {
            before = old.look(hands, Others::Skip).await?;
        }
        let failed = |failure: Failure| {
            failure.within(format!("cannot take container {} off {}, where it was", self.container, old.way()))
        };
        old.take_out(&before, hands).await.map_err(failed)?;
        Ok(true)
    }

    /// Takes away the shim on a card that is to be a bridge's: no container that runs needs it, see [`Attach::refuse_mixed`]. True
    /// when there was one.
    pub(super) async fn leave_shim(&self, view: &View, hands: &Actuator) -> Result<bool, Failure> {
        if self.segment() != Segment::Bridge || self.parent_is_bridge(view) {
            return Ok(false);
        }
        let name = shim::name(&self.card());
        let host = hands.netlink_hands(None)?;
        let done = async {
            let Some(link) = host.link(&name).await?.filter(|link| shim::marked(link, &self.card())) else {
                return Ok(false);
            };
            host.delete_link(link.index).await.map(|()| true)
        };
        let done = done.await;
        host.close().await;
        done
    }

    /// Refuses a network card that carries containers by a mode that excludes this one: below a bridge there are no macvlans,
    /// and no address for a tunnel.
    pub(super) async fn refuse_mixed(&self, view: &View, probe: &Probe) -> Result<(), Failure> {
        let bridges = view.parent.as_ref().is_none_or(|parent| parent.kind == "bridge");
        if bridges {
            return Ok(());
        }
        let (own, card, port) = (self.record_name(), self.card(), self.segment() == Segment::Bridge);
        let excluded = |record: &Record| (mode_of(record) == "bridge") != port && !mode_of(record).is_empty();
        let records = records(probe)?;
        let mut others: Vec<&Record> = records
            .iter()
            .filter(|(name, record)| *name != own && record.parent == card && excluded(record))
            .map(|(_, record)| record)
            .collect();
        if !others.is_empty() {
            let running = probe.docker()?.running().await?;
            others.retain(|record| running.contains(&record.container));
        }
        others.sort_by(|one, other| one.container.cmp(&other.container));
        let Some(first) = others.first() else { return Ok(()) };
        let named = others.iter().take(MOST_NAMED).map(|record| record.container.as_str()).collect::<Vec<_>>();
        let more = if others.len() > named.len() {
            format!(" and {} more", others.len() - named.len())
        } else {
            String::new()
        };
        let (mode, there) = (self.mode.show(), mode_of(first));
        let failure = Failure::new(format!(
            "{card} cannot have `mode = {mode}` while it carries {}{more} by `mode = {there}`",
            named.join(", ")
        ));
        let beside = view
            .parent
            .as_ref()
            .and_then(|parent| view.host.links.iter().find(|link| parent.controller == Some(link.index)))
            .filter(|_| matches!(self.mode, Mode::Macvlan | Mode::Macvtap | Mode::Vxlan))
            .map(|bridge| format!("; to have both, stand on the bridge: `parent = \"{}\"`", bridge.name));
        Err(failure.hint(format!(
            "take those out first: play once with `state = absent` in their `attach` blocks, then with the new mode{}",
            beside.unwrap_or_default()
        )))
    }
}
