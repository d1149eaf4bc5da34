//! `backend`: one server of a load balancer, in or out of traffic.

mod haproxy;
mod nginx;
mod out;
mod programs;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::param::HostPath;
use super::super::{ArgError, Observed, Param as _, Resource};
use crate::change::{Change, Datum, Fields, State};
use crate::failure::{Failure, FailureKind};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};
use haproxy::HaProxy;
use nginx::Nginx;
pub use out::{LeftOut, OUT_HELP, OutSeen};
use programs::Programs;

crate::choice! {
    /// Where a server stands.
    pub enum Wanted {
        /// In traffic, and found well.
        Ready = "ready",
        /// Out of traffic, and nothing is under way.
        Drained = "drained",
    }
}

crate::choice! {
    /// What happens when a server is not empty in time.
    pub enum AtLimit {
        /// The task fails, and the server stays as it is: without new requests.
        Fail = "fail",
        /// What is still under way is cut off.
        Cut = "cut",
    }
}

crate::choice! {
    /// What becomes of clients that are bound to a server.
    pub enum Bound {
        /// They still come to it.
        Stay = "stay",
        /// They are sent to others.
        Move = "move",
    }
}

crate::kind! {
    /// Takes one server of a load balancer out of traffic, or back into it. A task of the balancer's host.
    ///
    /// `drained` lets everything under way come to its end first, and waits for it; `ready` waits until the balancer itself finds the
    /// server well. Give one of `haproxy`, `nginx` and `command`. A reload of nginx closes idle connections of its clients, and a
    /// request that crosses with that is lost unless the client sends it again. More in docs/rollout-balancer.md.
    ///
    /// A server that somebody has put into maintenance counts as drained when it is empty, and is not taken out of it.
    pub struct Backend = "backend" {
        /// The server's name in its pool.
        name: String,
        /// The pool: a `backend` section of HAProxy, an `upstream` block of nginx.
        pool: Option<String>,
        /// Where it should stand.
        state: Wanted,
        /// HAProxy's runtime socket, of the level admin.
        haproxy: Option<HostPath>,
        /// The file with nginx's upstream blocks; a server's line gets the word `down`.
        nginx: Option<HostPath>,
        /// Programs for another balancer: `{ drain = ["…"]  ready = ["…"]  check = ["…"] }`. The last only looks, and says `ready` or
        /// `drained`, or in its own words what else is so.
        command: Option<Map>,
        /// How long it may take: limits `drain` and `ready`.
        within: Duration = Duration::from_secs(30),
        /// What happens when the server is not empty by then.
        at_limit: AtLimit = AtLimit::Fail,
        /// Clients that a cookie or a stick table of HAProxy's binds to the server: `stay` lets them still come to it while it drains,
        /// `move` sends them to others. Then fanli uses HAProxy's maintenance itself, and takes anybody's for its own.
        bound: Bound = Bound::Stay,
        /// Whether it may be drained when no other server of its pool is in traffic.
        even_last: bool = false,
        /// Whether `ready` takes it out of a maintenance that somebody has put it into.
        adopt: bool = false,
        /// Whether HAProxy is told `ready` also when it does not find the server well in time: it lets it in when it does. The task fails
        /// all the same. A rollout says so of nodes that it has put back.
        in_any_case: bool = false,
        /// The rollout that takes it out, by its title: the host remembers that until the server is back, and `fanli status` tells it.
        rollout: Option<String>,
        /// How nginx tests its configuration: `["nginx", "-t"]` when not given.
        test: Option<Vec<String>>,
        /// How nginx reads it again: `["nginx", "-s", "reload"]` when not given.
        reload: Option<Vec<String>>,
        /// Where nginx writes its process number: `/run/nginx.pid` when not given.
        pid_file: Option<HostPath>,
        /// The container that nginx runs in, instead of a `pid_file`.
        container: Option<String>,
    }
    results {
        "state": "where it stands: ready, drained, draining (3 sessions), maint, down (…), in words",
        "sessions": "what it has under way; null when nobody can tell",
        "sick": "whether the balancer finds it unwell",
    }
    example r#"# presumes HAProxy with the pool "web" and its server "web08010"
backend "web08010" {
  haproxy = "/run/haproxy/admin.sock"
  pool    = "web"
  state   = drained
  within  = 2m
}"#
}

/// What a balancer shows of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Which of the two wanted states it is in, or another in words.
    stands: String,
    /// The same for people: a server in maintenance counts as drained, yet they should know.
    shown: String,
    sessions: Option<u64>,
    sick: bool,
    /// Whether it gets nothing new because fanli, or a person in its way, has said so.
    out: bool,
}

impl Seen {
    fn words(stands: impl Into<String>) -> Self {
        let stands = stands.into();
        Self { shown: stands.clone(), stands, sessions: None, sick: false, out: false }
    }
}

/// A balancer's way to do it.
enum Way<'a> {
    HaProxy(HaProxy<'a>),
    Nginx(Nginx<'a>),
    Programs(Programs),
}

/// A limit of time that is being used up.
#[derive(Clone, Copy)]
struct Limit {
    name: &'static str,
    whole: Duration,
    until: Instant,
}

/// The field that tells of a note of a server that is back already.
const NOTE: &str = "note";

/// How often a balancer is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(50);

impl Limit {
    fn new(name: &'static str, whole: Duration) -> Self {
        Self { name, whole, until: Instant::now() + whole }
    }

    /// A moment, or the failure that it is over.
    async fn wait(self) -> Result<(), Failure> {
        if Instant::now() >= self.until {
            return Err(Failure::timeout(self.name, self.whole));
        }
        sleep(LOOK.min(self.until.saturating_duration_since(Instant::now()))).await;
        Ok(())
    }
}

/// Whether a failure is one of a limit that ran out.
fn over(failure: &Failure) -> bool {
    failure.kind == FailureKind::Timeout
}

/// How many names a failure lists.
const SHOWN: usize = 20;

/// A name that is none, with the nearest that is one.
fn unknown(what: &str, wrong: &str, place: &str, known: &[&str]) -> Failure {
    let failure = Failure::new(format!("there is no {what} `{wrong}` {place}"));
    if known.is_empty() {
        return failure.because("there is none at all");
    }
    let failure = match crate::diagnostic::nearest(wrong, known.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    };
    let more = known.len().saturating_sub(SHOWN);
    let shown = known.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    failure.because(if more > 0 { format!("there are {shown} and {more} more") } else { format!("there are {shown}") })
}

impl Backend {
    fn way(&self) -> Result<Way<'_>, ArgError> {
        let given = [self.haproxy.is_some(), self.nginx.is_some(), self.command.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err(ArgError::new("haproxy", "needs one of `haproxy`, `nginx` and `command`, and no second"));
        }
        if let Some(command) = &self.command {
            return Ok(Way::Programs(Programs::read(command)?));
        }
        let pool = self.pool.as_deref().ok_or_else(|| ArgError::new("pool", "is required with a balancer's own"))?;
        Ok(match (&self.haproxy, &self.nginx) {
            (_, Some(file)) => Way::Nginx(Nginx { backend: self, file: &file.0, pool }),
            (socket, None) => {
                let socket = socket.as_ref().map_or("", |socket| socket.0.as_str());
                Way::HaProxy(HaProxy { backend: self, socket, pool })
            }
        })
    }

    /// `web/web08010`.
    fn shown(&self) -> String {
        self.pool.as_ref().map_or_else(|| self.name.clone(), |pool| format!("{pool}/{}", self.name))
    }

    fn limit(&self) -> Limit {
        Limit::new(if self.state == Wanted::Ready { "ready" } else { "drain" }, self.within)
    }

    async fn look(&self, probe: &Probe) -> Result<Seen, Failure> {
        match self.way()? {
            Way::HaProxy(way) => way.look(probe).await,
            Way::Nginx(way) => way.look(probe).await,
            Way::Programs(way) => way.look(probe).await,
        }
    }
}

impl Resource for Backend {
    fn check(&self) -> Result<(), ArgError> {
        let word = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
            !text.is_empty() && text.chars().all(plain)
        };
        for (field, text) in [("name", Some(&self.name)), ("pool", self.pool.as_ref())] {
            if let Some(text) = text.filter(|text| !word(text)) {
                return Err(ArgError::new(field, format!("`{text}` is not a name that a balancer could have")));
            }
        }
        if self.within.is_zero() {
            return Err(ArgError::new("within", "must be longer than nothing: `within = 30s`"));
        }
        if let Some(rollout) = &self.rollout {
            super::check_rollout(rollout)?;
        }
        let way = self.way()?;
        let only = |field, given: bool, fits: bool, of: &str| {
            if given && !fits { Err(ArgError::new(field, format!("is for {of}"))) } else { Ok(()) }
        };
        let (nginx, haproxy) = (matches!(way, Way::Nginx(_)), matches!(way, Way::HaProxy(_)));
        only("test", self.test.is_some(), nginx, "`nginx`")?;
        only("reload", self.reload.is_some(), nginx, "`nginx`")?;
        only("pid_file", self.pid_file.is_some(), nginx, "`nginx`")?;
        only("container", self.container.is_some(), nginx, "`nginx`")?;
        only("adopt", self.adopt, haproxy, "`haproxy`")?;
        only("bound", self.bound == Bound::Move, haproxy, "`haproxy`")?;
        only("even_last", self.even_last, nginx || haproxy, "`haproxy` and `nginx`")?;
        only("rollout", self.rollout.is_some(), self.state == Wanted::Drained, "`state = drained`")?;
        only("at_limit", self.at_limit == AtLimit::Cut, nginx || haproxy, "`haproxy` and `nginx`")?;
        if self.pid_file.is_some() && self.container.is_some() {
            return Err(ArgError::new("pid_file", "means nothing beside `container`"));
        }
        for (field, argv) in [("test", &self.test), ("reload", &self.reload)] {
            argv.as_ref().map_or(Ok(()), |argv| super::super::action::check_argv(field, argv))?;
        }
        Ok(())
    }

    fn desired(&self) -> State {
        State::present([("state", Datum::from(self.state.show())), (NOTE, Datum::Absent)])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let seen = self.look(probe).await?;
        let sessions = seen.sessions.and_then(|count| i64::try_from(count).ok()).map_or(Value::Null, Value::Int);
        // A server in maintenance is as good as drained, but it is not on its way back.
        let stands = if self.state == Wanted::Ready { seen.shown.clone() } else { seen.stands };
        let output = Map::from([
            ("state".to_owned(), Value::from(seen.shown)),
            ("sessions".to_owned(), sessions),
            ("sick".to_owned(), Value::Bool(seen.sick)),
        ]);
        let mut fields = Fields::from([("state".to_owned(), Datum::from(stands.as_str()))]);
        // What a run wrote that was killed just before it could remove that.
        if self.state == Wanted::Ready && stands == self.state.show() && self.is_remembered(probe)? {
            fields.insert(NOTE.to_owned(), Datum::from("left by a run that was broken off"));
        }
        Ok(Observed { state: State::Present(fields), output })
    }

    async fn apply(&self, _: &Change, hands: &Actuator) -> Result<Map, Failure> {
        if self.state == Wanted::Drained {
            self.remember(hands)?;
        }
        match (self.way()?, self.state) {
            (Way::HaProxy(way), Wanted::Drained) => way.drain(hands).await?,
            (Way::HaProxy(way), Wanted::Ready) => way.ready(hands).await?,
            (Way::Nginx(way), Wanted::Drained) => way.drain(hands).await?,
            (Way::Nginx(way), Wanted::Ready) => way.ready(hands).await?,
            (Way::Programs(way), wanted) => way.bring(wanted, self.limit(), hands).await?,
        }
        if self.state == Wanted::Ready {
            self.forget(hands)?;
        }
        Ok(Map::new())
    }
}
