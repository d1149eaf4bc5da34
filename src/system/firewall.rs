//! Docker's firewall and the bridges that are not Docker's.
//!
//! With `bridge-nf-call-iptables` on, the kernel shows what passes a bridge to iptables as if it were routed, and Docker's policy
//! for that is DROP. One rule per bridge, marked as ours, lets through what stays on it. It stands in `DOCKER-USER`, which
//! Docker leaves alone; where there is no such chain (before Docker 17.06, or without Docker's iptables), in `FORWARD`.

use super::process::Program;
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};

/// In seconds: how long iptables may wait for others that hold its lock.
const LOCK: &str = "10";

/// How a bridge stands with the firewall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passage {
    /// The kernel does not show the bridge's frames to iptables.
    #[default]
    Unfiltered,
    /// Our rule is there.
    Open,
    /// It is not.
    Closed,
}

/// The marked rule's words.
fn rule(bridge: &str) -> [String; 10] {
    let mark = format!("fanli:1:{bridge}");
    let words = ["-i", bridge, "-o", bridge, "-m", "comment", "--comment", &mark, "-j", "ACCEPT"];
    words.map(str::to_owned)
}

fn iptables() -> Program {
    Program::new(["iptables", "-w", LOCK])
}

impl Probe {
    /// Whether frames that stay on this bridge get through the host's firewall.
    pub async fn bridge_passage(&self, bridge: &str) -> Result<Passage, Failure> {
        match std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables") {
            Ok(text) if text.trim() == "1" => {}
            Ok(_) => return Ok(Passage::Unfiltered),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Passage::Unfiltered),
            Err(error) => return Err(error).context("cannot read bridge-nf-call-iptables"),
        }
        if self.program("iptables")?.is_none() {
            // Nothing has rules, or they are made in another way than Docker's.
            return Ok(Passage::Unfiltered);
        }
        for chain in ["DOCKER-USER", "FORWARD"] {
            if self.has_rule(chain, bridge).await? {
                return Ok(Passage::Open);
            }
        }
        Ok(Passage::Closed)
    }

    /// Whether a chain has the rule for this bridge. iptables ends with 1 where it, or the chain, is missing; an answer that could not be
    /// had is no such answer.
    async fn has_rule(&self, chain: &str, bridge: &str) -> Result<bool, Failure> {
        let asked = self.ask(&iptables().args(["-C", chain]).args(rule(bridge))).await?;
        match asked.code {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(asked.failure().within(format!("cannot look at the firewall's chain {chain}"))),
        }
    }
}

impl Actuator {
    /// Lets through what stays on the bridge.
    pub async fn open_bridge(&self, bridge: &str) -> Result<(), Failure> {
        if self.bridge_passage(bridge).await? != Passage::Closed {
            return Ok(());
        }
        let chain =
            if self.ask(&iptables().args(["-S", "DOCKER-USER"])).await?.success() { "DOCKER-USER" } else { "FORWARD" };
        let insert = iptables().args(["-I", chain]).args(rule(bridge));
        self.run(&insert)
            .await?
            .expect_success()
            .map(drop)
            .map_err(|failure| failure.within(format!("cannot let bridge {bridge} through the firewall")))
    }

    /// Takes the rule away; where there is none it is fine.
    pub async fn close_bridge(&self, bridge: &str) -> Result<(), Failure> {
        if self.program("iptables")?.is_none() {
            return Ok(());
        }
        for chain in ["DOCKER-USER", "FORWARD"] {
            while self.has_rule(chain, bridge).await? {
                let delete = iptables().args(["-D", chain]).args(rule(bridge));
                self.run(&delete).await?.expect_success()?;
            }
        }
        Ok(())
    }
}
