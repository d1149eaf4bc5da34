//! What the host remembers of an attachment: everything that is needed to plug it again without a run.
//!
//! `STATE/attach/HASH.json` is written before the plug. The watcher reads it and runs the very same [`Attach`]; whose address it
//! is, and from which address book, stands beside the arguments, so that two books never give the same host an address in turn.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::look::{OLD, Others, View};
use super::segment::Segment;
use super::{Attach, AttachState, IN_PLACE, Probing};
use crate::change::{Change, Datum, State};
use crate::failure::{Context, Failure};
use crate::resource::{ArgError, Declared, Observed, Resource};
use crate::system::arp::{Asking, Heard};
use crate::system::fs::{Attrs, Lock, lock};
use crate::system::netlink::Mac;
use crate::system::{Actuator, Probe};
use crate::value::{Digest, Map};

/// How long a plug waits for another one of the same container (`plug lock`): the longest that one can take, with an old network that
/// it waits for.
const PLUG_LOCK: Duration = Duration::from_secs(60);

/// What was applied last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) container: String,
    pub(super) network: String,
    pub(super) parent: String,
    pub(super) address: IpAddr,
    #[serde(default)]
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) store: Option<String>,
    #[serde(default)]
    pub(super) revision: Option<i64>,
    /// The kind's arguments; those of fanli before the watcher have none.
    #[serde(default)]
    pub(super) args: Map,
}

impl Attach {
    pub(super) fn record_name(&self) -> String {
        format!("{}.json", Digest::of(self.owner().as_bytes()).short())
    }

    /// `None` without an address: then there is nothing to plug.
    fn record(&self) -> Option<Record> {
        let mut args = self.args();
        // Taking over is done once.
        args.remove("adopt");
        args.remove("accepts");
        Some(Record {
            container: self.container.clone(),
            network: self.network.clone(),
            parent: self.card(),
            address: self.address?,
            owner: self.owner.clone(),
            store: self.store.clone(),
            revision: self.revision,
            args,
        })
    }

    /// The record of this attachment.
    pub(super) fn recorded(&self, probe: &Probe) -> Result<Option<Record>, Failure> {
        read(probe, &self.record_name())
    }

    /// The field `record` of the state.
    pub(super) fn describe_record(&self, view: &View) -> Datum {
        match &view.record {
            None => Datum::Absent,
            record if *record == self.record() => IN_PLACE.into(),
            Some(record) if record.args.is_empty() => "of an older fanli".into(),
            Some(_) => "of an earlier declaration".into(),
        }
    }

    /// Refuses what another address book gave, or this one gave earlier, unless it is to be adopted.
    pub(super) fn refuse_older(&self, view: &View) -> Result<(), Failure> {
        let Some(record) = view.record.as_ref().filter(|_| !self.adopt && self.state == AttachState::Present) else {
            return Ok(());
        };
        let hint = "if this one is right, take the attachments over: `fanli ip adopt`, or `adopt = true` here for once";
        let said = |store: &Option<String>| {
            store.as_ref().map_or_else(|| "no address book".to_owned(), |store| format!("address book {store}"))
        };
        let address = self.address.map_or_else(|| "the interface".to_owned(), |address| address.to_string());
        let what = format!("{address} of container {}", self.container);
        if self.accepts_record(record) {
            return Ok(());
        }
        if record.store.is_some() && record.store != self.store {
            return Err(Failure::new(format!(
                "{what} comes from {}, and this host plugged {} from {}",
                said(&self.store),
                record.address,
                said(&record.store)
            ))
            .hint(hint));
        }
        match (self.revision, record.revision) {
            (Some(ours), Some(theirs)) if ours < theirs => Err(Failure::new(format!(
                "{what} is revision {ours} of {}, and this host plugged {} of revision {theirs} already",
                said(&self.store),
                record.address
            ))
            .hint(format!("run again with the book as it is now; {hint}"))),
            _ => Ok(()),
        }
    }

    /// The books before this one, each with the last revision of it that is taken over.
    pub(super) fn accepted(&self) -> Result<Vec<(&str, i64)>, ArgError> {
        let misfit = |text: &str| ArgError::new("accepts", format!("`{text}` is not NAME@REVISION of an address book"));
        let read = |text: &'_ str| -> Option<(usize, i64)> {
            let (store, revision) = text.rsplit_once('@')?;
            Some((store.len(), revision.parse().ok()?))
        };
        let mut found = Vec::new();
        for text in &self.accepts {
            let (length, revision) = read(text).ok_or_else(|| misfit(text))?;
            found.push((text.get(..length).unwrap_or_default(), revision));
        }
        Ok(found)
    }

    /// Whether it was plugged from a book that this one has taken over, as it was then.
    pub(super) fn accepts_record(&self, record: &Record) -> bool {
        let (Some(store), Some(revision)) = (&record.store, record.revision) else { return false };
        self.accepted().is_ok_and(|all| all.iter().any(|(name, last)| name == store && revision <= *last))
    }

    /// Writes down whose address this is before it is used.
    pub(super) fn remember(&self, hands: &Actuator) -> Result<(), Failure> {
        let Some(record) = self.record() else { return Ok(()) };
        // What is read back must be what was declared, or the watcher would plug something else.
        let again = Self::from_args(record.args.clone());
        let declared = format!("{:?}", Self { adopt: false, accepts: Vec::new(), ..self.clone() });
        if again.map_or(true, |again| format!("{again:?}") != declared) {
            return Err(
                Failure::new("the record of an attachment does not read back").hint("this is a defect of fanli")
            );
        }
        let text = serde_json::to_vec_pretty(&record).context("cannot write the record of an attachment")?;
        let path = folder(hands).join(self.record_name());
        if hands.read(&path, 64 << 10)?.as_ref() == Some(&text) {
            return Ok(());
        }
        make_folders(hands, "attach")?;
        hands.replace(&path, &text, Attrs::mode(0o600))
    }

    /// Takes the record away.
    pub(super) fn forget(&self, hands: &Actuator) -> Result<(), Failure> {
        remove(&self.record_name(), hands)
    }

    /// Held while something is plugged into the container: a play and the watcher never work on it at the same time.
    pub(super) async fn one_at_a_time(&self, probe: &Probe) -> Result<Lock, Failure> {
        let path = probe.state_dir().join("plugging").join(&self.container);
        lock(path, "another run or the watcher", PLUG_LOCK).await.map_err(|failure| {
            failure
                .within(format!("something else is plugging container {}", self.container))
                .because(Failure::timeout("plug lock", PLUG_LOCK))
        })
    }
}

fn folder(probe: &Probe) -> std::path::PathBuf {
    probe.state_dir().join("attach")
}

pub(super) fn make_folders(hands: &Actuator, name: &str) -> Result<(), Failure> {
    hands.own_dirs([hands.state_dir(), &hands.state_dir().join(name)])
}

/// Takes a record away.
pub(super) fn remove(name: &str, hands: &Actuator) -> Result<(), Failure> {
    let path = folder(hands).join(name);
    if hands.exists(&path)? { hands.remove_file(&path) } else { Ok(()) }
}

fn read(probe: &Probe, name: &str) -> Result<Option<Record>, Failure> {
    let path = folder(probe).join(name);
    let Some(text) = probe.read_small(&path)? else { return Ok(None) };
    serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged", path.display()))
        .map(Some)
        .map_err(|failure| failure.hint("remove it: it is written again"))
}

/// Every record of this host, by its name.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: Vec<(String, Record)>,
    by_address: HashMap<IpAddr, Vec<usize>>,
}

impl Records {
    /// Those that have an address: their names, and what they say.
    pub(super) fn of_address(&self, address: IpAddr) -> impl Iterator<Item = &(String, Record)> {
        self.by_address.get(&address).into_iter().flatten().filter_map(|place| self.all.get(*place))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, Record)> {
        self.all.iter()
    }
}

/// Every record of this host. They are replaced and never written in place.
pub(super) fn records(probe: &Probe) -> Result<Arc<Records>, Failure> {
    probe.of_folder(&folder(probe), || {
        let mut found = Records::default();
        for name in probe.record_names(folder(probe))? {
            let Some(record) = read(probe, &name)? else { continue };
            found.by_address.entry(record.address).or_default().push(found.all.len());
            found.all.push((name, record));
        }
        Ok(found)
    })
}

/// A record's name, and what it says.
pub type Named = (String, Result<Recorded, Failure>);

/// Every attachment that this host remembers, by the name of its record; each damaged one for itself.
///
/// # Errors
/// The folder of records cannot be read.
pub fn all_recorded(probe: &Probe) -> Result<Vec<Named>, Failure> {
    let mut found = Vec::new();
    for name in probe.record_names(folder(probe))? {
        let recorded = match read(probe, &name) {
            // It went away meanwhile.
            Ok(None) => continue,
            Ok(Some(record)) => Recorded::new(&name, record),
            Err(failure) => Err(failure),
        };
        found.push((name, recorded));
    }
    Ok(found)
}

/// An attachment as it was applied last: what the watcher keeps. It is [`Attach`] with the recorded arguments, and does nothing
/// once a run has declared something else: see [`Keeping`] and [`Parted`].
#[derive(Clone, Debug)]
pub struct Recorded {
    name: String,
    record: Record,
    attach: Attach,
}

impl PartialEq for Recorded {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.record) == (&other.name, &other.record)
    }
}

impl Recorded {
    fn new(name: &str, record: Record) -> Result<Self, Failure> {
        if record.args.is_empty() {
            return Err(Failure::new(format!(
                "the record of container {} on {} is of an older fanli",
                record.container, record.network
            ))
            .hint("run the playbook once: it is written anew"));
        }
        let attach = Attach::from_args(record.args.clone()).map_err(|errors| {
            let wrong: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::new(format!("the record of container {} does not fit this fanli", record.container))
                .because(wrong.join(", "))
                .hint("run the playbook once with this version: it is written anew")
        })?;
        attach.check().map_err(|error| Failure::new(format!("`{}`: {}", error.field, error.message)))?;
        Ok(Self { name: name.to_owned(), record, attach })
    }

    /// The arguments.
    pub fn attach(&self) -> &Attach {
        &self.attach
    }

    /// The address that it keeps.
    pub fn address(&self) -> IpAddr {
        self.record.address
    }

    /// The network card that it stands on.
    pub fn card(&self) -> &str {
        &self.record.parent
    }

    /// Whether the record says something else by now, or is gone.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn outdated(&self, probe: &Probe) -> Result<bool, Failure> {
        Ok(read(probe, &self.name)?.as_ref() != Some(&self.record))
    }

    /// Why the address still answers although its container does not run; `None` when it does not, or nobody can be asked.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn still_answers(&self, probe: &Probe) -> Result<Option<Failure>, Failure> {
        let Some((_, Heard::Owner(mac))) = self.glance(probe).await? else { return Ok(None) };
        match self.attach.wanted() {
            Ok(wanted) if mac == wanted.mac => {
                let address = self.record.address;
                let failure = Failure::new(format!("{address} still answers although its container does not run"));
                let named = self.attach.who_holds(failure.clone(), mac, None, probe).await;
                // Held by nobody here, it is a copy on another host: that is for `attach` to refuse.
                Ok((named != failure).then_some(named))
            }
            _ => Ok(None),
        }
    }

    /// Asks over the shim, which alone hears the macvlans of this host, who has the address: the shim's number, and what was
    /// heard within moments. `None` where there is no shim.
    async fn glance(&self, probe: &Probe) -> Result<Option<(u32, Heard)>, Failure> {
        let attach = &self.attach;
        let (Ok(wanted), Segment::Card) = (attach.wanted(), attach.segment()) else { return Ok(None) };
        let host = probe.host_network().await?;
        let shim = host.link(&attach.way()).filter(|link| link.up);
        let Some((index, mac)) = shim.and_then(|link| Some((link.index, Mac(link.mac?)))) else { return Ok(None) };
        let address = wanted.address.addr();
        let heard = probe.ask_arp(None, (index, mac), address, Some(wanted.mac), &Asking::GLANCE).await?;
        Ok(Some((index, heard)))
    }

    fn refuse_outdated(&self, probe: &Probe) -> Result<(), Failure> {
        if self.outdated(probe)? {
            return Err(Failure::new(format!("container {} was declared anew meanwhile", self.record.container)));
        }
        Ok(())
    }
}

/// One keeping of a recorded attachment: looked at and plugged under one lock, so that one look is enough before the plug.
#[derive(Debug)]
pub struct Keeping {
    recorded: Recorded,
    /// Whether its container has just been started: then its interface will be missing.
    started: bool,
    held: Mutex<Option<(Lock, Option<View>)>>,
}

impl Keeping {
    /// Nothing is locked before the first look; dropped, nothing is any more.
    pub fn new(recorded: Recorded, started: bool) -> Self {
        Self { recorded, started, held: Mutex::new(None) }
    }

    /// Of a container that was just started the network is asked while it is looked at: every millisecond counts.
    async fn look(&self, probe: &Probe) -> Result<View, Failure> {
        let attach = &self.recorded.attach;
        if !self.started || attach.probe == Probing::Off {
            return attach.look(probe, Others::Skip).await;
        }
        let (view, asked) = tokio::join!(attach.look(probe, Others::Skip), self.recorded.glance(probe));
        let mut view = view?;
        // What answers, and what could not be asked, is asked again before the plug, and told then.
        if let Ok(Some((shim, Heard::Silence))) = asked {
            view.silent_on = Some(shim);
        }
        Ok(view)
    }
}

impl Resource for Keeping {
    fn desired(&self) -> State {
        self.recorded.attach.desired()
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let attach = &self.recorded.attach;
        let mut held = self.held.lock().await;
        let lock = match held.take() {
            Some((lock, _)) => lock,
            None => attach.one_at_a_time(probe).await?,
        };
        self.recorded.refuse_outdated(probe)?;
        let view = self.look(probe).await?;
        let seen = attach.seen(&view);
        *held = Some((lock, Some(view)));
        seen
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let mut held = self.held.lock().await;
        let view = held.as_mut().and_then(|(_, view)| view.take());
        let view = view.ok_or_else(|| Failure::new("it was not looked at before"))?;
        Box::pin(self.recorded.attach.mend(view, hands)).await
    }
}

/// An attachment whose container does not run: the host's route to it leads nowhere and goes, and so does an interface in a network
/// that something else keeps.
#[derive(Clone, Debug)]
pub struct Parted {
    /// What was attached.
    pub recorded: Recorded,
    /// Whether its container has just ended: then Docker and the kernel are still at work on its network.
    pub just_ended: bool,
}

/// The host's route to a container, among the fields of [`Parted`].
pub const ROUTE: &str = "route";

impl Parted {
    /// What is left of it on the host, unless it runs: it may have been started again meanwhile.
    async fn left(&self, probe: &Probe) -> Result<View, Failure> {
        let attach = &self.recorded.attach;
        let mut view = View::default();
        let found = probe.docker()?.container(&attach.container).await?;
        if found.is_none_or(|found| found.pid.is_none()) {
            attach.look_at_host(probe, &mut view).await?;
            view.given_away = attach.given_away(probe).await?;
            if !self.just_ended {
                view.old = attach.look_for_old(&view, probe).await?;
            }
        }
        Ok(view)
    }
}

impl Resource for Parted {
    fn desired(&self) -> State {
        State::present([(ROUTE, Datum::Absent), (OLD, Datum::Absent)])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let left = self.left(probe).await?;
        let route = self.recorded.attach.own_shim_route(&left).map(|_| (ROUTE.to_owned(), IN_PLACE.into()));
        let old = left.old.as_ref().map(|old| (OLD.to_owned(), old.describe().into()));
        Ok(State::Present(route.into_iter().chain(old).collect()).into())
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        make_folders(hands, "plugging")?;
        let attach = &self.recorded.attach;
        let _lock = attach.one_at_a_time(hands).await?;
        self.recorded.refuse_outdated(hands)?;
        let left = self.left(hands).await?;
        let host = hands.netlink_hands(None)?;
        let done = attach.remove_left(&left, &host, hands).await;
        host.close().await;
        done.map(|()| Map::new())
    }
}
