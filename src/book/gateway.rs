//! etcd's JSON gateway: questions over HTTP, to whichever member answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use ureq::tls::{RootCerts, TlsConfig};

use super::jitter;
use crate::failure::{Context as _, Failure, FailureKind};
use crate::system::http::{certificates, host_authorities};

/// How long one member may take: limit `etcd_request`. A frozen one costs this once.
pub(super) const ETCD_REQUEST: Duration = Duration::from_secs(3);

/// How long all members together may take, elections included: limit `etcd_answer`.
pub(super) const ETCD_ANSWER: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes.
const MOST_ANSWER: u64 = 256 << 20;

/// Bytes as the gateway writes them.
pub(super) fn coded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a field of an answer; a field that is missing is empty.
pub(super) fn bytes(answer: &Json, field: &str) -> Vec<u8> {
    answer.get(field).and_then(Json::as_str).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
}

/// A number of an answer: the gateway writes 64 bits as text, and leaves out what is 0.
pub(super) fn number(answer: &Json, field: &str) -> u64 {
    let field = answer.get(field);
    field.and_then(|field| field.as_u64().or_else(|| field.as_str()?.parse().ok())).unwrap_or(0)
}

/// An answer, and whether an earlier try of the same question may have been carried out.
pub(super) struct Answer {
    pub(super) json: Json,
    pub(super) perhaps_before: bool,
}

/// The members of a cluster.
pub(super) struct Gateway {
    endpoints: Vec<String>,
    agent: ureq::Agent,
    /// The member that answered last.
    current: AtomicUsize,
    login: Option<(String, String)>,
    token: Mutex<Option<String>>,
}

/// Why one try gave nothing.
enum Trouble {
    /// The next member may know better.
    Next { why: String, perhaps_done: bool },
    /// The token is not good any more.
    Login,
    /// No member will do it.
    Refused(Failure),
}

impl Gateway {
    /// Members by URL. The login is `FANLI_ETCD_USER` and `FANLI_ETCD_PASSWORD`, an own authority for https is the file that
    /// `FANLI_ETCD_CA` names: secrets have no place in a playbook.
    pub(super) fn new(endpoints: &[String]) -> Result<Self, Failure> {
        if endpoints.is_empty() {
            return Err(
                Failure::new("no member of etcd is named").hint("`store { etcd = [\"http://10.0.0.5:2379\"] }`")
            );
        }
        for endpoint in endpoints {
            crate::system::http::check_url(endpoint).map_err(|why| Failure::new(format!("etcd: {why}")))?;
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let login = variable("FANLI_ETCD_USER").zip(variable("FANLI_ETCD_PASSWORD"));
        let roots = match variable("FANLI_ETCD_CA") {
            None => host_authorities(),
            Some(path) => {
                let pem = std::fs::read(&path).with_context(|| format!("cannot read FANLI_ETCD_CA={path}"))?;
                Some(certificates(&pem))
            }
        };
        let tls = TlsConfig::builder().root_certs(roots.unwrap_or(RootCerts::WebPki)).build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("fanli/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(ETCD_REQUEST))
            .build()
            .new_agent();
        let endpoints: Vec<String> =
            endpoints.iter().map(|endpoint| endpoint.trim_end_matches('/').to_owned()).collect();
        // Controllers spread over the members.
        let start = usize::try_from(jitter() % 1024).unwrap_or(0) % endpoints.len();
        Ok(Self { endpoints, agent, current: AtomicUsize::new(start), login, token: Mutex::default() })
    }

    /// The members, for messages.
    pub(super) fn names(&self) -> String {
        self.endpoints.join(", ")
    }

    /// Asks until a member answers.
    ///
    /// # Errors
    /// None does within `etcd_answer`, or one says that it cannot be done.
    pub(super) fn ask(&self, path: &str, question: &Json) -> Result<Answer, Failure> {
        let until = Instant::now() + ETCD_ANSWER;
        let mut perhaps_before = false;
        let mut last = String::new();
        let mut logins = 0;
        for round in 0_u32.. {
            if round > 0 && Instant::now() >= until {
                break;
            }
            let token = match self.token() {
                Ok(token) => token,
                Err(Trouble::Refused(failure)) => return Err(failure),
                Err(Trouble::Next { why, .. }) => {
                    last = why;
                    self.next(round);
                    continue;
                }
                Err(Trouble::Login) => return Err(self.no_login()),
            };
            match self.try_once(path, question, token.as_deref()) {
                Ok(json) => return Ok(Answer { json, perhaps_before }),
                Err(Trouble::Refused(failure)) => return Err(failure),
                Err(Trouble::Next { why, perhaps_done }) => {
                    perhaps_before |= perhaps_done;
                    last = why;
                    self.next(round);
                }
                Err(Trouble::Login) => {
                    logins += 1;
                    *self.lock() = None;
                    if logins > 3 || self.login.is_none() {
                        return Err(self.no_login());
                    }
                }
            }
        }
        let message = format!("no member of etcd answers: {}", self.names());
        Err(Failure::of(FailureKind::Timeout, message)
            .because(last)
            .because(Failure::timeout("etcd_answer", ETCD_ANSWER).message)
            .hint(
                "a cluster answers while more than half of its members live; what runs keeps its addresses meanwhile",
            ))
    }

    fn no_login(&self) -> Failure {
        Failure::new(format!("etcd at {} refuses the login", self.names()))
            .hint("set FANLI_ETCD_USER and FANLI_ETCD_PASSWORD")
    }

    /// On to the next member; when all were asked, a little later.
    fn next(&self, round: u32) {
        self.current.fetch_add(1, Ordering::Relaxed);
        let all = u32::try_from(self.endpoints.len()).unwrap_or(1);
        if (round + 1).is_multiple_of(all) {
            std::thread::sleep(Duration::from_millis(100 + jitter() % 200));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn token(&self) -> Result<Option<String>, Trouble> {
        let Some((name, password)) = &self.login else { return Ok(None) };
        if let Some(token) = &*self.lock() {
            return Ok(Some(token.clone()));
        }
        let answer = self.try_once("/v3/auth/authenticate", &json!({ "name": name, "password": password }), None)?;
        let token = answer.get("token").and_then(Json::as_str).map(str::to_owned);
        self.lock().clone_from(&token);
        Ok(token)
    }

    fn try_once(&self, path: &str, question: &Json, token: Option<&str>) -> Result<Json, Trouble> {
        let at = self.current.load(Ordering::Relaxed) % self.endpoints.len();
        let Some(endpoint) = self.endpoints.get(at) else {
            return Err(Trouble::Refused(Failure::of(FailureKind::Internal, "no member of etcd to ask")));
        };
        let text = question.to_string();
        let mut request = ureq::http::Request::builder().method("POST").uri(format!("{endpoint}{path}"));
        request = request.header("Content-Type", "application/json");
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        let broken = |error: ureq::http::Error| {
            Trouble::Refused(Failure::of(FailureKind::Internal, "a question to etcd cannot be made").because(error))
        };
        let request = request.body(text.as_str()).map_err(broken)?;
        let mut answer = match self.agent.run(request) {
            Ok(answer) => answer,
            Err(error) => {
                // Whoever refused the connection has done nothing; all else may have been carried out.
                let refused =
                    matches!(&error, ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused);
                let perhaps_done = !refused && !matches!(error, ureq::Error::HostNotFound);
                let why = match error {
                    ureq::Error::Timeout(_) => Failure::timeout("etcd_request", ETCD_REQUEST).message,
                    other => other.to_string(),
                };
                return Err(Trouble::Next { why: format!("{endpoint}: {why}"), perhaps_done });
            }
        };
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MOST_ANSWER).read_to_string();
        let body = body.map_err(|error| Trouble::Next { why: format!("{endpoint}: {error}"), perhaps_done: true })?;
        let json: Json = serde_json::from_str(&body).unwrap_or(Json::Null);
        let message = json.get("error").or_else(|| json.get("message")).and_then(Json::as_str).unwrap_or(&body);
        let why = format!("{endpoint}: {status} {}", message.trim());
        match status {
            200 if json.is_object() => Ok(json),
            // What etcd 3.4 says without a login, and with a token that has ended; then with a wrong password.
            _ if ["user name is empty", "invalid auth token"].iter().any(|text| message.contains(text)) => {
                Err(Trouble::Login)
            }
            401 => Err(Trouble::Login),
            _ if message.contains("authentication failed") => Err(Trouble::Refused(self.no_login())),
            // Its gateway speaks of the member's state: no leader, time ran out, too many requests.
            200 | 408 | 429 | 500..=599 => Err(Trouble::Next { why, perhaps_done: true }),
            _ => Err(Trouble::Refused(Failure::new("etcd refuses a question").because(why))),
        }
    }
}
