//! Packages that install their daemons without starting them.
//!
//! Debian's maintainer scripts ask `/usr/sbin/policy-rc.d` before they start or stop anything. The one that is put there
//! refuses only what descends from fanli's own install, which it knows by a variable: a leftover of a killed run stands in
//! nobody's way, and goes with the next install or the next who asks.

use super::super::fs::Attrs;
use super::super::process::Program;
use super::super::{Actuator, Probe};
use crate::failure::Failure;

const PATH: &str = "/usr/sbin/policy-rc.d";

/// Handed down to what is not to start daemons.
pub(super) const VARIABLE: &str = "FANLI_STARTS_NO_DAEMONS";

/// How the file is known for fanli's.
const HEAD: &str = "#!/bin/sh\n# Put here by fanli while it installs packages.";

/// Also no stop: what an old-style upgrade stops, it could not start again. A restart of what runs is the package's own affair.
/// When fanli's process is gone, the first who asks takes the file away.
fn script() -> String {
    let pid = std::process::id();
    format!(
        r#"{HEAD} It refuses only what fanli's own install starts, and may be removed.
if [ -z "${VARIABLE}" ]; then
  [ -d /proc/{pid} ] || rm -f "$0"
  exit 0
fi
for word do
  case $word in start | stop | "(start)" | "(stop)") exit 101 ;; esac
done
exit 0
"#
    )
}

/// Keeps daemons from being started until it goes.
pub(super) struct Policy<'a> {
    hands: &'a Actuator,
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is harmless, and goes with the next install.
        let _ = self.hands.remove_file(PATH);
    }
}

impl Actuator {
    /// Forbids or allows the start of daemons by packages. A policy of the host's own is never touched.
    ///
    /// # Errors
    /// The host has a policy of its own that would let daemons start.
    pub(super) async fn policy(&self, start: bool) -> Result<Option<Policy<'_>>, Failure> {
        let found = self.read_policy()?;
        if found.as_ref().is_some_and(|found| found.starts_with(HEAD.as_bytes())) {
            self.remove_file(PATH)?;
        } else if found.is_some() {
            if start {
                return Ok(None);
            }
            let asked = self.ask(&Program::new([PATH, "fanli-asks", "start"])).await?;
            return match asked.code {
                101 => Ok(None),
                _ => Err(Failure::new("cannot keep the packages' daemons from starting")
                    .because(format!("this host has a {PATH} of its own, and it allows them"))
                    .hint("say `start = true` in the task, or remove that file")),
            };
        }
        if start {
            return Ok(None);
        }
        self.replace(PATH, script().as_bytes(), Attrs::mode(0o755))?;
        Ok(Some(Policy { hands: self }))
    }
}

impl Probe {
    fn read_policy(&self) -> Result<Option<Vec<u8>>, Failure> {
        self.read(PATH, 1 << 20)
    }
}
