//! What the refreshers in a host's containers say of their configuration (`fanli refresh`): whether what stands on the disk is loaded.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::system::Probe;
use crate::system::docker::{Docker, SPEC_LABEL};
use crate::visible::visible;

/// Where a refresher leaves its state in its container, unless it is said otherwise.
pub const FILE: &str = "/run/fanli/refresh.json";

/// The longest state that is read out of a container, in bytes, and the longest text of it that is passed on, in characters.
const MOST_STATE: u64 = 1 << 20;
const MOST_TEXT: usize = 1000;

/// The refreshers of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshers {
    /// One for each running container of fanli's in which a refresher has left its state.
    pub seen: Vec<RefresherSeen>,
    /// Why containers could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefresherSeen {
    /// The container.
    pub container: String,
    /// The directory that it looks after.
    pub directory: String,
    /// Whether its program has what stands there.
    pub loaded: bool,
    /// What is wrong: why the program does not have it. Nothing also where it is to have it in a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Since when: seconds since 1970; 0 when that is not known.
    pub since: u64,
}

/// What of the state matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Left {
    directory: String,
    wanted: Option<serde_json::Value>,
    loaded: Option<serde_json::Value>,
    error: Option<String>,
    error_since: u64,
}

impl Refreshers {
    /// Looks at this host.
    pub async fn look(probe: &Probe) -> Self {
        match Self::found(probe).await {
            Ok(seen) => Self { seen, unseen: None },
            Err(failure) => Self { seen: Vec::new(), unseen: Some(failure.to_string()) },
        }
    }

    async fn found(probe: &Probe) -> Result<Vec<RefresherSeen>, Failure> {
        let Some(docker) = probe.docker_if_there()? else { return Ok(Vec::new()) };
        let mut seen = Vec::new();
        for name in docker.running_with(SPEC_LABEL).await? {
            match state(probe, &docker, &name).await {
                Ok(Some(left)) => seen.push(RefresherSeen::of(name, &left)),
                Ok(None) => {}
                Err(failure) => seen.push(RefresherSeen {
                    container: name,
                    directory: String::new(),
                    loaded: false,
                    trouble: Some(short(&failure.to_string())),
                    since: 0,
                }),
            }
        }
        seen.sort_by(|left, right| left.container.cmp(&right.container));
        Ok(seen)
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.unseen.is_none()
    }

    /// Whether a program does not have what stands on the disk, and will not have it in a moment.
    pub fn is_wrong(&self) -> bool {
        self.seen.iter().any(|one| one.trouble.is_some())
    }
}

impl RefresherSeen {
    fn of(container: String, left: &Left) -> Self {
        Self {
            container,
            directory: short(&left.directory),
            loaded: left.wanted.is_some() && left.wanted == left.loaded,
            trouble: left.error.as_deref().map(short),
            since: left.error_since,
        }
    }
}

/// What a refresher left in a container; `None` when there is none, or the container has ended meanwhile.
async fn state(probe: &Probe, docker: &Docker, name: &str) -> Result<Option<Left>, Failure> {
    let Some(found) = docker.container(name).await?.filter(|found| found.pid.is_some()) else { return Ok(None) };
    let root = probe.container_root(docker, &found).await?;
    let Some(bytes) = root.read(Path::new(FILE), MOST_STATE)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| Failure::new(format!("{FILE} is not the state of a refresher")).because(error))
}

/// Text of a container in one line, with nothing in it that a terminal would obey.
fn short(text: &str) -> String {
    visible(&text.chars().take(MOST_TEXT).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_wrong() {
        for (text, loaded, trouble) in [
            (r#"{"directory":"/c","wanted":{"digest":"a"},"loaded":{"digest":"a"}}"#, true, None),
            (r#"{"wanted":{"digest":"b"},"loaded":{"digest":"a"}}"#, false, None),
            (r#"{"wanted":{"digest":"b"},"loaded":{"digest":"a"},"error":"no\u001b"}"#, false, Some("no\\u{1b}")),
            ("{}", false, None),
        ] {
            let seen = RefresherSeen::of("web1".to_owned(), &serde_json::from_str(text).unwrap());
            assert_eq!((seen.loaded, seen.trouble.as_deref()), (loaded, trouble), "{text}");
            assert_eq!(Refreshers { seen: vec![seen], unseen: None }.is_wrong(), trouble.is_some());
        }
    }
}
