//! The trial itself, a step after the other: check, start, look at what is listened on, ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use tokio::time::Instant;

use super::mark::{self, Listens};
use super::requests::Smoke;
use super::room::Room;
use super::{LABEL, Subject, Trial, ports, typed};
use crate::failure::Failure;
use crate::system::docker::{Container, DockerHands};
use crate::system::netns::Namespace;
use crate::system::{Actuator, Probe};

/// How often it is looked whether a port is listened on.
const EVERY: Duration = Duration::from_millis(100);

/// How long a killed program may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// The number of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// What the steps share.
struct Hall<'a> {
    name: String,
    subject: &'a Subject,
    room: &'a Room,
    docker: &'a DockerHands,
    hands: &'a Actuator,
}

impl Trial {
    /// Tries the generation; gives what it listened on.
    pub(super) async fn run(
        &self,
        subject: &Subject,
        docker: &DockerHands,
        hands: &Actuator,
    ) -> Result<Listens, Failure> {
        let room = self.furnish(subject, hands).await?;
        let hall = Hall { name: self.name(), subject, room: &room, docker, hands };
        if let Some(argv) = self.validate.as_ref().filter(|argv| !argv.is_empty()) {
            hands.progress(&format!("{} in {}", typed(argv), hall.name), None);
            let removal = hands.removal(&hall.name)?;
            let valid = self.validate(argv, &hall).await;
            removal.now().await.and(valid)?;
        }
        let argv = self.start.as_ref().unwrap_or(&subject.blueprint.command);
        if argv.is_empty() {
            return match self.start {
                Some(_) => Ok(Listens::new()),
                None => Err(Failure::new("the image has no command to start").hint("declare `start`")),
            };
        }
        hands.progress(&format!("{} in {}", typed(argv), hall.name), None);
        let removal = hands.removal(&hall.name)?;
        let started = self.start(argv, &hall).await;
        let removed = removal.now().await;
        let listens = started?;
        removed.map(|()| listens)
    }

    async fn make(&self, argv: &[String], hall: &Hall<'_>) -> Result<(), Failure> {
        let labels = HashMap::from([(LABEL.to_owned(), self.path.0.clone())]);
        let six = hall.hands.knows_ipv6();
        let body = hall.subject.blueprint.on_trial(argv, hall.room.binds.clone(), labels, six);
        let failed = |failure: Failure| {
            failure.within(format!("generation {} cannot be tried with `{}`", self.generation, typed(argv)))
        };
        hall.docker.create(&hall.name, body).await.map_err(failed)?;
        hall.docker.start(&hall.name).await.map_err(failed)
    }

    /// The program that checks must end well, in time.
    async fn validate(&self, argv: &[String], hall: &Hall<'_>) -> Result<(), Failure> {
        self.make(argv, hall).await?;
        if !hall.docker.ended(&hall.name, self.validate_within).await? {
            let limit = Failure::timeout("validate_within", self.validate_within);
            return Err(hall.told(limit.within(format!("`{}` does not come to an end", typed(argv)))).await);
        }
        match hall.exit().await? {
            0 => Ok(()),
            code => {
                let by = typed(argv);
                let failure =
                    Failure::new(format!("generation {} is refused by `{by}` (exit code {code})", self.generation));
                Err(hall.told(failure).await)
            }
        }
    }

    /// The program itself must live, and serve.
    async fn start(&self, argv: &[String], hall: &Hall<'_>) -> Result<Listens, Failure> {
        self.make(argv, hall).await?;
        if hall.docker.ended(&hall.name, self.settle).await? {
            return Err(self.died(argv, hall).await?);
        }
        let Some(found) = hall.docker.container(&hall.name).await? else {
            return Err(Failure::new(format!("container {} was removed by somebody else", hall.name)).hint("run again"));
        };
        let Some(pid) = found.pid else { return Err(self.died(argv, hall).await?) };
        let inside = hall.hands.namespace(hall.docker, &found).await?;
        take_addresses(&hall.subject.addresses, &inside, hall.hands).await?;
        let smokes = self.smokes()?;
        let listens = match self.listening(pid, &smokes, hall).await {
            Ok(listens) => listens,
            Err(failure) if hall.lives().await? => return Err(hall.told(failure).await),
            Err(_) => return Err(self.died(argv, hall).await?),
        };
        self.fits(&listens, hall)?;
        self.ask(&smokes, &listens, &found, hall).await?;
        // Some listen a little later.
        let listens = mark::of(hall.hands.listening_beside(pid)?);
        self.fits(&listens, hall)?;
        if hall.lives().await? { Ok(listens) } else { Err(self.died(argv, hall).await?) }
    }

    /// Whether the node could listen on the same.
    fn fits(&self, listens: &Listens, hall: &Hall<'_>) -> Result<(), Failure> {
        let own = &hall.subject.addresses;
        let foreign = if hall.subject.anywhere { None } else { ports::foreign(listens, own) };
        let found = match foreign {
            None => ports::taken(listens, hall.subject.node.as_ref(), hall.hands)?,
            some => some,
        };
        found.map_or(Ok(()), |failure| Err(failure.within(format!("generation {} is refused", self.generation))))
    }

    /// Waits until it listens on all ports that are declared or asked; gives everything that it listens on.
    async fn listening(&self, pid: u32, smokes: &[Smoke], hall: &Hall<'_>) -> Result<Listens, Failure> {
        let declared = self.listens.iter().filter_map(|port| u16::try_from(*port).ok());
        let wanted: Vec<u16> = declared.chain(smokes.iter().map(|smoke| smoke.port)).collect();
        let deadline = Instant::now() + self.ready_within;
        loop {
            let listens = mark::of(hall.hands.listening_beside(pid)?);
            let missing = wanted.iter().find(|port| !listens.iter().any(|(_, found, _)| found == *port));
            let Some(port) = missing else { return Ok(listens) };
            if Instant::now() >= deadline || hall.hands.process(pid).is_none() {
                let limit = Failure::timeout("ready_within", self.ready_within);
                let what = format!("generation {} does not listen on port {port}", self.generation);
                return Err(limit.within(what));
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn ask(
        &self,
        smokes: &[Smoke],
        listens: &Listens,
        found: &Container,
        hall: &Hall<'_>,
    ) -> Result<(), Failure> {
        for smoke in smokes {
            let at = smoke.at(listens);
            let request = smoke.request(at.ip(), self.request_timeout);
            let what = format!("generation {} does not serve {} as it should", self.generation, request.url);
            hall.hands.progress(&request.url, None);
            let inside = hall.hands.namespace(hall.docker, found).await?;
            let answer = hall.hands.http_inside(request, inside, at).await;
            if let Err(failure) = answer.and_then(|answer| smoke.judge(&answer)) {
                let failure = failure.within(what);
                // That it ended meanwhile is the better reason, and its own log tells it.
                let ended = if hall.lives().await? { None } else { Some("the program ended meanwhile") };
                let failure = ended.into_iter().fold(failure, Failure::because);
                return Err(hall.told(failure).await);
            }
        }
        Ok(())
    }

    async fn died(&self, argv: &[String], hall: &Hall<'_>) -> Result<Failure, Failure> {
        let code = hall.exit().await?;
        let by = typed(argv);
        let what =
            format!("generation {} cannot be started: `{by}` ended by itself (exit code {code})", self.generation);
        let failure = hall.told(Failure::new(what)).await;
        Ok(if code == 0 { failure.hint("`start` must stay in the foreground") } else { failure })
    }
}

impl Hall<'_> {
    async fn lives(&self) -> Result<bool, Failure> {
        Ok(self.docker.container(&self.name).await?.is_some_and(|found| found.status == "running"))
    }

    async fn exit(&self) -> Result<i64, Failure> {
        let found = self.docker.container(&self.name).await?;
        let gone = || Failure::new(format!("container {} was removed by somebody else", self.name)).hint("run again");
        found.map(|found| found.exit.0).ok_or_else(gone)
    }

    /// Adds what the program itself said. It is killed for that: what it has said of a request may reach Docker after its answer, but not after
    /// its end.
    async fn told(&self, mut failure: Failure) -> Failure {
        let ended = async {
            if self.lives().await? {
                self.docker.signal(&self.name, "KILL").await?;
                self.docker.ended(&self.name, ENDS_WITHIN).await?;
            }
            Ok::<_, Failure>(())
        };
        // One that does not end has said something, too.
        let _ = ended.await;
        match self.docker.last_said(&self.name).await {
            Ok(said) if said.is_empty() => {}
            Ok(said) => failure = failure.because(format!("it said:\n{said}")),
            Err(error) => failure = failure.because(error),
        }
        for text in self.room.last_written(self.hands).await {
            failure = failure.because(text);
        }
        failure
    }
}

/// Gives the trial's loopback the node's own addresses, so that requests to them arrive.
async fn take_addresses(own: &[IpAddr], inside: &Namespace, hands: &Actuator) -> Result<(), Failure> {
    if own.is_empty() {
        return Ok(());
    }
    if own.iter().any(IpAddr::is_ipv6) {
        // Docker turns IPv6 off where it gave no such address itself.
        hands.interface_switches(Some(inside), "lo", &[("ipv6/disable_ipv6", "0")])?;
    }
    let netlink = hands.netlink_hands(Some(inside))?;
    let mut done = Ok(());
    for address in own {
        done = match address {
            IpAddr::V4(four) => netlink.add_address(LOOPBACK, Ipv4Net::from(*four)).await,
            IpAddr::V6(_) if !Probe::knows_ipv6(hands) => Ok(()),
            IpAddr::V6(six) => netlink.add_address6(LOOPBACK, Ipv6Net::from(*six)).await,
        };
        if done.is_err() {
            break;
        }
    }
    netlink.close().await;
    done
}
