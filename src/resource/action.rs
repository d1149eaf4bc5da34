//! What `command` and `shell` share: guards, exit codes, and the three ways to run a program.
//!
//! A program acts (the rule), only looks (`changes = false`), or is waited for (`within`). The last two run inside `observe`,
//! in check mode too: the playbook vouches for it that they change nothing.

use std::time::Duration;

use super::param::{HostPath, Mode, Owner};
use super::patience::Patience;
use super::{ArgError, Nature, Observed};
use crate::change::{DONE, Datum, Fields, State};
use crate::failure::Failure;
use crate::system::process::{Ended, Program};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// A program with all that is declared about it.
pub(super) struct Action<'a> {
    pub(super) argv: Vec<String>,
    pub(super) creates: Option<&'a HostPath>,
    pub(super) removes: Option<&'a HostPath>,
    pub(super) unless: Option<Vec<String>>,
    pub(super) only_if: Option<Vec<String>>,
    pub(super) dir: Option<&'a HostPath>,
    pub(super) env: &'a Map,
    pub(super) user: Option<&'a Owner>,
    pub(super) umask: Mode,
    pub(super) stdin: Option<&'a str>,
    pub(super) ok_codes: &'a [i64],
    pub(super) changes: bool,
    pub(super) within: Option<Duration>,
    pub(super) every: Duration,
}

impl Action<'_> {
    /// The rules over several parameters.
    pub(super) fn check(&self) -> Result<(), ArgError> {
        for (name, value) in self.env {
            let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            if name.is_empty() || name.contains(odd) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(ArgError::new("env", format!("`{name}` is not a name of a variable")));
            }
            if matches!(value, Value::List(_) | Value::Map(_) | Value::Null | Value::Call(_)) {
                let message = format!("`{name}` is a {}, which no environment can hold", value.type_name());
                return Err(ArgError::new("env", message));
            }
            if value.to_string().contains('\0') {
                return Err(ArgError::new("env", format!("`{name}` holds a NUL")));
            }
        }
        if self.ok_codes.is_empty() || !self.ok_codes.iter().all(|code| (0..=255).contains(code)) {
            return Err(ArgError::new("ok_codes", "expected exit codes from 0 to 255"));
        }
        if self.umask.0 > 0o777 {
            return Err(ArgError::new("umask", "is at most 0777"));
        }
        let results = [
            ("creates", self.creates.is_some()),
            ("removes", self.removes.is_some()),
            ("unless", self.unless.is_some()),
        ];
        let given = results.iter().find(|(_, given)| *given).map(|(name, _)| *name);
        match (self.within, given) {
            (Some(_), Some(name)) => Err(ArgError::new(name, "means nothing beside `within`: a wait changes nothing")),
            (None, Some(name)) if !self.changes => {
                Err(ArgError::new(name, "means nothing beside `changes = false`: it is run every time"))
            }
            (Some(within), None) => Patience { within, every: self.every, times: 1 }.check(),
            _ => Ok(()),
        }
    }

    pub(super) fn nature(&self) -> Nature {
        if self.within.is_some() {
            return Nature::Wait;
        }
        Nature::Action { verify: self.creates.is_some() || self.removes.is_some() || self.unless.is_some() }
    }

    fn acts(&self) -> bool {
        self.changes && self.within.is_none()
    }

    /// What is so once it has run.
    pub(super) fn desired(&self) -> State {
        let mut fields = Fields::new();
        if let Some(path) = self.creates {
            fields.insert("creates".to_owned(), path.0.as_str().into());
        }
        if self.removes.is_some() {
            fields.insert("removes".to_owned(), Datum::Absent);
        }
        if self.unless.is_some() {
            fields.insert("unless".to_owned(), true.into());
        }
        if fields.is_empty() && self.acts() {
            fields.insert(DONE.to_owned(), true.into());
        }
        State::Present(fields)
    }

    /// Looks at the guards; runs what only looks.
    pub(super) async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        if let Some(condition) = &self.only_if
            && !self.ask("only_if", condition, probe).await?.success()
        {
            return Ok(Observed { state: self.desired(), output: not_run() });
        }
        if let Some(within) = self.within {
            let patience = Patience { within, every: self.every, times: 1 };
            let program = &self.program(probe).await?;
            let attempt = || async move { self.judge(&probe.ask_patiently(program).await?) };
            return Ok(Observed { state: self.desired(), output: patience.until(probe, attempt).await? });
        }
        if !self.changes {
            let ended = probe.ask_patiently(&self.program(probe).await?).await?;
            return Ok(Observed { state: self.desired(), output: self.judge(&ended)? });
        }
        let mut fields = Fields::new();
        for (name, path) in [("creates", self.creates), ("removes", self.removes)] {
            if let Some(path) = path {
                let there = probe.exists(&path.0)?;
                let found = if there { Datum::from(path.0.as_str()) } else { Datum::Absent };
                fields.insert(name.to_owned(), found);
            }
        }
        if let Some(guard) = &self.unless {
            let ended = self.ask("unless", guard, probe).await?;
            let found = if ended.success() {
                Datum::from(true)
            } else {
                Datum::from(format!("false (exit code {})", ended.code))
            };
            fields.insert("unless".to_owned(), found);
        }
        Ok(Observed { state: State::Present(fields), output: not_run() })
    }

    /// Runs it.
    pub(super) async fn apply(&self, hands: &Actuator) -> Result<Map, Failure> {
        let ended = hands.run(&self.program(hands).await?).await?;
        self.judge(&ended)
    }

    /// The program with its surroundings.
    async fn program(&self, probe: &Probe) -> Result<Program, Failure> {
        let program = self.surrounded(&self.argv, probe).await?;
        Ok(program.stdin(self.stdin.unwrap_or_default()))
    }

    async fn surrounded(&self, argv: &[String], probe: &Probe) -> Result<Program, Failure> {
        let mut program = Program::new(argv).umask(self.umask.0);
        for (name, value) in self.env {
            program = program.env(name, value.to_string());
        }
        if let Some(dir) = self.dir {
            program = program.dir(&dir.0);
        }
        if let Some(user) = self.user {
            let user = match user {
                Owner::Name(name) => name.clone(),
                Owner::Id(id) => id.to_string(),
            };
            program = program.user(probe.run_as(&user).await?);
        }
        Ok(program)
    }

    /// A guard's answer; a program that is not there answers nothing.
    async fn ask(&self, field: &str, argv: &[String], probe: &Probe) -> Result<Ended, Failure> {
        let ended = match self.surrounded(argv, probe).await {
            Ok(program) => probe.ask(&program).await,
            Err(failure) => Err(failure),
        };
        ended.map_err(|failure| failure.within(format!("`{field}` gives no answer")))
    }

    /// The result, or the failure of a code that is not among the good ones.
    fn judge(&self, ended: &Ended) -> Result<Map, Failure> {
        if self.ok_codes.contains(&i64::from(ended.code)) {
            return Ok(Map::from([
                ("code".to_owned(), Value::Int(ended.code.into())),
                ("stdout".to_owned(), Value::Str(ended.stdout.text())),
                ("stderr".to_owned(), Value::Str(ended.stderr.text())),
            ]));
        }
        let failure = ended.failure();
        Err(match ended.code {
            1..=125 => failure.hint(format!("when this code is a good end, say so: `ok_codes = [0, {}]`", ended.code)),
            _ => failure,
        })
    }
}

/// The result of what need not be run.
fn not_run() -> Map {
    Map::from([
        ("code".to_owned(), Value::Null),
        ("stdout".to_owned(), Value::from("")),
        ("stderr".to_owned(), Value::from("")),
    ])
}

fn not_a_line(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(|word| format!("\"{word}\"")).collect();
    format!("is a list of words, not a line: [{}]", words.join(", "))
}

/// A container's program, which the image may have instead.
pub(super) fn check_program(field: &str, argv: &[String]) -> Result<(), ArgError> {
    match argv {
        [line] if line.contains(char::is_whitespace) => {
            Err(ArgError::new(field, format!("{}; for a line: [\"sh\", \"-c\", \"…\"]", not_a_line(line))))
        }
        _ => Ok(()),
    }
}

/// A program's own words, or a guard's.
pub(super) fn check_argv(field: &str, argv: &[String]) -> Result<(), ArgError> {
    let wrong = |message: &str| Err(ArgError::new(field, message));
    match argv {
        [] => wrong("is empty: the first word is the program"),
        [first, ..] if first.is_empty() => wrong("begins with an empty word: the first is the program"),
        [line] if line.contains(char::is_whitespace) && !line.starts_with('/') => {
            Err(ArgError::new(field, format!("{}; lines are for `shell`", not_a_line(line))))
        }
        words if words.iter().any(|word| word.contains('\0')) => wrong("holds a NUL"),
        _ => Ok(()),
    }
}
