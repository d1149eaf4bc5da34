//! `tcp`: waits until a port takes connections.

use std::net::SocketAddr;
use std::time::Duration;

use super::patience::Patience;
use super::{ArgError, Nature, Observed, Resource};
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

crate::kind! {
    /// Waits until a port takes connections, asked from the host.
    ///
    /// It says that somebody listens, not that he is well: where a server has a page or a command that tells, `http` and `command`
    /// say more. It only looks, in check mode too, unless changes before it were not applied.
    pub struct Tcp = "tcp" {
        /// An address and a port: `10.88.8.10:6379`, `[fd00::10]:6379`.
        address: String,
        /// How long to wait for it.
        within: Duration = Duration::from_secs(30),
        /// How many times in a row it must take a connection.
        times: i64 = 1,
        /// The longest pause between two tries: after ones that fail it begins at 50 ms and doubles.
        every: Duration = Duration::from_secs(1),
        /// How long one try may take.
        connect_timeout: Duration = Duration::from_secs(3),
    }
    results {
        "took": "how long the connection took, a duration",
    }
    example r#"tcp "127.0.0.1:18766" { within = 10s }"#
}

impl Tcp {
    fn patience(&self) -> Patience {
        Patience { within: self.within, every: self.every, times: self.times }
    }

    fn to(&self) -> Result<SocketAddr, ArgError> {
        let to: Option<SocketAddr> = self.address.parse().ok();
        to.filter(|to| to.port() != 0).ok_or_else(|| {
            ArgError::new(
                "address",
                format!("`{}` is not an address and a port, such as `10.88.8.10:6379`", self.address),
            )
        })
    }
}

impl Resource for Tcp {
    fn check(&self) -> Result<(), ArgError> {
        self.to()?;
        if self.connect_timeout.is_zero() {
            return Err(ArgError::new("connect_timeout", "must be longer than nothing: `connect_timeout = 3s`"));
        }
        self.patience().check()
    }

    fn nature(&self) -> Nature {
        Nature::Wait
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let (to, limit) = (self.to()?, self.connect_timeout.min(self.within));
        let took = self.patience().until(probe, || probe.connects(to, limit)).await;
        let took = took.map_err(|failure| failure.within(format!("{to} takes no connections")))?;
        Ok(Observed { state: self.desired(), output: Map::from([("took".to_owned(), Value::Duration(took))]) })
    }

    async fn apply(&self, _: &Change, _: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
