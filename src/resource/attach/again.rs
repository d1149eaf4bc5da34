//! What is plugged into a container, remembered while another container stands in its place.

use serde::{Deserialize, Serialize};

use super::record::{Record, records};
use super::{Attach, AttachState};
use crate::change::between;
use crate::failure::Failure;
use crate::resource::{Declared as _, Resource as _};
use crate::system::{Actuator, Probe};

/// The attachments that a container had: those of its successor may be others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::resource) struct Earlier(Vec<Record>);

impl Earlier {
    /// Returns what this host remembers of a container now.
    pub(in crate::resource) fn of(container: &str, probe: &Probe) -> Result<Self, Failure> {
        let own = |(_, record): &&(String, Record)| record.container == container;
        Ok(Self(records(probe)?.iter().filter(own).map(|(_, record)| record.clone()).collect()))
    }

    /// Plugs them in again, once the container runs. What its successor had instead goes.
    pub(in crate::resource) async fn plug(&self, container: &str, hands: &Actuator) -> Result<(), Failure> {
        let Self(now) = Self::of(container, hands)?;
        for record in now.iter().filter(|record| !self.0.contains(record)) {
            bring_about(&Attach { state: AttachState::Absent, ..declared(record)? }, hands).await?;
        }
        for record in &self.0 {
            bring_about(&declared(record)?, hands).await?;
        }
        Ok(())
    }
}

fn declared(record: &Record) -> Result<Attach, Failure> {
    Attach::from_args(record.args.clone()).map_err(|errors| {
        let wrong: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(format!(
            "the record of container {} on {} does not fit this fanli",
            record.container, record.network
        ))
        .because(wrong.join(", "))
    })
}

async fn bring_about(attach: &Attach, hands: &Actuator) -> Result<(), Failure> {
    let seen = attach.observe(hands).await?;
    match between(&attach.desired(), &seen.state) {
        Some(change) => attach.apply(&change, hands).await.map(drop),
        None => Ok(()),
    }
}
