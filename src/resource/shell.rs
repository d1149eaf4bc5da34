//! `shell`: lines for `/bin/sh`.

use std::time::Duration;

use super::action::Action;
use super::param::{HostPath, Mode, Owner};
use super::{ArgError, Nature, Observed, Resource};
use crate::change::{Change, State};
use crate::failure::Failure;
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Runs lines of shell: pipes, loops, redirections.
    ///
    /// `/bin/sh -eu` reads them: it stops at the first command that fails (in a pipe only the last one counts), and at a variable
    /// that is not set. Values go in by `env`, where nothing in them can become shell: `env = { NAME = name }`, then `"$NAME"`.
    /// Everything else is as for `command`, which is to be preferred where one program is enough; `unless` and `only_if` are lines
    /// of shell here.
    pub struct Shell = "shell" {
        /// The lines.
        script: String,
        /// It makes this path: not run when it is there.
        creates: Option<HostPath>,
        /// It removes this path: not run when it is gone.
        removes: Option<HostPath>,
        /// Shell that only looks, and succeeds once this has done its work: not run when it succeeds. Limit: 60s.
        unless: Option<String>,
        /// Shell that only looks: not run when it fails. Limit: 60s.
        only_if: Option<String>,
        /// Where it starts; `/` by default.
        dir: Option<HostPath>,
        /// More environment variables.
        env: Map = Map::new(),
        /// The user that it runs as, by name or number, with the user's own groups.
        user: Option<Owner>,
        /// The file mode creation mask that it begins with: `027` makes files that others cannot read.
        umask: Mode = Mode(0o022),
        /// What it reads; nothing by default.
        stdin: Option<String>,
        /// Exit codes that are a good end.
        ok_codes: Vec<i64> = vec![0],
        /// `false` says that it only looks.
        changes: bool = true,
        /// Only looks, and is run again and again until it ends well; fails when it does not within this time.
        within: Option<Duration>,
        /// The longest pause between two tries, with `within`: they begin at 50 ms and double.
        every: Duration = Duration::from_secs(1),
    }
    results {
        "code": "the exit code, 128 and the signal's number after a signal; null when it was not run",
        "stdout": "what it said: the first and the last 64 KiB",
        "stderr": "what it complained about, bounded in the same way",
    }
    example r#"shell "sort /etc/passwd | cut -d: -f1 > \"$TARGET\"" {
  env     = { TARGET = "/tmp/fanli-example.txt" }
  creates = "/tmp/fanli-example.txt"
}"#
}

/// A shell that reads those lines.
fn sh(script: &str) -> Vec<String> {
    ["/bin/sh", "-euc", script].map(str::to_owned).into()
}

impl Shell {
    fn action(&self) -> Action<'_> {
        Action {
            argv: sh(&self.script),
            creates: self.creates.as_ref(),
            removes: self.removes.as_ref(),
            unless: self.unless.as_deref().map(sh),
            only_if: self.only_if.as_deref().map(sh),
            dir: self.dir.as_ref(),
            env: &self.env,
            user: self.user.as_ref(),
            umask: self.umask,
            stdin: self.stdin.as_deref(),
            ok_codes: &self.ok_codes,
            changes: self.changes,
            within: self.within,
            every: self.every,
        }
    }
}

impl Resource for Shell {
    fn check(&self) -> Result<(), ArgError> {
        let lines = [("unless", self.unless.as_deref()), ("only_if", self.only_if.as_deref())];
        for (field, script) in [("script", Some(self.script.as_str()))].into_iter().chain(lines) {
            let Some(script) = script else { continue };
            if script.trim().is_empty() || script.contains('\0') {
                return Err(ArgError::new(field, "is empty, or holds a NUL"));
            }
            // execve(2): one argument may have 128 KiB.
            if script.len() >= 128 * 1024 {
                return Err(ArgError::new(field, "is longer than 128 KiB: put it into a `file`, and run that"));
            }
        }
        self.action().check()
    }

    fn nature(&self) -> Nature {
        self.action().nature()
    }

    fn desired(&self) -> State {
        self.action().desired()
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        self.action().observe(probe).await
    }

    async fn apply(&self, _: &Change, hands: &Actuator) -> Result<Map, Failure> {
        self.action().apply(hands).await
    }
}
