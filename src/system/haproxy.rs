//! HAProxy's runtime socket (its management guide, section 9.3): which servers it has, what it thinks of each, and a server in
//! or out of traffic.
//!
//! Two tables are read in one go: `show servers state` tells what was ordered and what the checks say, `show stat` what is under way.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::waiting::waiting;
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};

/// How long the socket may take to answer: limit `answer`.
const ANSWER: Duration = Duration::from_secs(10);

/// The most bytes of an answer: tables of some ten thousand servers.
const MOST_ANSWER: u64 = 16 << 20;

/// The bits of `srv_admin_state`: out for good by order, by the server that it tracks, without an address, without a name.
const MAINT: u32 = 0x01 | 0x02 | 0x20 | 0x40;
/// The same for draining: by order, or by the server that it tracks.
const DRAIN: u32 = 0x08 | 0x10;
/// What no order about this server takes away.
const INHERITED: u32 = 0x02 | 0x10;
const NO_ADDRESS: u32 = 0x20 | 0x40;

/// One server of a pool (a `backend` section), as HAProxy sees it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its pool.
    pub pool: String,
    /// Its name there.
    pub name: String,
    /// What was ordered: bits.
    admin: u32,
    /// What the checks say: 0 stopped, 1 starting, 2 running, 3 stopping.
    operation: u32,
    /// Its weight at this moment.
    pub weight: u64,
    /// Requests (of plain TCP: connections) that it is serving.
    pub sessions: u64,
    /// Requests that wait for it alone.
    pub queued: u64,
    /// What its last check said.
    pub check: String,
    /// Whether the next check is under way: HAProxy may then tell less of what the last one said.
    pub checking: bool,
}

impl Server {
    /// It is in maintenance: it gets nothing and is not checked.
    pub fn in_maintenance(&self) -> bool {
        self.admin & MAINT != 0
    }

    /// It gets nothing new but what is bound to it by a cookie or a stick table, and is checked.
    pub fn draining(&self) -> bool {
        self.admin & DRAIN != 0
    }

    /// Why an order about this very server cannot bring it back.
    pub fn held(&self) -> Option<&'static str> {
        if self.admin & INHERITED != 0 {
            return Some("it follows another server (`track`), which is out of traffic");
        }
        (self.admin & NO_ADDRESS != 0).then_some("no address is known for its name")
    }

    /// The checks find it well, or there are none.
    pub fn up(&self) -> bool {
        matches!(self.operation, 1 | 2)
    }

    /// Its check answers that it wants to go (`http-check disable-on-404`).
    pub fn wants_out(&self) -> bool {
        self.operation == 3
    }

    /// New requests may come to it.
    pub fn in_traffic(&self) -> bool {
        !self.in_maintenance() && !self.draining() && self.up() && self.weight > 0
    }

    /// It gets new requests as soon as its checks find it well.
    pub fn comes_by_itself(&self) -> bool {
        !self.in_maintenance() && !self.draining() && !self.up() && self.held().is_none()
    }

    /// What it has not finished.
    pub fn under_way(&self) -> u64 {
        self.sessions.saturating_add(self.queued)
    }
}

/// An order about one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish, and get nothing new.
    Drain,
    /// Finish, and get nothing at all, not even checks.
    Maintenance,
    /// Back into traffic.
    Ready,
    /// Everything under way is cut off.
    Cut,
}

impl Probe {
    /// All servers of all pools.
    ///
    /// # Errors
    /// Nobody answers at the socket, or not in the words that are expected.
    pub async fn haproxy_servers(&self, socket: &str) -> Result<Vec<Server>, Failure> {
        let said = say(socket, "show servers state;show stat -1 4 -1").await?;
        read(&said).ok_or_else(|| refusal(socket, "gives no tables of its servers", &said))
    }
}

impl Actuator {
    /// Gives an order about a server.
    ///
    /// # Errors
    /// As [`Probe::haproxy_servers`]; and HAProxy refuses.
    pub async fn haproxy_order(&self, socket: &str, server: &Server, order: Order) -> Result<(), Failure> {
        let name = format!("{}/{}", server.pool, server.name);
        let line = match order {
            Order::Drain => format!("set server {name} state drain"),
            Order::Maintenance => format!("set server {name} state maint"),
            Order::Ready => format!("set server {name} state ready"),
            Order::Cut => format!("shutdown sessions server {name}"),
        };
        let said = say(socket, &line).await?;
        if said.trim().is_empty() { Ok(()) } else { Err(refusal(socket, &format!("refuses `{line}`"), &said)) }
    }
}

/// What HAProxy says instead of what was expected.
fn refusal(socket: &str, what: &str, said: &str) -> Failure {
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim();
    let failure = Failure::new(format!("HAProxy at {socket} {what}"));
    let failure = failure.because(format!("it said: {}", crate::visible::visible(first)));
    if first.starts_with("Permission denied") {
        return failure.hint(format!("the socket needs the level admin: `stats socket {socket} mode 600 level admin`"));
    }
    failure
}

/// One line for the socket, and all that it answers.
async fn say(socket: &str, line: &str) -> Result<String, Failure> {
    let what = format!("cannot talk to HAProxy at {socket}");
    let talk = waiting(&what, exchange(socket, line));
    match tokio::time::timeout(ANSWER, talk).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(failure)) => Err(failure.within(what)),
        Err(_) => Err(Failure::timeout("answer", ANSWER).within(what)),
    }
}

async fn exchange(socket: &str, line: &str) -> Result<String, Failure> {
    let mut stream = UnixStream::connect(Path::new(socket)).await.map_err(|error| no_socket(socket, &error))?;
    stream.write_all(format!("{line}\n").as_bytes()).await.context("it does not listen")?;
    let mut said = Vec::new();
    stream.take(MOST_ANSWER + 1).read_to_end(&mut said).await.context("its answer broke off")?;
    if said.len() as u64 > MOST_ANSWER {
        return Err(Failure::new("its answer is larger than 16MiB"));
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn no_socket(socket: &str, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new("there is no such socket").hint(format!(
            "is HAProxy running, and does its configuration say `stats socket {socket} mode 600 level admin`?"
        )),
        std::io::ErrorKind::ConnectionRefused => {
            Failure::new("nobody listens there").hint("the socket is left over: is HAProxy running?")
        }
        _ => Failure::new(error.to_string()),
    }
}

/// Both tables; `None` when one is missing or a line has too few columns.
fn read(said: &str) -> Option<Vec<Server>> {
    let (states, stats) = (table(said, "# be_id ", blanks)?, table(said, "# pxname,", commas)?);
    let under_way: BTreeMap<(&str, &str), _> = stats.iter().filter_map(|row| Some((names(row)?, row))).collect();
    let mut servers = Vec::new();
    for row in &states {
        let number = |column: &str| row.get(column)?.parse::<u64>().ok();
        let (pool, name) = (row.get("be_name")?.clone(), row.get("srv_name")?.clone());
        let stat = under_way.get(&(pool.as_str(), name.as_str()))?;
        let counted = |column: &str| stat.get(column).and_then(|text| text.parse().ok()).unwrap_or(0);
        let text = |column: &str| stat.get(column).cloned().unwrap_or_default();
        let status = text("check_status");
        let ended = status.strip_prefix("* ");
        let check = [ended.unwrap_or(&status), &text("last_chk")].join(" ").trim().to_owned();
        servers.push(Server {
            admin: u32::try_from(number("srv_admin_state")?).ok()?,
            operation: u32::try_from(number("srv_op_state")?).ok()?,
            weight: number("srv_uweight")?,
            sessions: counted("scur"),
            queued: counted("qcur"),
            check,
            checking: ended.is_some(),
            pool,
            name,
        });
    }
    Some(servers)
}

type Row = BTreeMap<String, String>;

fn names(row: &Row) -> Option<(&str, &str)> {
    Some((row.get("pxname")?, row.get("svname")?))
}

/// The rows below a headline, each by the names of its columns, up to an empty line.
fn table(said: &str, headline: &str, split: fn(&str) -> Vec<String>) -> Option<Vec<Row>> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with(headline));
    let columns = split(lines.next()?.trim_start_matches("# "));
    let rows = lines.take_while(|line| !line.trim().is_empty());
    Some(rows.map(|line| columns.iter().cloned().zip(split(line)).collect()).collect())
}

fn blanks(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Fields between commas; one in quotes may hold commas, and `""` for a quote.
fn commas(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut signs = line.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '"' if quoted && signs.peek() == Some(&'"') => field.extend(signs.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            sign => field.push(sign),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::{commas, read};

    const SAID: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
        3 web 1 web1 10.0.0.1 2 8 1\n3 web 2 web2 10.0.0.2 0 5 1\n3 web 3 web3 - 2 0 0\n\n\
        # pxname,svname,qcur,scur,status,check_status,last_chk\n\
        web,web1,1,2,DRAIN,L7OK,\"HTTP status, \"\"fine\"\"\"\nweb,web2,0,0,MAINT,,\nweb,web3,0,0,UP,L4OK,\n\n";

    #[test]
    fn both_tables_make_a_server() {
        let servers = read(SAID).unwrap();
        let [draining, out, weightless] = &servers[..] else { panic!("{servers:?}") };
        assert!(draining.draining() && !draining.in_maintenance() && draining.up() && !draining.in_traffic());
        assert_eq!((draining.under_way(), draining.check.as_str()), (3, "L7OK HTTP status, \"fine\""));
        assert!(out.in_maintenance() && !out.draining() && !out.up());
        assert!(weightless.up() && !weightless.in_traffic() && weightless.held().is_none());
        // While a check is under way.
        let servers = read(&SAID.replace(",L4OK,", ",* L4OK,")).unwrap();
        assert_eq!(servers.last().map(|server| (server.check.as_str(), server.checking)), Some(("L4OK", true)));
    }

    #[test]
    fn what_is_no_table_is_none() {
        for wrong in ["", "Permission denied\n", "Unknown command.\n", &SAID[..150], &SAID.replace(" 8 1", " 8")] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn fields_between_commas() {
        assert_eq!(commas("a,,\"b,c\",\"\""), ["a", "", "b,c", ""]);
    }
}
