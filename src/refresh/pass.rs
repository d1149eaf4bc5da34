//! One pass: look, compare, and act on the difference.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::act::{self, Healed};
use super::status::Status;
use super::tree::{Id, Tree};
use super::{MOST_SETTLE, Settings, clock, now, one_line};
use crate::failure::Failure;
use crate::system::file_events::FileEvents;
use crate::system::supervisor::Births;

/// How often in one pass something may have changed again, before others get their turn.
const MOST_TURNS: usize = 10;
/// The longest pause between two tries of the same.
const MOST_PAUSE: Duration = Duration::from_secs(600);
/// How often a program is asked whether somebody else had it reload.
const LOOK_WHETHER: Duration = Duration::from_millis(500);
/// How long a program that was started together with the refresher may take to answer what it has loaded: without that wait each
/// start of a container would be followed by a reload.
const STARTING: Duration = Duration::from_secs(5);
/// How many names of changed files a line of the log has.
const NAMES: usize = 5;

/// What was tried without success, and when it is tried again.
struct Refused {
    id: Id,
    again: Instant,
    pause: Duration,
}

/// A refresher at work.
pub(super) struct Refresher<Say> {
    settings: Settings,
    say: Say,
    status: Status,
    events: Option<FileEvents>,
    /// The tree as it was looked at last; its stamps spare reading.
    last: Option<Tree>,
    /// The tree that is loaded, where this refresher has seen it.
    good: Option<Tree>,
    refused: Option<Refused>,
    /// Whether another tree than the loaded one stood there since it was loaded: a program that restarts may have it.
    disturbed: bool,
    /// The tree whose change was told.
    told: Option<Id>,
    /// Until when a new generation is left to others.
    left_until: Option<(Id, Instant)>,
    /// Since when each look at a tree that is to be loaded has found another one.
    moving_since: Option<Instant>,
    written: Status,
}

impl<Say: FnMut(&str) + Send> Refresher<Say> {
    pub(super) fn new(settings: Settings, say: Say) -> Self {
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            directory: settings.directory.display().to_string(),
            ..Status::default()
        };
        Self {
            settings,
            say,
            status,
            events: None,
            last: None,
            good: None,
            refused: None,
            disturbed: false,
            told: None,
            left_until: None,
            moving_since: None,
            written: Status::default(),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn events(&mut self) -> Option<&mut FileEvents> {
        self.events.as_mut()
    }

    /// When something is due before the next look in full. Never at once: what is due and cannot be done must not spin.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let soon = Instant::now() + LOOK_WHETHER;
        let again = self.refused.as_ref().map(|refused| refused.again.max(soon));
        again.into_iter().chain(self.left_until.as_ref().map(|_| soon)).min()
    }

    /// A line of the log.
    pub(super) fn note(&mut self, text: &str) {
        (self.say)(&format!("{} UTC  {}", clock(), one_line(text)));
    }

    /// Tells what is wrong, once.
    fn trouble(&mut self, text: &str) {
        let text = one_line(text);
        if self.status.error.as_ref() != Some(&text) {
            self.note(&text);
            self.status.error = Some(text);
            self.status.error_since = now();
        }
    }

    /// What is known from before: what an earlier refresher has loaded into the same processes, or what the program itself says.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        let (version, pid) = (self.status.version.clone(), self.status.pid);
        self.note(&format!("fanli {version} looks after {} (process {pid})", self.settings.directory.display()));
        self.find_events();
        let old = Status::read(&self.settings.state).filter(|old| old.directory == self.status.directory);
        let births = act::births(&self.settings).await.unwrap_or_default();
        if let Some(old) = old
            && !births.is_empty()
            && old.births == births
            && old.loaded.is_some()
        {
            self.note("the program is the one that an earlier refresher has loaded");
            (self.status.loaded, self.status.since) = (old.loaded, old.since);
        } else if let Ok(tree) = Tree::look(&self.settings.directory, None)
            && act::proven_within(&self.settings, &tree.id, STARTING).await
        {
            self.note(&format!("the program answers that it has {}", tree.id.show()));
            let births = act::births(&self.settings).await.unwrap_or_default();
            self.loaded(&tree, births);
        }
        self.write()
    }

    /// Forgets what was read, so that the next look reads all contents; and tries for events again.
    pub(super) fn look_in_full(&mut self) {
        self.last = None;
        if self.events.is_none() {
            self.find_events();
        }
    }

    fn find_events(&mut self) {
        match FileEvents::new() {
            Ok(events) => {
                if self.status.watching.starts_with("polling") {
                    self.note("the kernel tells of changes again");
                }
                self.events = Some(events);
                "inotify".clone_into(&mut self.status.watching);
            }
            Err(failure) => self.lose_events(&failure.to_string()),
        }
    }

    pub(super) fn lose_events(&mut self, why: &str) {
        self.events = None;
        let watching = format!("polling: {}", one_line(why));
        if self.status.watching != watching {
            let poll = crate::value::show_duration(self.settings.poll);
            self.note(&format!("the kernel does not tell of changes: {why}; looking every {poll} instead"));
            self.status.watching = watching;
        }
    }

    /// Watches what the tree consists of. Whether something was new, and must be looked at again.
    fn rearm(&mut self, tree: &Tree) -> bool {
        match self.events.as_mut().map(|events| events.watch(&tree.dirs)) {
            None => false,
            Some(Ok(new)) => new,
            Some(Err(failure)) => {
                self.lose_events(&failure.to_string());
                false
            }
        }
    }

    fn look(&mut self) -> Option<Tree> {
        match Tree::look(&self.settings.directory, self.last.as_ref()) {
            Ok(tree) => {
                self.status.wanted = Some(tree.id.clone());
                self.last = Some(tree.clone());
                Some(tree)
            }
            Err(failure) => {
                self.status.wanted = None;
                self.trouble(&format!(
                    "the configuration cannot be looked at, and the program keeps its own: {failure}"
                ));
                None
            }
        }
    }

    /// Looks until nothing is left to do, or nothing can be done.
    pub(super) async fn pass(&mut self) -> Result<(), Failure> {
        for _ in 0..MOST_TURNS {
            let Some(tree) = self.look() else { break };
            if self.rearm(&tree) {
                continue;
            }
            if !self.turn(&tree).await? {
                break;
            }
        }
        self.write()
    }

    /// What one look leads to; whether to look again at once.
    async fn turn(&mut self, tree: &Tree) -> Result<bool, Failure> {
        if self.status.loaded.as_ref() == Some(&tree.id) {
            return Ok(self.as_loaded(tree).await);
        }
        self.disturbed = true;
        if self.refused.as_ref().is_some_and(|refused| refused.id == tree.id && Instant::now() < refused.again) {
            return Ok(false);
        }
        if self.told.as_ref() != Some(&tree.id) {
            // It may be in the middle of being written, where no events have told that it is quiet. With edits without end it never is:
            // then the time that `--validate` takes must be quiet, and no more.
            if !self.moves_for_long() {
                sleep(self.settings.settle).await;
                let Some(again) = self.look() else { return Ok(false) };
                if again.id != tree.id {
                    self.moving();
                    return Ok(true);
                }
            }
            self.tell_change(tree);
            // What is wanted is known from now on, however long it takes to load it.
            self.write()?;
        }
        if self.is_left_to_others(tree).await {
            return Ok(false);
        }
        Ok(self.load(tree).await)
    }

    /// Another tree was found than a moment ago.
    fn moving(&mut self) {
        self.moving_since.get_or_insert_with(Instant::now);
        if self.moves_for_long() {
            let most = crate::value::show_duration(MOST_SETTLE);
            self.trouble(&format!(
                "it has changed again and again for {most}: what is there is loaded once it stays as it is for as long as the \
                 commands that try it take"
            ));
        }
    }

    fn moves_for_long(&self) -> bool {
        self.moving_since.is_some_and(|since| since.elapsed() >= MOST_SETTLE)
    }

    fn tell_change(&mut self, tree: &Tree) {
        let names = self.good.as_ref().map(|good| tree.differing(good)).unwrap_or_default();
        let more = if names.len() > NAMES { format!(" and {} more", names.len() - NAMES) } else { String::new() };
        let names: Vec<String> = names.into_iter().take(NAMES).collect();
        let what = if names.is_empty() { String::new() } else { format!(": {}{more}", names.join(", ")) };
        let before = if self.status.loaded.is_some() { "changed to" } else { "what is loaded is not known; there is" };
        self.note(&format!("{before} {}{what}", tree.id.show()));
        self.told = Some(tree.id.clone());
        if self.refused.as_ref().is_some_and(|refused| refused.id != tree.id) {
            self.refused = None;
        }
    }

    /// A new generation may be loaded by whoever switched to it; the program itself says so.
    async fn is_left_to_others(&mut self, tree: &Tree) -> bool {
        let old = self.status.loaded.as_ref().and_then(|loaded| loaded.generation.as_ref());
        if self.settings.after.is_zero() || old.is_none() || tree.id.generation.as_ref() == old {
            return false;
        }
        if act::proven(&self.settings, &tree.id).await {
            self.note(&format!("{} was loaded by somebody else", tree.id.show()));
            let births = act::births(&self.settings).await.unwrap_or_default();
            self.loaded(tree, births);
            return true;
        }
        let now = Instant::now();
        let until = match &self.left_until {
            Some((id, until)) if *id == tree.id => *until,
            _ => {
                let until = now + self.settings.after;
                self.left_until = Some((tree.id.clone(), until));
                until
            }
        };
        if now >= until {
            self.left_until = None;
            return false;
        }
        true
    }

    /// Validates and loads a tree that is not loaded. Whether to look again at once.
    async fn load(&mut self, tree: &Tree) -> bool {
        if let Err(failure) = act::validate(&self.settings).await {
            self.refuse(
                tree,
                &format!("{} cannot be used, and the program keeps what it has: {failure}", tree.id.show()),
            );
            return false;
        }
        let Some(again) = self.look() else { return false };
        if again.id != tree.id {
            // What was validated is not what would be loaded.
            self.moving();
            return true;
        }
        match act::load(&self.settings, &tree.id).await {
            Ok((did, births)) => {
                self.status.reloads += 1;
                self.note(&format!("loaded {}: {did}", tree.id.show()));
                self.loaded(tree, births);
                true
            }
            Err(failure) => {
                self.refuse(tree, &format!("{} could not be loaded: {failure}", tree.id.show()));
                false
            }
        }
    }

    fn loaded(&mut self, tree: &Tree, births: Births) {
        self.status.loaded = Some(tree.id.clone());
        self.status.since = now();
        self.status.births = births;
        self.status.error = None;
        (self.refused, self.disturbed, self.left_until, self.moving_since) = (None, false, None, None);
        self.good = Some(tree.clone());
        match tree.keep(&self.settings.keep.join("good")) {
            // It changed meanwhile: the next one is kept.
            Ok(_) => {}
            Err(failure) => self.note(&format!("no copy of what is good: {failure}")),
        }
    }

    /// Not this one, not now: a while later, or when it is another.
    fn refuse(&mut self, tree: &Tree, why: &str) {
        self.trouble(why);
        self.moving_since = None;
        let pause = match &self.refused {
            Some(refused) if refused.id == tree.id => (refused.pause * 2).min(MOST_PAUSE),
            _ => self.settings.every,
        };
        self.refused = Some(Refused { id: tree.id.clone(), again: Instant::now() + pause, pause });
    }

    /// The disk has what is loaded: is the program up with it? Whether to look again at once.
    async fn as_loaded(&mut self, tree: &Tree) -> bool {
        self.moving_since = None;
        if self.good.is_none() {
            self.good = Some(tree.clone());
        }
        let births = match act::births(&self.settings).await {
            Ok(births) => births,
            Err(failure) => {
                self.trouble(&format!("the program cannot be looked at: {failure}"));
                return false;
            }
        };
        if births != self.status.births && !births.is_empty() && self.disturbed {
            self.note("the program was restarted while another configuration stood there: what it has is not known");
            (self.status.loaded, self.told) = (None, None);
            return true;
        }
        if self.refused.as_ref().is_some_and(|refused| refused.id == tree.id && Instant::now() < refused.again) {
            return false;
        }
        match act::heal(&self.settings).await {
            Ok(Healed { started, ended }) => {
                let mut births = births;
                if ended > 0 {
                    self.note(&format!("{ended} processes that the program had left behind were ended"));
                }
                if let Some(started) = started {
                    self.status.reloads += 1;
                    self.note("the program was down for good, and has been started again");
                    self.loaded(tree, started.clone());
                    births = started;
                } else if self.status.error.is_some() || self.refused.is_some() {
                    self.note(&format!("all is well again: {} is there, and loaded", tree.id.show()));
                    (self.status.error, self.refused) = (None, None);
                }
                (self.status.births, self.disturbed) = (births, false);
                self.told = Some(tree.id.clone());
            }
            Err(failure) => self.refuse(tree, &format!("the program is down, and cannot be started: {failure}")),
        }
        false
    }

    fn write(&mut self) -> Result<(), Failure> {
        if self.written != self.status {
            self.status.write(&self.settings.state)?;
            self.written = self.status.clone();
        }
        Ok(())
    }
}
