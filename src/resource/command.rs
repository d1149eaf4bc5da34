//! `command`: a program, run without a shell.

use std::time::Duration;

use super::action::{Action, check_argv};
use super::param::{HostPath, Mode, Owner};
use super::{ArgError, Nature, Observed, Resource};
use crate::change::{Change, State};
use crate::failure::Failure;
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Runs a program.
    ///
    /// Its words are given as a list, and no shell reads them: blanks, quotes and `$` mean nothing in them. It runs each time, and
    /// is reported as "ran". `creates`, `removes` and `unless` say what is so once it has run: when all that is declared is so
    /// already, it is "ok" and not run; when it is not so afterwards, the task fails.
    ///
    /// A program that only looks (`changes = false`) or is waited for (`within`) is run in check mode too, and is never a change:
    /// it must change nothing. It gets `PATH`, `HOME`, `LC_ALL=C.UTF-8` and `env`, the umask 022, and nothing of anybody's login. What it
    /// leaves in the background is killed with the run, unless it makes a session of its own: daemons are for `service`.
    pub struct Command = "command" {
        /// The program, by name or path, and its arguments.
        argv: Vec<String>,
        /// It makes this path: not run when it is there.
        creates: Option<HostPath>,
        /// It removes this path: not run when it is gone.
        removes: Option<HostPath>,
        /// A program that only looks, and succeeds once this one has done its work: not run when it succeeds. Limit: 60s.
        unless: Option<Vec<String>>,
        /// A program that only looks: not run when it fails. Limit: 60s.
        only_if: Option<Vec<String>>,
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
    example r#"command ["tar", "--create", "--file=/tmp/fanli-example.tar", "--directory=/etc", "hostname"] {
  creates = "/tmp/fanli-example.tar"
}"#
}

impl Command {
    fn action(&self) -> Action<'_> {
        Action {
            argv: self.argv.clone(),
            creates: self.creates.as_ref(),
            removes: self.removes.as_ref(),
            unless: self.unless.clone(),
            only_if: self.only_if.clone(),
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

impl Resource for Command {
    fn check(&self) -> Result<(), ArgError> {
        check_argv("argv", &self.argv)?;
        for (field, guard) in [("unless", &self.unless), ("only_if", &self.only_if)] {
            guard.as_ref().map_or(Ok(()), |argv| check_argv(field, argv))?;
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
