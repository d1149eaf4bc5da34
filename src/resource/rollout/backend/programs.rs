//! A server of any other balancer, by three programs.

use super::super::super::Param as _;
use super::super::super::action::check_argv;
use super::{ArgError, Limit, Seen, Wanted};
use crate::failure::Failure;
use crate::system::process::Program;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// The longest word that a check may say for its state, in bytes.
const MOST_WORD: usize = 120;

/// What is run for a server.
pub(super) struct Programs {
    drain: Vec<String>,
    ready: Vec<String>,
    check: Vec<String>,
}

impl Programs {
    pub(super) fn read(map: &Map) -> Result<Self, ArgError> {
        if let Some(unknown) = map.keys().find(|name| !["drain", "ready", "check"].contains(&name.as_str())) {
            return Err(ArgError::new("command", format!("has no `{unknown}`; it has drain, ready, check")));
        }
        let argv = |name: &str| {
            let given = map.get(name).cloned().unwrap_or(Value::Null);
            let argv = Vec::<String>::read(given);
            let argv = argv.map_err(|_| ArgError::new("command", format!("needs `{name}`, a list of words")))?;
            check_argv("command", &argv)
                .map_err(|error| ArgError::new("command", format!("`{name}` {}", error.message)))?;
            Ok(argv)
        };
        Ok(Self { drain: argv("drain")?, ready: argv("ready")?, check: argv("check")? })
    }

    pub(super) async fn look(&self, probe: &Probe) -> Result<Seen, Failure> {
        let ended = probe.ask(&Program::new(self.check.iter().cloned())).await?;
        let said = ended.expect_success().map_err(|failure| failure.within("`check` gives no answer"))?.stdout.text();
        let first = crate::visible::visible(said.lines().next().unwrap_or("").trim());
        if first.is_empty() || first.len() > MOST_WORD {
            return Err(Failure::new("`check` gives no answer")
                .because("its first line is empty or too long")
                .hint("let it say `ready`, `drained`, or in a few words what else is so"));
        }
        let out = first == Wanted::Drained.show();
        Ok(Seen { out, ..Seen::words(first) })
    }

    /// Runs the program for that state, and waits until the check says it.
    pub(super) async fn bring(&self, wanted: Wanted, limit: Limit, hands: &Actuator) -> Result<(), Failure> {
        let argv = if wanted == Wanted::Ready { &self.ready } else { &self.drain };
        hands.run(&Program::new(argv.iter().cloned())).await?.expect_success()?;
        let wanted = wanted.show();
        loop {
            let seen = self.look(hands).await?;
            if seen.stands == wanted {
                return Ok(());
            }
            hands.progress(&format!("not yet: {}", seen.shown), None);
            let told = format!("`check` still says `{}`, not `{wanted}`", seen.shown);
            limit.wait().await.map_err(|failure| failure.within(told))?;
        }
    }
}
