//! Debian and its kin: dpkg's database, apt for the rest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::super::fs::Attrs;
use super::super::process::{Ended, Program};
use super::super::{Actuator, Probe};
use super::policy::VARIABLE;
use super::{Found, Install, Remove, Wait, Wish, listed, others_would_go};
use crate::diagnostic::nearest;
use crate::failure::Failure;

/// dpkg's database.
pub(super) const STATUS: &str = "/var/lib/dpkg/status";

/// How long one refresh of the lists may take (`lists`), and how often it is tried: apt was seen to wait for ever for an answer that
/// its own helper had long had.
const LISTS: Duration = Duration::from_secs(180);
const MOST_TRIES: u32 = 3;

/// Who holds one of these is at work.
const LOCKS: [&str; 4] =
    ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"];

/// What apt says when somebody was quicker to take a lock.
const LOCKED: [&str; 3] = ["Could not get lock", "Unable to acquire the dpkg frontend lock", "Unable to lock"];

/// What apt says when there is no way to have all that was named.
const NO_WAY: [&str; 2] = ["Unable to correct problems", "Unable to satisfy dependencies"];

/// What apt says when it would have to change what is held.
const HELD: [&str; 1] = ["Held packages were changed"];

/// What apt says when the lists name files that the mirror no longer has.
const GONE: [&str; 3] = ["404  Not Found", "Failed to fetch", "Unable to fetch some archives"];

impl Probe {
    pub(super) async fn dpkg_query(&self, names: &[&str]) -> Result<BTreeMap<String, Found>, Failure> {
        let format = "${Package}\t${Architecture}\t${db:Status-Status}\t${Version}\t${db:Status-Want}\n";
        let asked =
            self.ask(&Program::new(["dpkg-query", "--show", "--showformat", format]).args(names.to_vec())).await?;
        // 1: some of the names are not known.
        if asked.code > 1 {
            return Err(asked.failure().within("cannot look at the installed packages"));
        }
        Ok(read_query(names, &asked.stdout.text()))
    }

    /// The packages whose archives are needed once more: those that dpkg touches with nothing else ("reinst-required": it was
    /// killed while it put their files in place), and those that are half installed and do not go. apt's own repair leaves them, or
    /// even removes them.
    async fn to_be_unpacked_again(&self, going: &[String]) -> Result<Vec<String>, Failure> {
        let format = "${db:Status-Eflag} ${db:Status-Status} ${binary:Package}\n";
        let asked =
            self.ask(&Program::new(["dpkg-query", "--show", "--showformat", format])).await?.expect_success()?;
        Ok(unpacked_again(&asked.stdout.text(), going))
    }
}

/// `dpkg-query`'s lines by the names that were asked for.
fn read_query(names: &[&str], text: &str) -> BTreeMap<String, Found> {
    let mut found: BTreeMap<String, Found> = names.iter().map(|name| ((*name).to_owned(), Found::Absent)).collect();
    for line in text.lines() {
        let mut parts = line.split('\t');
        let (Some(name), Some(architecture), Some(status)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let state = match status {
            "not-installed" => Found::Absent,
            "config-files" => Found::Leftover,
            "installed" => {
                let version = parts.next().unwrap_or_default().to_owned();
                if parts.next() == Some("hold") { Found::Held(version) } else { Found::Installed(version) }
            }
            other => Found::Broken(other.to_owned()),
        };
        for asked in [name.to_owned(), format!("{name}:{architecture}")] {
            if let Some(known) = found.get_mut(&asked) {
                // Of several architectures, the one that is installed.
                if !matches!(known, Found::Installed(_) | Found::Held(_)) && state != Found::Absent {
                    *known = state.clone();
                }
            }
        }
    }
    found
}

/// The names of `dpkg-query`'s lines of flag, state and name whose archives are needed once more, where those in `going` go.
fn unpacked_again(text: &str, going: &[String]) -> Vec<String> {
    let goes = |name: &str| going.iter().any(|one| one.split(':').next() == name.split(':').next());
    let name = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["reinstreq", _, name] => Some(name.to_owned()),
        [_, "half-installed", name] if !goes(name) => Some(name.to_owned()),
        _ => None,
    };
    text.lines().filter_map(name).collect()
}

fn apt_get<'a>(words: impl IntoIterator<Item = &'a str>) -> Program {
    // Without a terminal of its own for dpkg, all of it stays in the group that dies with the helper. With several requests on
    // one connection apt was seen to wait for ever behind a proxy.
    let options =
        ["-q", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Pipeline-Depth=0"];
    quiet(Program::new(["apt-get"]).args(options).args(words))
}

/// Nothing asks back.
fn quiet(program: Program) -> Program {
    let settings = [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        ("NEEDRESTART_SUSPEND", "1"),
    ];
    settings.into_iter().fold(program, |program, (name, value)| program.env(name, value))
}

impl Actuator {
    pub(super) async fn apt_install(&self, install: &Install, wait: &Wait) -> Result<(), Failure> {
        self.mend(&[], wait).await?;
        let mut refreshed = None;
        if self.lists_are_older(install.refresh)? {
            refreshed = Some(self.refresh_lists(wait).await?);
        }
        let mut offered = self.offered(&install.wishes).await?;
        if refreshed.is_none() && install.wishes.iter().any(|wish| offered.missing(wish).is_some()) {
            refreshed = Some(self.refresh_lists(wait).await?);
            offered = self.offered(&install.wishes).await?;
        }
        let missing: Vec<_> = install.wishes.iter().filter_map(|wish| offered.missing(wish)).collect();
        if !missing.is_empty() {
            return Err(self.not_offered(&missing, refreshed.as_ref()).await?);
        }
        let recommends = format!("APT::Install-Recommends={}", install.recommends);
        let mut options = vec!["-o", &recommends, "-o", "Dpkg::Options::=--force-confdef"];
        options.extend(["-o", "Dpkg::Options::=--force-confold"]);
        if !install.may_remove {
            options.push("--no-remove");
        }
        if install.wishes.iter().any(|wish| wish.version.is_some()) {
            options.push("--allow-downgrades");
        }
        options.push("install");
        let program = |wishes: &[Wish]| {
            let program = apt_get(options.clone()).args(wishes.iter().map(|wish| offered.spelled(wish)));
            if install.start { program } else { program.env(VARIABLE, "1") }
        };
        let policy = self.policy(install.start).await?;
        let exact = self.as_installed(&install.wishes).await?;
        let mut ended = self.apt(&program(&exact), wait).await?;
        if !ended.success() && refreshed.is_none() && says(&ended, &GONE) {
            self.refresh_lists(wait).await?;
            ended = self.apt(&program(&exact), wait).await?;
        }
        if !ended.success() && exact != install.wishes && says(&ended, &NO_WAY) {
            // What is missing may need another version than the one that is there.
            ended = self.apt(&program(&install.wishes), wait).await?;
        }
        drop(policy);
        if ended.success() {
            return Ok(());
        }
        if !install.may_remove && says(&ended, &["Packages need to be removed"]) {
            let others = named_after(&ended.stdout.text(), "will be REMOVED:");
            return Err(others_would_go("installing this", &others));
        }
        if says(&ended, &HELD) {
            return Err(held(&named_after(&ended.stdout.text(), "held packages will be changed:")));
        }
        if says(&ended, &NO_WAY) {
            let asked = self.ask(&Program::new(["apt-mark", "showhold"])).await?.expect_success()?;
            let (all, said) = (asked.stdout.text(), ended.stdout.text());
            let in_the_way: Vec<String> = all
                .lines()
                .filter(|name| said.split_whitespace().any(|word| word == *name))
                .map(str::to_owned)
                .collect();
            if !in_the_way.is_empty() {
                return Err(held(&in_the_way));
            }
            return Err(unmet(&said).into_iter().fold(ended.failure(), Failure::because));
        }
        Err(ended.failure())
    }

    pub(super) async fn apt_remove(&self, remove: &Remove, wait: &Wait) -> Result<(), Failure> {
        self.mend(&remove.names, wait).await?;
        let verb = if remove.purge { "purge" } else { "remove" };
        if !remove.may_remove {
            let simulated =
                self.ask(&apt_get(["--simulate", verb]).args(remove.names.clone())).await?.expect_success()?;
            let mut others = simulated_removals(&simulated.stdout.text());
            others.retain(|other| !remove.names.iter().any(|name| name.split(':').next() == other.split(':').next()));
            if !others.is_empty() {
                return Err(others_would_go(&format!("removing {}", listed(&remove.names)), &others));
            }
        }
        self.apt(&apt_get([verb]).args(remove.names.clone()), wait).await?.expect_success()?;
        Ok(())
    }

    /// Runs apt or dpkg once no other one is at work.
    async fn apt(&self, program: &Program, wait: &Wait) -> Result<Ended, Failure> {
        loop {
            self.wait_for_locks(&LOCKS, wait).await?;
            let ended = self.run(program).await?;
            if ended.success() || wait.over() || !says(&ended, &LOCKED) {
                return Ok(ended);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Finishes what a run that was killed in the middle left half done, before those in `going` are removed.
    async fn mend(&self, going: &[String], wait: &Wait) -> Result<(), Failure> {
        let confold = ["--force-confdef", "--force-confold"];
        let dpkg = quiet(Program::new(["dpkg"]).args(confold).args(["--configure", "-a"])).env(VARIABLE, "1");
        let policy = self.policy(false).await.ok().flatten();
        let mut ended = self.apt(&dpkg, wait).await?;
        let again = self.to_be_unpacked_again(going).await?;
        if !ended.success() || !again.is_empty() {
            // Packages that others need may not be unpacked yet.
            self.progress("an interrupted installation is being finished", None);
            let mut words = vec!["-o", "Dpkg::Options::=--force-confold", "--fix-broken", "install"];
            if !again.is_empty() {
                words.push("--reinstall");
                words.extend(again.iter().map(String::as_str));
            }
            ended = self.apt(&apt_get(words).env(VARIABLE, "1"), wait).await?;
        }
        drop(policy);
        if ended.success() {
            return Ok(());
        }
        Err(ended.failure().within("an interrupted installation cannot be finished"))
    }

    async fn refresh_lists(&self, wait: &Wait) -> Result<Ended, Failure> {
        let mut tries = 1;
        let ended = loop {
            self.wait_for_locks(&LOCKS, wait).await?;
            match tokio::time::timeout(LISTS, self.apt(&apt_get(["update"]), wait)).await {
                Ok(ended) => break ended?,
                Err(_) if tries < MOST_TRIES => {
                    tries += 1;
                    self.progress("apt-get update does not come to an end: once more", None);
                }
                Err(_) => {
                    return Err(Failure::timeout("lists", LISTS)
                        .within("the lists of packages cannot be refreshed")
                        .because(format!("tried {MOST_TRIES} times")));
                }
            }
        };
        if ended.success() {
            self.own_dirs([self.state_dir()])?;
            self.replace(self.stamp(), b"", Attrs::mode(0o600))?;
        }
        // One mirror of several that does not answer is no reason to stop: what is missing then is said below.
        Ok(ended)
    }

    /// The failure about what nobody offers.
    async fn not_offered(&self, missing: &[Missing], refreshed: Option<&Ended>) -> Result<Failure, Failure> {
        let said: Vec<String> = missing.iter().map(Missing::say).collect();
        let mut failure = Failure::new(said.join("; "));
        match refreshed {
            Some(ended) if !ended.success() => {
                let reason = ended.failure();
                failure = failure.because("the lists of packages could not be refreshed").because(reason);
            }
            _ => failure = failure.because("the lists of packages were refreshed just now"),
        }
        for one in missing {
            if let Some(hint) = self.way_out(one).await? {
                return Ok(failure.hint(hint));
            }
        }
        Ok(failure)
    }
}

impl Probe {
    fn stamp(&self) -> PathBuf {
        self.state_dir().join("package-lists")
    }

    fn lists_are_older(&self, refresh: Option<Duration>) -> Result<bool, Failure> {
        let Some(refresh) = refresh else { return Ok(false) };
        let Some(entry) = self.stat(self.stamp())? else { return Ok(true) };
        let (seconds, nanos) = entry.mtime;
        let made = SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or(0), nanos);
        // A stamp from the future (a clock that was set back) says nothing.
        Ok(made.elapsed().map_or(true, |age| age >= refresh))
    }

    async fn offered(&self, wishes: &[Wish]) -> Result<Offered, Failure> {
        let program = Program::new(["apt-cache", "policy"]).args(wishes.iter().map(|wish| wish.name.as_str()));
        let asked = self.ask(&program).await?.expect_success()?;
        Ok(read_policy(&asked.stdout.text()))
    }

    async fn way_out(&self, missing: &Missing) -> Result<Option<String>, Failure> {
        Ok(match missing {
            Missing::Virtual(name) => {
                let providers = self.providers(name).await?;
                (!providers.is_empty()).then(|| format!("name one of {}", listed(&providers)))
            }
            Missing::Version { known, .. } => Some(format!("there is {}", listed(known))),
            Missing::Name(name) => self.similar(name).await?.map(|similar| format!("did you mean `{similar}`?")),
        })
    }

    /// The packages that provide a virtual one.
    async fn providers(&self, name: &str) -> Result<Vec<String>, Failure> {
        let asked = self.ask(&Program::new(["apt-cache", "showpkg", name])).await?;
        let text = asked.stdout.text();
        let lines = text.lines().skip_while(|line| !line.starts_with("Reverse Provides")).skip(1);
        let mut names: Vec<String> =
            lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// A known name that may have been meant.
    async fn similar(&self, name: &str) -> Result<Option<String>, Failure> {
        let start: String = name.chars().take(2).collect();
        let asked = self.ask(&Program::new(["apt-cache", "pkgnames", &start])).await?;
        let text = asked.stdout.text();
        let mut names: Vec<&str> = text.lines().collect();
        names.sort_unstable();
        Ok(nearest(name, names).map(str::to_owned))
    }
}

/// The failure of a change of packages that somebody has forbidden.
pub fn held(names: &[String]) -> Failure {
    let bare: Vec<&str> = names.iter().map(|name| name.split(':').next().unwrap_or(name)).collect();
    Failure::new(format!("{} would have to change, and may not: held by `apt-mark hold`", listed(names)))
        .hint(format!("let it change with `apt-mark unhold {}`, or declare the version that is there", bare.join(" ")))
}

fn says(ended: &Ended, signs: &[&str]) -> bool {
    let text = ended.stderr.text();
    signs.iter().any(|sign| text.contains(sign))
}

/// The versions that apt knows, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offered(BTreeMap<String, Versions>);

/// The versions of one package.
#[derive(Debug, Default, PartialEq, Eq)]
struct Versions {
    /// The one that apt takes when none is named.
    candidate: Option<String>,
    /// All of them, the newest first.
    all: Vec<String>,
}

/// Why a wish cannot be granted.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Name(String),
    /// Others provide it, but it is no package by itself.
    Virtual(String),
    Version {
        wish: Wish,
        known: Vec<String>,
    },
}

impl Offered {
    fn missing(&self, wish: &Wish) -> Option<Missing> {
        let Some(Versions { all: versions, .. }) = self.0.get(&wish.name) else {
            return Some(Missing::Name(wish.name.clone()));
        };
        if versions.is_empty() {
            return Some(Missing::Virtual(wish.name.clone()));
        }
        let fits = versions.iter().any(|version| wish.accepts(version));
        (!fits).then(|| Missing::Version { wish: wish.clone(), known: versions.clone() })
    }

    /// A wish as apt's command line takes it, with the whole version: apt's own patterns know nothing of epochs.
    fn spelled(&self, wish: &Wish) -> String {
        let Some(wanted) = &wish.version else { return wish.name.clone() };
        let versions = self.0.get(&wish.name);
        let fits = |version: &&String| wish.accepts(version);
        let found = versions.and_then(|versions| versions.candidate.iter().chain(&versions.all).find(fits));
        format!("{}={}", wish.name, found.unwrap_or(wanted))
    }
}

impl Missing {
    fn say(&self) -> String {
        match self {
            Self::Name(name) => format!("there is no package `{name}` for this host"),
            Self::Virtual(name) => format!("`{name}` is not a package, only a name that packages may provide"),
            Self::Version { wish, .. } => {
                let version = wish.version.as_deref().unwrap_or_default();
                format!("there is no version `{version}` of package `{}` for this host", wish.name)
            }
        }
    }
}

/// `apt-cache policy`: names stand at the edge, versions five columns in, their origins deeper.
fn read_policy(text: &str) -> Offered {
    let mut offered = Offered::default();
    let mut versions: Option<&mut Versions> = None;
    let mut table = false;
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            versions = Some(offered.0.entry(name.to_owned()).or_default());
            table = false;
        } else if line.trim() == "Version table:" {
            table = true;
        } else if let (false, Some(versions), Some(candidate)) =
            (table, versions.as_deref_mut(), line.trim().strip_prefix("Candidate: "))
        {
            versions.candidate = Some(candidate.to_owned()).filter(|candidate| candidate != "(none)");
        } else if let (true, Some(versions), Some(rest)) = (table, versions.as_deref_mut(), line.get(5..))
            && !rest.starts_with(' ')
            && let Some(version) = rest.split_whitespace().next()
        {
            versions.all.push(version.to_owned());
        }
    }
    offered
}

/// The names after a line such as `The following packages will be REMOVED:`.
fn named_after(text: &str, end: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.ends_with(end)).skip(1);
    let names = lines.take_while(|line| line.starts_with(' ')).flat_map(str::split_whitespace);
    names.map(|name| name.trim_end_matches('*').to_owned()).collect()
}

/// What is said about `The following packages have unmet dependencies:`, in one line each.
fn unmet(text: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.ends_with("have unmet dependencies:")).skip(1);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    lines.take_while(|line| line.starts_with(' ')).map(words).collect()
}

/// `Remv NAME [VERSION] …` and `Purg NAME …` of a simulation.
fn simulated_removals(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("Remv" | "Purg")).then(|| words.next().map(str::to_owned)).flatten()
    };
    let mut names: Vec<String> = text.lines().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let text = "hello\tamd64\tinstalled\t2.10-3\tinstall\nlibc6\ti386\tnot-installed\t\tunknown\n\
                    libc6\tamd64\thalf-configured\t2.36\tinstall\ncron\tamd64\tconfig-files\t3.0\tdeinstall\n\
                    less\tamd64\tinstalled\t590\thold\n";
        let found = read_query(&["hello", "libc6", "cron", "none", "libc6:i386", "hello:amd64", "less"], text);
        assert_eq!(found["less"], Found::Held("590".to_owned()));
        assert_eq!(found["hello"], Found::Installed("2.10-3".to_owned()));
        assert_eq!(found["hello:amd64"], Found::Installed("2.10-3".to_owned()));
        assert_eq!(found["libc6"], Found::Broken("half-configured".to_owned()));
        assert_eq!(found["libc6:i386"], Found::Absent);
        assert_eq!(found["cron"], Found::Leftover);
        assert_eq!(found["none"], Found::Absent);
    }

    #[test]
    fn archives_that_are_needed_once_more() {
        let text = "ok installed hello\nreinstreq unpacked libc6:i386\nok half-installed cron\nreinstreq half-installed awk\n\
                    ok half-configured less\n";
        assert_eq!(unpacked_again(text, &[]), ["libc6:i386", "cron", "awk"]);
        assert_eq!(unpacked_again(text, &["cron".to_owned(), "awk".to_owned()]), ["libc6:i386", "awk"]);
    }

    #[test]
    fn offers() {
        let text = "hello:\n  Installed: (none)\n  Candidate: 2.10-3\n  Version table:\n     2.10-3 500\n        \
                    500 http://deb.debian.org/debian bookworm/main amd64 Packages\n *** 2.9-1 100\n        \
                    100 /var/lib/dpkg/status\nawk:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n\
                    libc6:i386:\n  Installed: (none)\n  Candidate: 2\n  Version table:\n     2 500\n";
        let offered = read_policy(text);
        assert_eq!(offered.0["hello"].all, ["2.10-3", "2.9-1"]);
        assert_eq!(offered.spelled(&Wish::parse("hello=2.9*")), "hello=2.9-1");
        assert_eq!(offered.spelled(&Wish::parse("hello=2*")), "hello=2.10-3");
        assert_eq!(offered.spelled(&Wish::parse("hello")), "hello");
        let text =
            "a:\n  Installed: (none)\n  Candidate: 1:2.3-1\n  Version table:\n     1:2.4-1 100\n     1:2.3-1 500\n";
        assert_eq!(read_policy(text).spelled(&Wish::parse("a=2.3*")), "a=1:2.3-1");
        assert_eq!(read_policy(text).spelled(&Wish::parse("a=2*")), "a=1:2.3-1");
        assert_eq!(read_policy(text).spelled(&Wish::parse("a=1:2.4-1")), "a=1:2.4-1");
        assert_eq!(offered.missing(&Wish::parse("hello")), None);
        assert_eq!(offered.missing(&Wish::parse("hello=2.9*")), None);
        assert_eq!(offered.missing(&Wish::parse("awk")), Some(Missing::Virtual("awk".to_owned())));
        assert_eq!(offered.missing(&Wish::parse("none")), Some(Missing::Name("none".to_owned())));
        assert_eq!(offered.missing(&Wish::parse("libc6:i386=2")), None);
        let missing = offered.missing(&Wish::parse("hello=3*")).unwrap();
        assert_eq!(missing.say(), "there is no version `3*` of package `hello` for this host");
    }

    #[test]
    fn removals() {
        let text =
            "Reading package lists...\nThe following packages will be REMOVED:\n  a b*\n  c\nThe following NEW:\n  d\n";
        assert_eq!(named_after(text, "will be REMOVED:"), ["a", "b", "c"]);
        let text =
            "The following packages have unmet dependencies:\n a : Depends: b (>= 2) but 1 is to be installed\nE: x\n";
        assert_eq!(unmet(text), ["a : Depends: b (>= 2) but 1 is to be installed"]);
        assert_eq!(simulated_removals("Remv x [1] [y ]\nRemv y [2]\nInst z\nPurg x [1]\n"), ["x", "y"]);
    }
}
