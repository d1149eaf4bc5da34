//! Clients with a ledger: each request has a number, and what became of it is written down.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long half of a slow body is held back.
const SLOW: Duration = Duration::from_millis(400);

/// How many pieces an upload has, and their length in bytes.
const UPLOAD: (usize, usize) = (64, 128 * 1024);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Row {
    pub id: u64,
    pub client: Client,
    pub outcome: Result<u16, String>,
    begun: Instant,
    ended: Instant,
}

impl Row {
    pub fn failed(&self) -> bool {
        !matches!(self.outcome, Ok(200))
    }

    /// Whether it was under way at some moment between these two.
    pub fn overlaps(&self, from: Instant, to: Instant) -> bool {
        self.begun <= to && self.ended >= from
    }

    pub fn what(&self) -> &'static str {
        match self.client {
            Client::KeepAlive | Client::Once | Client::Bound => "GET",
            Client::SlowPost | Client::SlowPostKeepAlive => "POST",
            Client::Upload => "upload",
        }
    }
}

/// Clients that ask until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    rows: Arc<Mutex<Vec<Row>>>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Gets pages over one connection for as long as the server keeps it.
    KeepAlive,
    /// Gets each page over a connection of its own.
    Once,
    /// Posts a body whose second half comes late, over a connection of its own.
    SlowPost,
    /// The same over one connection.
    SlowPostKeepAlive,
    /// Posts a body of some MiB that comes for a second.
    Upload,
    /// As `Once`, with a cookie that binds it to web1.
    Bound,
}

impl Load {
    /// Starts clients in the network of a process.
    pub fn start(pid: u32, address: &str, clients: &[(Client, usize)]) -> Self {
        let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let number = Arc::new(AtomicU64::new(1));
        let all = clients.iter().flat_map(|(client, count)| std::iter::repeat_n(*client, *count));
        let start = |client: Client| {
            let (stop, rows, number, address) = (stop.clone(), rows.clone(), number.clone(), address.to_owned());
            std::thread::spawn(move || {
                enter(pid);
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) {
                    let id = number.fetch_add(1, Ordering::Relaxed);
                    let begun = Instant::now();
                    let outcome = ask(client, id, &address, &mut kept).map_err(|error| error.to_string());
                    rows.lock().unwrap().push(Row { id, client, outcome, begun, ended: Instant::now() });
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
        };
        let clients = all.map(start).collect();
        Self { stop, rows, clients }
    }

    pub fn count(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    /// The ledger: every request of theirs.
    pub fn stop(mut self) -> Vec<Row> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        std::mem::take(&mut self.rows.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One request that stays under way until it is ended.
pub struct Held(TcpStream);

impl Held {
    pub fn start(pid: u32, address: &'static str) -> Self {
        let stream = std::thread::spawn(move || {
            enter(pid);
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(ANSWER)).unwrap();
            let head = "POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(b"x").unwrap();
            stream
        });
        Self(stream.join().unwrap())
    }

    /// What is answered once the rest was sent.
    pub fn end(mut self) -> String {
        let _ = self.0.write_all(b"x");
        let mut said = String::new();
        let _ = self.0.read_to_string(&mut said);
        said
    }
}

/// Takes this thread into the network of a process.
fn enter(pid: u32) {
    let net = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

pub fn summary(rows: &[Row]) -> String {
    let failed: Vec<&Row> = rows.iter().filter(|row| row.failed()).collect();
    let first: Vec<String> =
        failed.iter().take(5).map(|row| format!("{} {}: {:?}", row.what(), row.id, row.outcome)).collect();
    format!("{} of {} failed {}", failed.len(), rows.len(), first.join("; "))
}

fn ask(client: Client, id: u64, address: &str, kept: &mut Option<BufReader<TcpStream>>) -> std::io::Result<u16> {
    let keep = matches!(client, Client::KeepAlive | Client::SlowPostKeepAlive);
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    let connection = if keep { "keep-alive" } else { "close" };
    let head = format!("/?id={id} HTTP/1.1\r\nHost: web\r\nConnection: {connection}\r\n");
    match client {
        Client::Bound => stream.get_mut().write_all(format!("GET {head}Cookie: node=web1\r\n\r\n").as_bytes())?,
        Client::KeepAlive | Client::Once => stream.get_mut().write_all(format!("GET {head}\r\n").as_bytes())?,
        Client::SlowPost | Client::SlowPostKeepAlive => {
            let type_ = "application/x-www-form-urlencoded";
            let head = format!("POST {head}Content-Type: {type_}\r\nContent-Length: 2000\r\n\r\n");
            stream.get_mut().write_all(head.as_bytes())?;
            stream.get_mut().write_all(&[b'x'; 1000])?;
            std::thread::sleep(SLOW);
            stream.get_mut().write_all(&[b'x'; 1000])?;
        }
        Client::Upload => {
            let head = format!("POST {head}Content-Length: {}\r\n\r\n", UPLOAD.0 * UPLOAD.1);
            stream.get_mut().write_all(head.as_bytes())?;
            let piece = vec![b'x'; UPLOAD.1];
            for _ in 0..UPLOAD.0 {
                stream.get_mut().write_all(&piece)?;
                std::thread::sleep(Duration::from_millis(15));
            }
        }
    }
    let (status, goes_on) = answer(&mut stream)?;
    if keep && goes_on {
        *kept = Some(stream);
    }
    Ok(status)
}

/// The status, once the whole body is here, and whether the connection stays.
fn answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<(u16, bool)> {
    let broken = |what: &str| std::io::Error::other(what.to_owned());
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(broken("closed without an answer"));
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| broken("no status"))?;
    let (mut length, mut goes_on) = (None, true);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(broken("closed within the headers"));
        }
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
        goes_on &= line != "connection: close";
    }
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None => {
            stream.read_to_end(&mut body)?;
            goes_on = false;
        }
    }
    Ok((status, goes_on))
}
