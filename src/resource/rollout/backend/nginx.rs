//! A server of nginx, by the word `down` in its line of an upstream file, and a reload.
//!
//! The file says what should be, and what nginx has loaded is read from its workers: nginx replaces all of them at a reload, and
//! the old ones live until their last request has come to its end. So who is older than the file has not read it; when none of
//! these is left, nothing is under way to a server that the file calls down.

use std::time::Duration;

use tokio::time::sleep;

use super::haproxy::last;
use super::{AtLimit, Backend, Limit, Seen, Wanted, over, unknown};
use crate::failure::Failure;
use crate::system::fs::Attrs;
use crate::system::process::Program;
use crate::system::workers::Process;
use crate::system::{Actuator, Probe};
use crate::visible::count;

/// The longest upstream file that is read.
const MOST_FILE: u64 = 4 << 20;

/// The pause between a new file and a reload, so that the new workers are surely younger than it.
const APART: Duration = Duration::from_millis(50);

/// How long workers that were told to end at once may take: limit `cut`.
const CUT: Duration = Duration::from_secs(5);

pub(super) struct Nginx<'a> {
    pub(super) backend: &'a Backend,
    pub(super) file: &'a str,
    pub(super) pool: &'a str,
}

/// How far nginx is with the file as it stands.
struct Loaded {
    /// The line says `down`.
    down: bool,
    /// Some worker is younger than the file, and all older ones are about to end. (The master also replaces one that crashed, and
    /// such a young one has what the master has: the old configuration.)
    taken: bool,
    /// The workers that are older.
    old: Vec<Process>,
}

impl Nginx<'_> {
    pub(super) async fn look(&self, probe: &Probe) -> Result<Seen, Failure> {
        let loaded = self.loaded(probe).await?;
        let seen = match (&loaded, loaded.old.len()) {
            (Loaded { down, taken: false, .. }, _) => {
                Seen::words(format!("{} in the file, which nginx has not loaded", if *down { "down" } else { "ready" }))
            }
            (Loaded { down: false, .. }, _) => Seen::words("ready"),
            (_, 0) => Seen { sessions: Some(0), ..Seen::words("drained") },
            (_, old) => Seen::words(format!("draining ({})", old_workers(old))),
        };
        Ok(Seen { out: loaded.down, ..seen })
    }

    async fn loaded(&self, probe: &Probe) -> Result<Loaded, Failure> {
        let down = self.line(&self.text(probe)?)?.down;
        let missing = || Failure::new(format!("{} is gone", self.file));
        let changed = probe.stat(self.file)?.ok_or_else(missing)?.changed();
        let (new, old): (Vec<_>, Vec<_>) =
            self.workers(probe).await?.into_iter().partition(|worker| worker.started_after(changed));
        let leaving = probe.leaving(&old);
        // One that has ended since the list was made has no title any more that says so.
        let stays = |worker: &Process| !leaving.contains(worker) && probe.lives(worker);
        let taken = !new.is_empty() && !old.iter().any(stays);
        Ok(Loaded { down, taken, old })
    }

    fn text(&self, probe: &Probe) -> Result<String, Failure> {
        let missing = || {
            Failure::new(format!("there is no file {}", self.file))
                .hint("make it before with a `template` task that nginx's configuration includes")
        };
        probe.read_text(self.file, MOST_FILE)?.ok_or_else(missing)
    }

    fn line(&self, text: &str) -> Result<Line, Failure> {
        let lines = lines(text);
        let mut in_pool = lines.iter().filter(|line| line.pool == self.pool);
        let name = self.backend.name.as_str();
        if let Some(line) = in_pool.clone().find(|line| line.name == name) {
            return Ok(line.clone());
        }
        if in_pool.clone().next().is_none() {
            let mut pools: Vec<&str> = lines.iter().map(|line| line.pool.as_str()).collect();
            pools.dedup();
            let failure = unknown("pool", self.pool, &format!("in {}", self.file), &pools);
            return Err(failure.because("a pool is `upstream NAME {`, and below it a line for each server"));
        }
        let by_address = in_pool.find(|line| line.address == name || line.address.starts_with(&format!("{name}:")));
        by_address.cloned().ok_or_else(|| {
            let known: Vec<&str> =
                lines.iter().filter(|line| line.pool == self.pool).map(|line| line.name.as_str()).collect();
            unknown("server", name, &format!("in pool `{}` of {}", self.pool, self.file), &known)
                .because("a server is a line `server ADDRESS; # NAME`")
        })
    }

    /// Those of nginx that serve: the master's children.
    async fn workers(&self, probe: &Probe) -> Result<Vec<Process>, Failure> {
        let (all, masters): (Vec<Process>, Vec<u32>) = if let Some(name) = &self.backend.container {
            let found = probe.docker()?.container(name).await?;
            let inside = found.ok_or_else(|| Failure::new(format!("there is no container {name}")))?.pid;
            let inside = inside.ok_or_else(|| Failure::new(format!("container {name} is not running")))?;
            let all = probe.processes(Some(inside));
            let nginx: Vec<u32> = named_nginx(&all).map(|process| process.pid).collect();
            let masters = named_nginx(&all).filter(|process| !nginx.contains(&process.parent));
            let masters = masters.map(|process| process.pid).collect();
            (all, masters)
        } else {
            let path = self.backend.pid_file.as_ref().map_or("/run/nginx.pid", |path| path.0.as_str());
            let written = probe.read_text(path, 64)?.and_then(|text| text.trim().parse().ok());
            let all = probe.processes(None);
            let masters = named_nginx(&all).map(|process| process.pid).filter(|pid| Some(*pid) == written).collect();
            (all, masters)
        };
        if masters.is_empty() {
            let place = match (&self.backend.container, &self.backend.pid_file) {
                (Some(name), _) => format!("in container {name}"),
                (None, path) => format!("by {}", path.as_ref().map_or("/run/nginx.pid", |path| path.0.as_str())),
            };
            return Err(Failure::new("nginx is not running")
                .because(format!("looked {place}"))
                .hint("name its `pid_file`, or the `container` that it runs in"));
        }
        Ok(named_nginx(&all).filter(|process| masters.contains(&process.parent)).cloned().collect())
    }

    /// Takes it out, and waits until no worker is left that could still be sending to it.
    pub(super) async fn drain(&self, hands: &Actuator) -> Result<(), Failure> {
        let (limit, shown) = (self.backend.limit(), self.backend.shown());
        self.bring(Wanted::Drained, hands, limit).await?;
        let mut cut: Option<Limit> = None;
        loop {
            let old = self.loaded(hands).await?.old;
            if old.is_empty() {
                return Ok(());
            }
            let left = old_workers(old.len());
            hands.progress(&format!("{left} of nginx under way"), None);
            let Err(failure) = cut.unwrap_or(limit).wait().await else { continue };
            let failure = failure.within(format!("{shown} is not empty: {left} of nginx {}", pids(&old)));
            if self.backend.at_limit == AtLimit::Fail || cut.is_some() || !over(&failure) {
                return Err(failure.hint(
                    "it stays without new requests. An old worker lives as long as its longest request to any server: give it more \
                     time (`within = 5m`), or have the rest cut off (`at_limit = cut`)",
                ));
            }
            hands.progress("cutting off what is still under way", None);
            for worker in &old {
                hands.end_process(worker)?;
            }
            cut = Some(Limit::new("cut", CUT));
        }
    }

    /// Takes it in.
    pub(super) async fn ready(&self, hands: &Actuator) -> Result<(), Failure> {
        self.bring(Wanted::Ready, hands, self.backend.limit()).await
    }

    /// Writes the file, and has nginx load it.
    async fn bring(&self, wanted: Wanted, hands: &Actuator, limit: Limit) -> Result<(), Failure> {
        let text = self.text(hands)?;
        let (line, down) = (self.line(&text)?, wanted == Wanted::Drained);
        if line.down != down {
            let other = |other: &Line| other.pool == line.pool && other.number != line.number && !other.down;
            if down && !self.backend.even_last && !lines(&text).iter().any(other) {
                return Err(last(&self.backend.shown()));
            }
            hands.replace(self.file, with_down(&text, &line, down).as_bytes(), Attrs::default())?;
            if let Err(failure) = self.tested(hands).await {
                // Left as it is, it would break the next reload that anybody makes.
                hands.replace(self.file, text.as_bytes(), Attrs::default())?;
                return Err(failure.within(format!("{} was put back", self.file)));
            }
        } else if self.loaded(hands).await?.taken {
            return Ok(());
        } else {
            self.tested(hands).await?;
        }
        sleep(APART).await;
        let reload = argv(self.backend.reload.as_ref(), &["nginx", "-s", "reload"]);
        hands.run(&Program::new(reload)).await?.expect_success()?;
        while !self.loaded(hands).await?.taken {
            limit.wait().await.map_err(|failure| {
                failure
                    .within("nginx was told to reload, and still works with the old configuration")
                    .hint("it stays with the old configuration when the new one cannot be used: its error log says why")
            })?;
        }
        Ok(())
    }

    async fn tested(&self, hands: &Actuator) -> Result<(), Failure> {
        let test = argv(self.backend.test.as_ref(), &["nginx", "-t"]);
        let ended = hands.run(&Program::new(test)).await?.expect_success();
        ended.map(drop).map_err(|failure| failure.within("nginx refuses its configuration"))
    }
}

fn argv(given: Option<&Vec<String>>, otherwise: &[&str]) -> Vec<String> {
    given.cloned().unwrap_or_else(|| otherwise.iter().map(|word| (*word).to_owned()).collect())
}

fn named_nginx(all: &[Process]) -> impl Iterator<Item = &Process> {
    all.iter().filter(|process| process.name == "nginx")
}

fn old_workers(number: usize) -> String {
    count(number, "old worker")
}

/// `(process 12, 13)`.
fn pids(processes: &[Process]) -> String {
    let pids: Vec<String> = processes.iter().map(|process| process.pid.to_string()).collect();
    format!("(process {})", pids.join(", "))
}

/// A server's line of an upstream file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    pool: String,
    address: String,
    /// What its comment says, or its address.
    name: String,
    down: bool,
}

/// The lines `server ADDRESS …; # NAME` below `upstream POOL {`.
fn lines(text: &str) -> Vec<Line> {
    let (mut found, mut pool) = (Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &pool) {
            (["upstream", name, ..], _) => pool = Some(name.trim_end_matches('{').to_owned()),
            ([first, ..], _) if first.starts_with('}') => pool = None,
            (["server", ..], Some(pool)) => {
                let Some((order, rest)) = line.split_once(';') else { continue };
                let mut words = order.split_whitespace().skip(1);
                let Some(address) = words.next() else { continue };
                let name = rest.trim().strip_prefix('#').map(str::trim).filter(|name| !name.is_empty());
                found.push(Line {
                    number,
                    pool: pool.clone(),
                    address: address.to_owned(),
                    name: name.unwrap_or(address).to_owned(),
                    down: words.any(|word| word == "down"),
                });
            }
            _ => {}
        }
    }
    found
}

/// The text with the word `down` in that line, or without it; all else stays byte for byte.
fn with_down(text: &str, line: &Line, down: bool) -> String {
    let changed = |text: &str| {
        let (order, rest) = text.split_once(';').unwrap_or((text, ""));
        let indent: String = order.chars().take_while(|sign| sign.is_whitespace()).collect();
        let words: Vec<&str> = order.split_whitespace().filter(|word| *word != "down").collect();
        format!("{indent}{}{};{rest}", words.join(" "), if down { " down" } else { "" })
    };
    let all = text.split_inclusive('\n').enumerate();
    all.map(|(number, text)| if number == line.number { changed(text) } else { text.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::{lines, with_down};

    const FILE: &str = "# Pools.\nupstream web {\n    least_conn;\n    server 10.0.0.1:80 max_fails=1; # web1\n\
        \tserver 10.0.0.2:80 weight=2 down;# web2\n    server 10.0.0.3:80;\n    keepalive 8;\n}\nupstream api{\n  server unix:/run/a down ;\n}\nserver {\n}\n";

    #[test]
    fn lines_of_servers() {
        let found: Vec<_> = lines(FILE).into_iter().map(|line| (line.pool, line.name, line.down)).collect();
        let line = |pool: &str, name: &str, down| (pool.to_owned(), name.to_owned(), down);
        let wanted = [
            line("web", "web1", false),
            line("web", "web2", true),
            line("web", "10.0.0.3:80", false),
            line("api", "unix:/run/a", true),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn one_word_changes_and_nothing_else() {
        let all = lines(FILE);
        assert_eq!(with_down(FILE, &all[0], true), FILE.replace("max_fails=1;", "max_fails=1 down;"));
        assert_eq!(with_down(FILE, &all[1], false), FILE.replace("weight=2 down;", "weight=2;"));
        assert_eq!(with_down(&with_down(FILE, &all[2], true), &all[2], false), FILE);
        assert_eq!(with_down(FILE, &all[3], false), FILE.replace("/run/a down ;", "/run/a;"));
    }
}
