//! Records of attachments whose container is gone: they bind nobody, and the next attachment on that network removes them.

use super::look::View;
use super::record::{self, Record, records};
use super::{Attach, AttachState};
use crate::failure::Failure;
use crate::resource::container::is_among;
use crate::resource::{Declared as _, Resource as _};
use crate::system::netlink::NetlinkHands;
use crate::system::{Actuator, Probe};

impl Attach {
    /// Refuses a network whose addresses this host has from another book: two books can give the same address. Asked before a plug of a
    /// run, not of the watcher: it only repeats what a run did. What is remembered of a container that is gone counts no more, and is
    /// taken away.
    pub(super) async fn refuse_other_books(&self, hands: &Actuator) -> Result<(), Failure> {
        if self.state == AttachState::Absent {
            return Ok(());
        }
        let (own, all) = (self.record_name(), records(hands)?);
        let mut others: Vec<&(String, Record)> =
            all.iter().filter(|(name, record)| *name != own && record.network == self.network).collect();
        if others.is_empty() {
            return Ok(());
        }
        let (containers, _) = hands.recent_containers(true).await?;
        let gone = others.extract_if(.., |(_, record)| !is_among(&containers, &record.container));
        let gone: Vec<&(String, Record)> = gone.collect();
        let Some(store) = self.store.as_ref().filter(|_| !self.adopt) else {
            return remove(&gone, hands).await;
        };
        let another = |record: &Record| record.store.as_ref().is_some_and(|other| other != store);
        let other = others.iter().find(|(_, record)| another(record) && !self.accepts_record(record));
        let Some((_, record)) = other else { return remove(&gone, hands).await };
        let theirs = record.store.as_deref().unwrap_or_default();
        Err(Failure::new(format!(
            "the address of container {} comes from address book {store}, and this host has {} of container {} on the same \
             network from address book {theirs}",
            self.container, record.address, record.container
        ))
        .hint("two books can give the same address: `fanli ip adopt` makes one of them, from what the hosts show"))
    }
}

/// Takes away what is left of containers that are gone: the interface that something keeps, the host's route, the record.
async fn remove(gone: &[&(String, Record)], hands: &Actuator) -> Result<(), Failure> {
    for (name, old) in gone {
        let attach = Attach::from_args(old.args.clone()).ok().filter(|attach| attach.check().is_ok());
        if let Some(attach) = attach.filter(|attach| !attach.by_docker()) {
            let left = attach.look_for_left(hands).await?;
            let host = hands.netlink_hands(None)?;
            let done = attach.remove_left(&left, &host, hands).await;
            host.close().await;
            done?;
        }
        record::remove(name, hands)?;
        hands.progress(&format!("forgot {} of container {}, which is gone", old.address, old.container), None);
    }
    Ok(())
}

impl Attach {
    /// What is left on the host of a container that is gone.
    async fn look_for_left(&self, probe: &Probe) -> Result<View, Failure> {
        let mut view = View::default();
        self.look_at_host(probe, &mut view).await?;
        view.given_away = self.given_away(probe).await?;
        view.old = self.look_for_old(&view, probe).await?;
        Ok(view)
    }

    /// Takes it away: the interface that something keeps, and the host's route.
    pub(super) async fn remove_left(&self, left: &View, host: &NetlinkHands, hands: &Actuator) -> Result<(), Failure> {
        self.remove_old(left, host, hands).await?;
        match self.own_shim_route(left) {
            Some(route) => host.remove_route(route).await,
            None => Ok(()),
        }
    }
}
