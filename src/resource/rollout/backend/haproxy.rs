//! A server of HAProxy, by its runtime socket.
//!
//! `maint` without a wait cuts, `drain` with one finishes (openshift/router#668). Whether a server is empty is counted, never guessed from a time; and a
//! server comes back only when HAProxy's own checks find it well, so that one that did not come up again stays out.

use std::time::Duration;

use super::{AtLimit, Backend, Bound, Limit, Seen, over, unknown};
use crate::failure::Failure;
use crate::system::haproxy::{Order, Server};
use crate::system::{Actuator, Probe};
use crate::visible::count;

/// How long cut sessions may take to be gone: limit `cut`.
const CUT: Duration = Duration::from_secs(5);

/// How many looks in a row must find a server empty: a thread may just be handing it a request that it took before the drain.
const EMPTY_LOOKS: u32 = 2;

pub(super) struct HaProxy<'a> {
    pub(super) backend: &'a Backend,
    pub(super) socket: &'a str,
    pub(super) pool: &'a str,
}

impl HaProxy<'_> {
    pub(super) async fn look(&self, probe: &Probe) -> Result<Seen, Failure> {
        let server = self.server(probe).await?;
        let seen = seen(&server);
        if self.moves() && server.draining() && !server.in_maintenance() {
            let words = format!("{}, but for bound clients", seen.shown);
            return Ok(Seen { stands: words.clone(), shown: words, ..seen });
        }
        let out = seen.out || self.moves() && server.in_maintenance();
        Ok(Seen { out, ..seen })
    }

    /// Whether bound clients are sent away as well, for which HAProxy has its maintenance alone.
    fn moves(&self) -> bool {
        self.backend.bound == Bound::Move
    }

    async fn server(&self, probe: &Probe) -> Result<Server, Failure> {
        self.find(&probe.haproxy_servers(self.socket).await?)
    }

    fn find(&self, servers: &[Server]) -> Result<Server, Failure> {
        let name = self.backend.name.as_str();
        let in_pool = servers.iter().filter(|server| server.pool == self.pool);
        if let Some(server) = in_pool.clone().find(|server| server.name == name) {
            return Ok(server.clone());
        }
        let known: Vec<&str> = in_pool.map(|server| server.name.as_str()).collect();
        if known.is_empty() {
            let mut pools: Vec<&str> = servers.iter().map(|server| server.pool.as_str()).collect();
            pools.dedup();
            return Err(unknown("pool", self.pool, &format!("in HAProxy at {}", self.socket), &pools));
        }
        Err(unknown("server", name, &format!("in HAProxy's pool `{}`", self.pool), &known))
    }

    /// Takes it out, and waits until it is empty.
    pub(super) async fn drain(&self, hands: &Actuator) -> Result<(), Failure> {
        let limit = self.backend.limit();
        let server = self.not_the_last(hands, limit).await?;
        let out = server.in_maintenance() || server.draining() && !self.moves();
        if !out {
            let order = if self.moves() { Order::Maintenance } else { Order::Drain };
            hands.haproxy_order(self.socket, &server, order).await?;
        }
        let failure = match self.until_empty(hands, limit).await {
            Err(failure) if over(&failure) => failure,
            done => return done,
        };
        if self.backend.at_limit == AtLimit::Fail {
            return Err(failure.hint(
                "it stays without new requests. Give it more time (`within = 5m`), or have the rest cut off (`at_limit = cut`); \
                 clients that are bound to it by a cookie or a stick table still come to it unless `bound = move`",
            ));
        }
        hands.progress("cutting off what is still under way", None);
        hands.haproxy_order(self.socket, &server, Order::Cut).await?;
        self.until_empty(hands, Limit::new("cut", CUT)).await
    }

    /// Returns the server once another one of its pool is in traffic: nobody answers any more when the last one goes. One that was just
    /// started is in traffic when HAProxy's checks have found it well, so it is waited for while one may come.
    async fn not_the_last(&self, hands: &Actuator, limit: Limit) -> Result<Server, Failure> {
        loop {
            let servers = hands.haproxy_servers(self.socket).await?;
            let server = self.find(&servers)?;
            let others = || servers.iter().filter(|other| other.pool == server.pool && other.name != server.name);
            if self.backend.even_last || !server.in_traffic() || others().any(Server::in_traffic) {
                return Ok(server);
            }
            let failure = last(&self.backend.shown());
            let down: Vec<&Server> = others().filter(|other| other.comes_by_itself()).collect();
            let Some(first) = down.first() else { return Err(failure) };
            hands.progress(&format!("the last one in traffic; not yet: {} {}", first.name, health(first)), None);
            if let Err(over) = limit.wait().await {
                let said: Vec<String> =
                    down.iter().map(|other| format!("{} is {}", other.name, health(other))).collect();
                return Err(failure.because(said.join(", ")).because(over));
            }
        }
    }

    async fn until_empty(&self, hands: &Actuator, limit: Limit) -> Result<(), Failure> {
        let mut empty = 0;
        loop {
            let server = self.server(hands).await?;
            empty = if server.under_way() == 0 { empty + 1 } else { 0 };
            if empty >= EMPTY_LOOKS {
                return Ok(());
            }
            let left = under_way(&server);
            if empty == 0 {
                hands.progress(&format!("{left} under way"), None);
            }
            let shown = self.backend.shown();
            limit.wait().await.map_err(|failure| failure.within(format!("{shown} is not empty: {left} under way")))?;
        }
    }

    /// Waits until HAProxy finds it well, and lets it in.
    pub(super) async fn ready(&self, hands: &Actuator) -> Result<(), Failure> {
        let (limit, shown) = (self.backend.limit(), self.backend.shown());
        let server = self.server(hands).await?;
        if let Some(reason) = server.held() {
            return Err(Failure::new(format!("{shown} cannot be taken into traffic")).because(reason));
        }
        if server.in_maintenance() {
            if !self.backend.adopt && !self.moves() {
                return Err(Failure::new(format!("{shown} is in maintenance, and not by fanli"))
                    .because("fanli drains, and uses `maint` only with `bound = move`: somebody has put it there, or HAProxy's configuration says `disabled`")
                    .hint(format!("when it may come back: `set server {shown} state ready` at the socket, or `adopt = true`")));
            }
            // Out of maintenance, but not into traffic: its checks begin again.
            hands.haproxy_order(self.socket, &server, Order::Drain).await?;
        }
        let (mut let_in, mut last_check) = (false, None);
        loop {
            let mut server = self.server(hands).await?;
            match &last_check {
                Some(whole) if server.checking => server.check.clone_from(whole),
                _ => last_check = Some(server.check.clone()),
            }
            if server.up() && !let_in && (server.draining() || server.in_maintenance()) {
                hands.haproxy_order(self.socket, &server, Order::Ready).await?;
                let_in = true;
                continue;
            }
            if server.in_traffic() {
                return Ok(());
            }
            if server.up() && server.weight == 0 {
                return Err(Failure::new(format!("{shown} has the weight 0, and gets nothing"))
                    .hint(format!("give it one: `set server {shown} weight 100%` at the socket")));
            }
            let found = seen(&server).shown;
            hands.progress(&format!("not yet: {found}"), None);
            let Err(failure) = limit.wait().await else { continue };
            let kept = match (server.draining(), self.backend.in_any_case) {
                (true, true) => {
                    hands.haproxy_order(self.socket, &server, Order::Ready).await?;
                    "; it comes into traffic when HAProxy does"
                }
                (true, false) => "; it stays out of traffic",
                (false, _) => "",
            };
            let failure = failure.within(format!("HAProxy does not find {shown} well: {}{kept}", health(&server)));
            return Err(failure.hint("look at the server itself; when it only needs longer to come up: `within = 2m`"));
        }
    }
}

pub(super) fn last(shown: &str) -> Failure {
    Failure::new(format!("{shown} is the last server of its pool in traffic"))
        .because("without it nobody would answer")
        .hint("bring another one back first, or say that it may be: `even_last = true`")
}

/// `3 sessions`, `3 sessions and 1 queued request`.
fn under_way(server: &Server) -> String {
    let sessions = count(server.sessions, "session");
    if server.queued == 0 { sessions } else { format!("{sessions} and {}", count(server.queued, "queued request")) }
}

/// What the checks say.
fn health(server: &Server) -> String {
    if server.wants_out() {
        return format!("stopping: its check asks to be left out ({})", server.check);
    }
    if server.up() { "up".to_owned() } else { format!("down ({})", server.check) }
}

fn seen(server: &Server) -> Seen {
    let busy = server.under_way() > 0;
    let sessions = || under_way(server);
    let (stands, shown) = if server.in_maintenance() {
        // It gets nothing: that is what a drained one is for.
        if busy { (None, format!("maint ({})", sessions())) } else { (Some("drained"), "maint".to_owned()) }
    } else if server.draining() {
        if busy { (None, format!("draining ({})", sessions())) } else { (Some("drained"), "drained".to_owned()) }
    } else if !server.up() {
        (None, health(server))
    } else if server.weight == 0 {
        (None, "ready, but of weight 0".to_owned())
    } else {
        (Some("ready"), "ready".to_owned())
    };
    let stands = stands.map_or_else(|| shown.clone(), str::to_owned);
    let sick = !server.in_maintenance() && !server.up();
    // A server in maintenance is a person's.
    let out = server.draining() && !server.in_maintenance();
    Seen { stands, shown, sessions: Some(server.under_way()), sick, out }
}
