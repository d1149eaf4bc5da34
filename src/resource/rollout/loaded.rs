//! `loaded`: waits until a server works with a generation of its configuration, and with nothing older.
//!
//! A file that holds the generation says what is on the disk, not what a process has read: only what is answered from the loaded
//! configuration does (research/rollout-and-logs.md, M8). So disk, process and plan must say the same, and the workers that
//! were there before `current` was turned must be gone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::param::HostPath;
use super::super::patience::Patience;
use super::super::{ArgError, Nature, Observed, Resource};
use super::Record;
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::system::fs::{CURRENT, EntryKind, GENERATIONS};
use crate::system::http::{Request, check_header, check_url};
use crate::system::workers::{Process, workers};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// How much of a wrong answer a failure shows, in signs.
const SHOWN: usize = 60;

/// How many old workers a failure names.
const NAMED: usize = 8;

crate::choice! {
    /// What is asked of the workers that were there before.
    pub enum OldWorkers {
        /// They are gone.
        Gone = "gone",
        /// They may finish in their own time.
        Any = "any",
    }
}

crate::kind! {
    /// Waits until a server has loaded a generation of its configuration. A task of the node's host.
    ///
    /// The server itself is asked: the generation must stand in the configuration that it has loaded, as the body of a page or in a
    /// header (`{{ generation }}`; how for Apache, nginx and HAProxy is in docs/rollout-balancer.md). With `slot`, the link
    /// `current` in it must name that generation too, and no worker may be left that is older than the link. Workers are the
    /// processes of the program that listens on the URL's port: leaves of its tree, so not Apache's parent, and not a logger.
    pub struct Loaded = "loaded" {
        /// What it is called in reports: the node's name.
        name: String,
        /// Where the server tells its generation.
        url: String,
        /// The generation that it should tell.
        generation: String,
        /// The header that tells it; the body when not given.
        header: Option<String>,
        /// The host name that the server is asked for, when it is not the URL's.
        host: Option<String>,
        /// Whether the server's certificate must be one that the host trusts.
        verify: bool = true,
        /// The slot that the server reads its configuration from.
        slot: Option<HostPath>,
        /// The container that the server runs in; this host itself when not given.
        container: Option<String>,
        /// The port that the server listens on, when it is not the URL's.
        port: Option<i64>,
        /// Whether workers of the time before may be left. Needs `slot`.
        old_workers: OldWorkers = OldWorkers::Gone,
        /// How long to wait.
        within: Duration = Duration::from_secs(30),
        /// The longest pause between two tries: after ones that fail it begins at 50 ms and doubles.
        every: Duration = Duration::from_millis(200),
        /// How long one answer may take.
        request_timeout: Duration = Duration::from_secs(5),
    }
    results {
        "generation": "what the server told",
        "workers": "how many workers it has; null when they were not looked at",
    }
    example r#"# presumes a server that tells the generation of its configuration
loaded "web08010" {
  url        = "http://10.88.8.10/generation"
  generation = "3f2a9c01b7de"
  container  = "web08010"
  slot       = "/srv/slots/a"
  within     = 30s
}"#
}

impl Loaded {
    fn patience(&self) -> Patience {
        Patience { within: self.within, every: self.every, times: 1 }
    }

    fn looks_at_workers(&self) -> bool {
        self.slot.is_some() && self.old_workers == OldWorkers::Gone
    }

    fn listens_on(&self) -> Result<u16, ArgError> {
        let port = match self.port {
            Some(port) => u16::try_from(port).ok(),
            None => url_port(&self.url),
        };
        port.filter(|port| *port > 0).ok_or_else(|| ArgError::new("port", "is a number from 1 to 65535"))
    }

    /// One look at all three.
    async fn proof(&self, probe: &Probe) -> Result<Map, Failure> {
        // The disk first: a process cannot have loaded what is not there, and its answer would be of another time.
        let turned = self.slot.as_ref().map(|slot| self.turned(&slot.0, probe)).transpose()?;
        let told = self.told(probe).await?;
        let workers = match turned {
            Some(turned) if self.looks_at_workers() => Some(self.workers(turned, probe).await?),
            _ => None,
        };
        let number = workers.and_then(|number| i64::try_from(number).ok()).map_or(Value::Null, Value::Int);
        Ok(Map::from([("generation".to_owned(), Value::Str(told)), ("workers".to_owned(), number)]))
    }

    /// When the slot was turned to the generation, since 1970 as the clock stands now.
    fn turned(&self, slot: &str, probe: &Probe) -> Result<Duration, Failure> {
        let path = format!("{slot}/{CURRENT}");
        let Some(entry) = probe.stat(&path)? else { return Err(Failure::new(format!("there is no {path}"))) };
        let EntryKind::Link(to) = &entry.kind else {
            return Err(Failure::new(format!("{path} is {}, not a link", entry.kind.show())));
        };
        let to = to.to_string_lossy();
        let on_disk = to.strip_prefix(GENERATIONS).and_then(|id| id.strip_prefix('/')).unwrap_or(&to);
        if on_disk == self.generation {
            // The clock of files may have been set since then: what the host remembers of the switch goes by another one.
            let record = Record::read(probe, slot)?;
            let turned = record.as_ref().and_then(|record| record.turned_to(on_disk));
            let ago = turned.map(|turned| probe.moment().map(|now| turned.ago(&now))).transpose()?.flatten();
            let by_record = ago.and_then(|ago| SystemTime::now().duration_since(UNIX_EPOCH).ok()?.checked_sub(ago));
            return Ok(by_record.unwrap_or_else(|| entry.changed()));
        }
        Err(Failure::new(format!("{path} names generation {}, not {}", shown(on_disk), self.generation)))
    }

    /// The generation that the process tells, which is the right one.
    async fn told(&self, probe: &Probe) -> Result<String, Failure> {
        let request = Request {
            headers: self.host.iter().map(|host| ("host".to_owned(), host.clone())).collect(),
            verify: self.verify,
            ..Request::get(&self.url, self.request_timeout.min(self.within))
        };
        let answer = probe.http(&request).await?;
        let told = match &self.header {
            Some(name) => {
                let value = answer.header(name).map(str::trim).map(str::to_owned);
                value.ok_or_else(|| {
                    Failure::new(format!("the answer (status {}) has no header `{name}`", answer.status))
                })?
            }
            None if answer.status != 200 => {
                return Err(Failure::new(format!("status {}, and no generation", answer.status)));
            }
            None => String::from_utf8_lossy(&answer.body).trim().to_owned(),
        };
        if told == self.generation {
            return Ok(told);
        }
        Err(Failure::new(format!(
            "{} still answers with generation {}, not {}",
            self.url,
            shown(&told),
            self.generation
        )))
    }

    /// How many workers there are, all of them younger than that moment.
    async fn workers(&self, turned: Duration, probe: &Probe) -> Result<usize, Failure> {
        let inside = match &self.container {
            None => None,
            Some(name) => {
                let found = probe.docker()?.container(name).await?;
                let found = found.ok_or_else(|| Failure::new(format!("there is no container {name}")))?;
                Some(found.pid.ok_or_else(|| Failure::new(format!("container {name} is {}", found.status)))?)
            }
        };
        let port = self.listens_on()?;
        let all = probe.processes(inside);
        let listeners = probe.listeners(inside, port, &all)?;
        if listeners.is_empty() {
            let place =
                self.container.as_ref().map_or_else(|| "this host".to_owned(), |name| format!("container {name}"));
            return Err(Failure::new(format!("no process of {place} listens on port {port}")).because(
                "name the server's own `port` and its `container`, or look at no workers: `old_workers = any`",
            ));
        }
        let workers = workers(&all, &listeners);
        let leaving = probe.leaving(&workers);
        let old = workers.iter().filter(|worker| !worker.started_after(turned) || leaving.contains(worker));
        let old: Vec<&Process> = old.collect();
        if old.is_empty() { Ok(workers.len()) } else { Err(left(&old, turned)) }
    }
}

/// The old workers, in one line.
fn left(old: &[&Process], turned: Duration) -> Failure {
    let named = old.iter().take(NAMED).map(|worker| {
        let age = match turned.checked_sub(worker.started) {
            Some(before) => format!("started {}s before", before.as_secs()),
            None => "on its way out".to_owned(),
        };
        format!("{} ({}, {age})", worker.pid, worker.name)
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if old.len() > NAMED { format!(" and {} more", old.len() - NAMED) } else { String::new() };
    let (are, plural) = if old.len() == 1 { ("is", "") } else { ("are", "s") };
    Failure::new(format!("{} worker{plural} {are} left that cannot have read it: process {named}{more}", old.len()))
}

/// Somebody else's text, short and in one line.
fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(SHOWN).collect();
    let more = if cut.len() < line.len() { "…" } else { "" };
    if cut.is_empty() { "(none)".to_owned() } else { format!("`{}{more}`", crate::visible::visible(&cut)) }
}

/// The port of a URL that `check_url` let through.
fn url_port(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => port.parse().ok(),
        _ => Some(if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 }),
    }
}

impl Resource for Loaded {
    fn check(&self) -> Result<(), ArgError> {
        check_url(&self.url).map_err(|message| ArgError::new("url", message))?;
        if self.generation.is_empty() || !self.generation.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ArgError::new("generation", format!("`{}` is not letters and digits alone", self.generation)));
        }
        for (field, name, value) in
            [("header", self.header.as_deref(), ""), ("host", Some("host"), self.host.as_deref().unwrap_or(""))]
        {
            if let Some(name) = name {
                check_header(name, value).map_err(|message| ArgError::new(field, message))?;
            }
        }
        if self.request_timeout.is_zero() {
            return Err(ArgError::new("request_timeout", "must be longer than nothing: `request_timeout = 5s`"));
        }
        if self.looks_at_workers() {
            self.listens_on()?;
        }
        self.patience().check()
    }

    fn nature(&self) -> Nature {
        Nature::Wait
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let output = self.patience().until(probe, || self.proof(probe)).await;
        let output = output.map_err(|failure| {
            let failure = failure.within(format!("{} has not loaded generation {}", self.name, self.generation));
            failure.fact("url", &self.url)
        })?;
        Ok(Observed { state: self.desired(), output })
    }

    async fn apply(&self, _: &Change, _: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}

#[cfg(test)]
mod tests {
    use super::{shown, url_port};

    #[test]
    fn ports_of_urls() {
        for (url, port) in [
            ("http://10.0.0.1/x:9", Some(80)),
            ("https://web/", Some(443)),
            ("http://web:8080?a", Some(8080)),
            ("http://[fd00::1]/", Some(80)),
            ("http://[fd00::1]:81/", Some(81)),
            ("http://web:99999/", None),
        ] {
            assert_eq!(url_port(url), port, "{url}");
        }
    }

    #[test]
    fn what_was_answered_is_shown_in_one_short_line() {
        assert_eq!(shown("a\n b"), "`a b`");
        assert_eq!(shown(" "), "(none)");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 63);
    }
}
