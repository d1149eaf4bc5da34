//! Configuration as a transaction on one host: slots, their generations, what the host remembers of each; how it is tried, loaded,
//! and shown to be; how a balancer takes a node out and back in.
//!
//! A slot is a directory that nodes mount; [`fs::slots`](crate::system::fs) is the door to it. `slot` puts a generation beside the
//! others, `switch` turns the slot to it, `confirm` says that it is to stay, `revert` brings back what was there before. What the
//! host remembers of a slot stands in a [`Record`]; the watcher reverts what was not confirmed in time ([`Overdue`]). `former` is all
//! of that for containers that a rollout makes anew.

mod backend;
mod confirm;
mod former;
mod halt;
mod loaded;
mod overdue;
mod program;
mod record;
mod reload;
mod revert;
mod settle;
mod slot;
mod slots;
mod standing;
mod supervised;
mod switch;
mod trial;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use backend::{Backend, LeftOut, OUT_HELP, OutSeen};
pub use confirm::Confirm;
pub use former::{ChangePhase, Former, FormerRecord, NamedFormer, former_records};
pub use halt::{Halt, HaltMark, halted};
pub use loaded::Loaded;
pub use overdue::{Overdue, Owed};
pub use program::Program;
pub use record::{Deadline, Kept, NamedRecord, Phase, Record, RevertStep, all_records};
pub use reload::Reload;
pub use revert::Revert;
pub use settle::{Settle, read_served};
pub use slot::{MOST_FILE, MOST_FILES, MOST_TOTAL, Slot};
pub use slots::{ContainerSeen, Rollouts, SlotSeen, Slots};
pub use standing::Standing;
pub use switch::Switch;
pub use trial::Trial;

use crate::failure::Failure;
use crate::resource::ArgError;
use crate::system::fs::{CURRENT, Lock, is_generation, lock};
use crate::system::uptime::Moment;
use crate::system::{Actuator, Probe};
use crate::value::Digest;

/// What a failure tells programs of a slot that is not switched because rollouts are halted on the host.
pub const HALTED: &str = "halted";

/// What fields say whose right value only the host knows.
const IN_PLACE: &str = "in place";

/// How long a change of a slot waits for another one (`slot_lock`): the watcher holds the lock for a swap, a run while it stages.
const SLOT_LOCK: Duration = Duration::from_secs(60);

/// Where the host keeps its records of slots, and the mark of a halt.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("rollout")
}

/// A file of a slot in that folder.
fn file_of(probe: &Probe, slot: &str, end: &str) -> PathBuf {
    folder(probe.state_dir()).join(format!("{}.{end}", Digest::of(slot.as_bytes()).short()))
}

fn make_folder(hands: &Actuator) -> Result<(), Failure> {
    hands.own_dirs([hands.state_dir(), &folder(hands.state_dir())])
}

/// Held while a slot, or its record, is changed: a run and the watcher never do so at the same time.
async fn one_at_a_time(hands: &Actuator, slot: &str) -> Result<Lock, Failure> {
    make_folder(hands)?;
    lock(file_of(hands, slot, "lock"), "another run or the watcher", SLOT_LOCK).await.map_err(|failure| {
        failure
            .within(format!("something else is changing the slot {slot}"))
            .because(Failure::timeout("slot_lock", SLOT_LOCK))
    })
}

/// The parameter `generation` of every kind here.
fn check_generation(id: &str) -> Result<(), ArgError> {
    if is_generation(id) {
        return Ok(());
    }
    Err(ArgError::new("generation", format!("`{id}` is not a generation's ID: twelve hex digits in lower case")))
}

/// The parameter `keep` of every kind here.
fn check_keep(keep: i64) -> Result<(), ArgError> {
    if (1..=1000).contains(&keep) { Ok(()) } else { Err(ArgError::new("keep", "is not between 1 and 1000")) }
}

/// The parameter `rollout` of every kind here.
fn check_rollout(title: &str) -> Result<(), ArgError> {
    let fits = !title.is_empty() && title.len() <= 200 && !title.contains(char::is_control);
    if fits { Ok(()) } else { Err(ArgError::new("rollout", "is not a title of one line, up to 200 bytes")) }
}

/// When the link of a slot was turned, which has only just been done: the kernel's note of it, by a clock that nobody sets.
fn just_turned(probe: &Probe, slot: &str) -> Result<Option<Moment>, Failure> {
    let Some(link) = probe.stat(Path::new(slot).join(CURRENT))? else { return Ok(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Some(probe.moment()?.before(now.saturating_sub(link.changed()))))
}

/// Seconds since 1970, for people to read; nothing is decided by it.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
