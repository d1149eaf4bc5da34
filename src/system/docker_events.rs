//! What the Docker daemon says about its containers while it lives.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error;
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures_util::{Stream, StreamExt};

use super::docker::{Docker, failure};
use crate::failure::Failure;

/// How far back a new stream begins. The stream is opened without a word from the daemon, so what happens until it really
/// listens is asked for again; hearing something twice does no harm.
const OVERLAP: Duration = Duration::from_secs(2);

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Its process was started.
    Started,
    /// Its process ended, or it is gone altogether.
    Ended,
    /// It has another name now.
    Renamed,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The container's name.
    pub name: String,
    /// What happened.
    pub happened: Happened,
}

/// Events for as long as the daemon lives.
pub type ContainerEvents = Pin<Box<dyn Stream<Item = Result<ContainerEvent, Failure>> + Send>>;

impl Docker {
    /// Starts, ends and renamings of containers. The stream ends with the daemon.
    pub fn container_events(&self) -> ContainerEvents {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filters = HashMap::from([
            ("type".to_owned(), words(&["container"])),
            ("event".to_owned(), words(&["start", "die", "destroy", "rename"])),
        ]);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(OVERLAP);
        let since = Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()));
        let stream = self.client.events(Some(EventsOptions { since, filters: Some(filters), until: None }));
        Box::pin(stream.filter_map(|item| async move {
            let message = match item {
                Ok(message) => message,
                // A word that this client does not know.
                Err(Error::JsonDataError { .. }) => return None,
                Err(error) => return Some(Err(failure("the Docker daemon's events have ended", &error))),
            };
            let happened = match message.action.as_deref()? {
                "start" => Happened::Started,
                "die" | "destroy" => Happened::Ended,
                "rename" => Happened::Renamed,
                _ => return None,
            };
            let name = message.actor?.attributes?.remove("name")?;
            Some(Ok(ContainerEvent { name: name.trim_start_matches('/').to_owned(), happened }))
        }))
    }

    /// The names of the containers that run.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn running(&self) -> Result<Vec<String>, Failure> {
        self.listed(ListContainersOptions::default()).await
    }
}
