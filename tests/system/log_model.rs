//! The whole way of log lines against a simple model: written, closed, compressed, copied and removed in any order, by programs that are
//! killed between any two deeds. What the model knows of a file is what must be in the folder, at the storage, or counted as removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanli::logs::codec::Codec;
use fanli::logs::keep::keep;
use fanli::logs::ledger::{Event, Ledger};
use fanli::logs::pipe::{Input, Orders, run};
use fanli::logs::policy::{Place, Policy, Shipping, Unshipped};
use fanli::logs::said::{Said, What};
use fanli::logs::ship::ship;
use fanli::logs::spool::OnFull;
use fanli::logs::target::Target;
use fanli::logs::template::Template;

use crate::apart::{apart, folder, sh};
use crate::common::chance::{Chance, moments};

/// Why a keeper stops in the middle.
struct Killed;

/// A folder, its storage, and what was written.
struct World {
    chance: Chance,
    /// The lines of each file, by the name that its writer gave it.
    model: BTreeMap<String, String>,
    place: Place,
    storage: PathBuf,
    state: PathBuf,
    pack: Option<Codec>,
    next_line: usize,
    did: String,
}

impl World {
    /// A new one in two empty directories on different file systems.
    fn new(root: &Path, case: u64) -> Self {
        let mut chance = Chance::of(case);
        for dir in ["logs", "storage", "state"] {
            for entry in fs::read_dir(root.join(dir)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
        let unshipped = *chance.pick(&[Unshipped::Keep, Unshipped::Keep, Unshipped::Drop]);
        let ship = Shipping { to: Target::Directory(root.join("storage")), key: None, rate: None, unshipped };
        Self {
            model: BTreeMap::new(),
            place: Place { path: root.join("logs"), ship: Some(ship) },
            storage: root.join("storage"),
            state: root.join("state"),
            pack: *chance.pick(&[None, Some(Codec::Gzip), Some(Codec::Zstd)]),
            next_line: 0,
            did: String::new(),
            chance,
        }
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.chance.below(bound)).unwrap()
    }

    /// One thing that happens.
    fn step(&mut self) {
        match self.below(10) {
            0..=2 => self.write(),
            3 | 4 => self.keep(true),
            5 | 6 => self.ship(true),
            _ => self.leave(),
        }
    }

    /// A writer with some lines; one in three is killed before it has closed its last file.
    fn write(&mut self) {
        let count = 1 + self.below(25);
        let text = (0..count).fold(String::new(), |mut text, _| {
            self.next_line += 1;
            let length = self.below(60);
            let _ = writeln!(text, "{:06} {}", self.next_line, "x".repeat(length));
            text
        });
        let (from, mut to) = std::io::pipe().unwrap();
        to.write_all(text.as_bytes()).unwrap();
        drop(to);
        let template = Template::parse(self.place.path.join("%Y%m%d.log").to_str().unwrap()).unwrap();
        let orders = Orders {
            every: template.every().unwrap(),
            template,
            zone: jiff::tz::TimeZone::UTC,
            size: Some(100 + self.chance.below(900)),
            latest: None,
            mode: 0o644,
            tag: None,
            spool: 1 << 20,
            on_full: OnFull::Block,
        };
        run(orders, Input { lines: from.as_fd(), stop: None }).unwrap();
        let mut new: Vec<(String, String)> =
            contents(&self.place.path).into_iter().filter(|(name, _)| !self.model.contains_key(name)).collect();
        new.sort_by(|left, right| left.1.cmp(&right.1));
        let all: String = new.iter().map(|(_, text)| text.as_str()).collect();
        assert!(all == text, "what was written is not what was given: {all} {text}");
        let _ = write!(self.did, "write {count} in {}; ", new.len());
        if self.chance.below(3) == 0
            && let Some((name, text)) = new.last_mut()
        {
            let _ = write!(self.did, "kill its writer; ");
            text.truncate(usize::try_from(self.chance.below(text.len() as u64 + 1)).unwrap());
            fs::write(self.place.path.join(&*name), &*text).unwrap();
            let seal = self.place.path.join(format!(".{name}.seal"));
            let mut open: serde_json::Value = serde_json::from_slice(&fs::read(&seal).unwrap()).unwrap();
            open.as_object_mut().unwrap().retain(|key, _| ["begin", "end"].contains(&key.as_str()));
            fs::write(seal, format!("{open}\n")).unwrap();
        }
        self.model.extend(new);
    }

    /// Runs a keeper; where it may be killed, after any of its deeds.
    fn killed_after(&mut self, may: bool, work: impl FnOnce(&Self, &mut dyn FnMut(Said))) {
        let most = if may && self.chance.below(3) == 0 { self.below(6) } else { usize::MAX };
        let mut deeds = 0;
        let mut say = |said: Said| {
            assert!(!matches!(said.what, What::Failed(_)), "{said:?}");
            if deeds == most {
                std::panic::panic_any(Killed);
            }
            deeds += 1;
        };
        match catch_unwind(AssertUnwindSafe(|| work(self, &mut say))) {
            Err(why) if !why.is::<Killed>() => resume_unwind(why),
            done => {
                let _ = write!(self.did, "{deeds} deeds{}; ", if done.is_err() { ", killed" } else { "" });
            }
        }
    }

    fn keep(&mut self, may_be_killed: bool) {
        let count = if may_be_killed && self.chance.below(2) == 0 { Some(self.below(8)) } else { None };
        let policy = Policy { pack: self.pack.map(|codec| (codec, Duration::ZERO)), count, ..Policy::default() };
        let _ = write!(self.did, "keep {count:?}: ");
        self.killed_after(may_be_killed, |world, say| {
            keep(std::slice::from_ref(&world.place), &policy, &world.state, false, say);
        });
    }

    fn ship(&mut self, may_be_killed: bool) {
        let policy = Policy { pack: self.pack.map(|codec| (codec, Duration::ZERO)), ..Policy::default() };
        let _ = write!(self.did, "ship: ");
        self.killed_after(may_be_killed, |world, say| {
            ship(std::slice::from_ref(&world.place), &policy, &world.state, false, say);
        });
    }

    /// What a program leaves that was killed within a deed.
    fn leave(&mut self) {
        let names: Vec<String> = self.model.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.chance.pick(&names).clone();
        let codec = self.pack.unwrap_or(Codec::Gzip);
        let packed = format!("{name}{}", codec.extension());
        let half = |path: PathBuf| fs::write(path, "half of somethi").unwrap();
        match self.chance.below(5) {
            0 => half(self.place.path.join(format!(".{packed}.new"))),
            1 => half(self.storage.join(format!(".{}.new", if self.pack.is_some() { &packed } else { &name }))),
            2 => half(self.place.path.join(format!(".{name}.seal.new"))),
            // It is compressed, and what was written has not gone yet.
            3 if self.place.path.join(&packed).exists() => {
                fs::write(self.place.path.join(&name), &self.model[&name]).unwrap();
            }
            // A copy is stored, and the line that says so was cut off.
            4 => self.tear_the_ledger(),
            _ => return,
        }
        let _ = write!(self.did, "something half-made; ");
    }

    fn tear_the_ledger(&mut self) {
        let Ok(found) = fs::read_dir(self.state.join("ledger")) else { return };
        for dir in found.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            let months = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            for month in months.filter(|path| path.extension().is_some_and(|end| end == "jsonl")) {
                let text = fs::read_to_string(&month).unwrap();
                let last = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
                // A removal is only begun once its line is there for good.
                if text[last..].contains("\"stored\",\"to\"") {
                    let cut = last + self.below((text.len() - last) as u64);
                    fs::write(month, &text[..cut]).unwrap();
                }
            }
        }
    }

    /// Each file is where it must be, and nothing else is.
    fn check(&self, at_the_end: bool) {
        let entries = Ledger::of(&self.state, &self.place.path).entries().unwrap();
        let removed: BTreeSet<&str> = entries
            .iter()
            .filter(|entry| matches!(entry.event, Event::Removed { stored: false, .. }))
            .map(|entry| entry.segment.as_str())
            .collect();
        let held_back = self.place.ship.as_ref().is_some_and(|ship| ship.unshipped == Unshipped::Keep);
        assert!(removed.is_empty() || !held_back, "{removed:?}");
        let (here, there) = (contents(&self.place.path), contents(&self.storage));
        for (name, text) in here.iter().chain(&there) {
            assert_eq!(self.model.get(name), Some(text), "{name} is another one");
        }
        for name in self.model.keys() {
            let somewhere = there.contains_key(name) || here.contains_key(name) && !at_the_end;
            assert!(somewhere || removed.contains(name.as_str()), "{name} is lost");
        }
        for entry in entries.iter().filter(|entry| matches!(entry.event, Event::Stored { .. })) {
            assert!(there.contains_key(&entry.segment), "{} is said to be stored", entry.segment);
        }
    }
}

/// The lines of all files of a directory by the names that their writers gave them. One that is there compressed, too, must be the same; at a
/// storage none may be.
fn contents(dir: &Path) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with('.') {
            continue;
        }
        let mut file = fs::File::open(&path).unwrap();
        let codec = Codec::ALL.into_iter().find(|codec| name.ends_with(codec.extension()));
        let plain = codec.map_or(name.as_str(), |codec| name.strip_suffix(codec.extension()).unwrap()).to_owned();
        let mut text = String::new();
        match codec {
            Some(codec) => codec.unpack(file).unwrap().read_to_string(&mut text).unwrap(),
            None => file.read_to_string(&mut text).unwrap(),
        };
        let other = all.insert(plain, text.clone());
        assert!(other.is_none_or(|other| other == text && dir.ends_with("logs")), "{name} is there twice");
    }
    all
}

#[test]
fn whatever_happens_each_line_is_there_once() {
    apart("log_model::whatever_happens_each_line_is_there_once", || {
        let root = folder();
        for dir in ["logs", "storage"] {
            sh(&format!("mkdir -p {0}/{dir} {0}/state && mount -t tmpfs model {0}/{dir}", root.display()));
        }
        sh(&format!("mount -t tmpfs model {}/state", root.display()));
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |why| {
            if !why.payload().is::<Killed>() {
                usual(why);
            }
        }));
        let mut chance = Chance::new();
        let (mut lines, mut files, cases) = (0, 0, moments(1_000, 20_000));
        for _ in 0..cases {
            let case = chance.next();
            let mut world = World::new(&root, case);
            let steps = 4 + world.below(12);
            let done = catch_unwind(AssertUnwindSafe(|| {
                for _ in 0..steps {
                    world.step();
                    world.check(false);
                }
                world.keep(false);
                world.ship(false);
                world.check(true);
            }));
            if let Err(why) = done {
                eprintln!("case {case}: {}", world.did);
                resume_unwind(why);
            }
            lines += world.next_line;
            files += world.model.len();
        }
        println!("{cases} cases, {files} files, {lines} lines");
        assert!(files > 3 * cases);
    });
}
