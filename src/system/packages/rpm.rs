//! Fedora, `CentOS` and their kin: rpm's database, dnf or yum for the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::process::{Ended, Program};
use super::super::{Actuator, Probe};
use super::{Found, Install, Remove, Wait, Wish, listed, others_would_go};
use crate::failure::Failure;

/// What both say by their exit code when another one is at work (`dnf(8)`, with `exit_on_lock`).
const LOCKED: i32 = 200;

impl Probe {
    pub(super) async fn rpm_query(&self, names: &[&str]) -> Result<BTreeMap<String, Found>, Failure> {
        let format = "=\t%{NAME}\t%{ARCH}\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n";
        let asked = self.ask(&Program::new(["rpm", "--query", "--queryformat", format]).args(names.to_vec())).await?;
        // The code is the number of names that are not there: trust it only when each of them is accounted for.
        read_query(names, &asked.stdout.text())
            .ok_or_else(|| asked.failure().within("cannot look at the installed packages"))
    }
}

/// `rpm --query`'s lines by the names that were asked for; `None` when it does not speak of each.
fn read_query(names: &[&str], text: &str) -> Option<BTreeMap<String, Found>> {
    let mut found: BTreeMap<String, Found> = names.iter().map(|name| ((*name).to_owned(), Found::Absent)).collect();
    let mut spoken = 0;
    for line in text.lines() {
        spoken += usize::from(line.starts_with("=\t") || line.ends_with(" is not installed"));
        let Some(rest) = line.strip_prefix("=\t") else { continue };
        let mut parts = rest.split('\t');
        let (Some(name), Some(arch), Some(version)) = (parts.next(), parts.next(), parts.next()) else { return None };
        for asked in [name.to_owned(), format!("{name}.{arch}")] {
            if let Some(known) = found.get_mut(&asked) {
                // Of several versions (kernels), the last is the newest.
                *known = Found::Installed(version.to_owned());
            }
        }
    }
    (spoken >= names.len()).then_some(found)
}

fn manager(name: &str) -> Program {
    Program::new([name, "-y", "--setopt=exit_on_lock=True"])
}

impl Actuator {
    pub(super) async fn rpm_install(&self, name: &str, install: &Install, wait: &Wait) -> Result<(), Failure> {
        let words: Vec<String> = self.as_installed(&install.wishes).await?.iter().map(spelled).collect();
        let mut program = manager(name);
        if name == "dnf" {
            program = program
                .arg(format!("--setopt=install_weak_deps={}", if install.recommends { "True" } else { "False" }));
            if install.may_remove {
                program = program.arg("--allowerasing");
            }
        }
        if let Some(refresh) = install.refresh {
            program = program.arg(format!("--setopt=*.metadata_expire={}", refresh.as_secs()));
        }
        let install_it = program.clone().arg("install").args(words.clone());
        let mut ended = self.rpm_run(&install_it, wait).await?;
        if !ended.success() && (stale(&ended) || !unknown(&ended).is_empty()) {
            self.rpm_run(&manager(name).args(["clean", "expire-cache"]), wait).await?;
            ended = self.rpm_run(&install_it, wait).await?;
        }
        let unknown = unknown(&ended);
        if !ended.success() && !unknown.is_empty() {
            return Err(Failure::new(format!("there is no package {} for this host", listed(&unknown)))
                .because(format!("`{name}` refreshed its lists just now")));
        }
        ended.expect_success()?;
        self.provided_by_others(&install.wishes).await
    }

    /// dnf takes a name that a package provides for that package; nobody could see later that it is there.
    async fn provided_by_others(&self, wishes: &[Wish]) -> Result<(), Failure> {
        let names: Vec<&str> = wishes.iter().map(|wish| wish.name.as_str()).collect();
        let found = self.rpm_query(&names).await?;
        let absent: Vec<&String> =
            found.iter().filter(|(_, state)| **state == Found::Absent).map(|(name, _)| name).collect();
        if absent.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("{} is not the name of a package, only one that packages provide", listed(&absent)))
            .hint("name the package itself: `rpm -q --whatprovides NAME` tells it"))
    }

    pub(super) async fn rpm_remove(&self, name: &str, remove: &Remove, wait: &Wait) -> Result<(), Failure> {
        if !remove.may_remove {
            let test = self.ask(&Program::new(["rpm", "--erase", "--test"]).args(remove.names.clone())).await?;
            let others = needed_by(&test.stderr.text());
            if !others.is_empty() {
                return Err(others_would_go(&format!("removing {}", listed(&remove.names)), &others));
            }
            test.expect_success()?;
        }
        // What came as a need of others is not ours to take away.
        let program = manager(name).args(["--setopt=clean_requirements_on_remove=False", "remove"]);
        self.rpm_run(&program.args(remove.names.clone()), wait).await?.expect_success()?;
        Ok(())
    }

    async fn rpm_run(&self, program: &Program, wait: &Wait) -> Result<Ended, Failure> {
        loop {
            let ended = self.run(program).await?;
            if ended.code != LOCKED {
                return Ok(ended);
            }
            if wait.over() {
                return Err(wait.failure("another package manager is at work on this host".to_owned()));
            }
            self.progress("waiting for another package manager", None);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A wish as dnf's command line takes it.
fn spelled(wish: &Wish) -> String {
    wish.version.as_ref().map_or_else(|| wish.name.clone(), |version| format!("{}-{version}", wish.name))
}

fn stale(ended: &Ended) -> bool {
    let text = ended.stderr.text();
    ["404", "Cannot download", "No more mirrors", "Error downloading packages"].iter().any(|sign| text.contains(sign))
}

/// The names that nobody offers: dnf's words, then yum's.
fn unknown(ended: &Ended) -> Vec<String> {
    unknown_in(&format!("{}\n{}", ended.stdout.text(), ended.stderr.text()))
}

fn unknown_in(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let dnf = line.strip_prefix("No match for argument: ");
        let yum = || line.strip_prefix("No package ")?.strip_suffix(" available.");
        dnf.or_else(yum).map(|name| name.trim().to_owned())
    };
    let mut names: Vec<String> = text.lines().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

/// `rpm --erase --test`: `a is needed by (installed) b-1.0-1.noarch`.
fn needed_by(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once("is needed by (installed) "))
        .map(|(_, by)| by.trim().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let text = "=\ta\tnoarch\t1.0-1\npackage b is not installed\n=\tc\tx86_64\t2:1.0-1\n";
        let found = read_query(&["a", "b", "c.x86_64"], text).unwrap();
        assert_eq!(found["a"], Found::Installed("1.0-1".to_owned()));
        assert_eq!(found["b"], Found::Absent);
        assert_eq!(found["c.x86_64"], Found::Installed("2:1.0-1".to_owned()));
        assert_eq!(read_query(&["a"], "error: cannot open Packages database\n"), None);
        assert_eq!(read_query(&["a"], ""), None);
    }

    #[test]
    fn names_in_complaints() {
        let text = "Last metadata expiration check: 0:00:01 ago\nNo match for argument: nosuch\nError: Unable to find a match: nosuch\n";
        assert_eq!(unknown_in(text), ["nosuch"]);
        assert_eq!(unknown_in("No package nosuch available.\nError: Nothing to do\n"), ["nosuch"]);
        let text = "error: Failed dependencies:\n\ta is needed by (installed) b-1.0-1.noarch\n\ta >= 1 is needed by (installed) b-1.0-1.noarch\n";
        assert_eq!(needed_by(text), ["b-1.0-1.noarch"]);
    }
}
