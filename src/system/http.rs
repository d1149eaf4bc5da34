//! Asking web servers: one connection for each question, bounded in time and in size, and nothing from the environment.

use std::io::Read as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{HeaderName, HeaderValue, Method, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::Probe;
use super::netns::Namespace;
use crate::failure::{Failure, FailureKind};

/// How much of a body is read, in bytes.
pub const MOST_BODY: usize = 1024 * 1024;

/// How many redirects are followed where they are followed.
const MOST_REDIRECTS: u32 = 10;

/// Where distributions keep the authorities that the host trusts: Debian, Red Hat, SUSE, Alpine.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The longest of those files that is read.
const MOST_AUTHORITIES: u64 = 8 << 20;

/// One question.
#[derive(Clone, Debug)]
pub struct Request {
    /// `http://…` or `https://…`.
    pub url: String,
    /// `GET`, `HEAD`, `POST`, `OPTIONS`.
    pub method: String,
    /// Headers; `Host` is the URL's own unless it stands here.
    pub headers: Vec<(String, String)>,
    /// The body; only with `POST`.
    pub body: Option<String>,
    /// Whether a redirect is followed instead of being the answer.
    pub follow: bool,
    /// Whether a server must show a certificate that this host trusts.
    pub verify: bool,
    /// How long everything may take: limit `request_timeout`.
    pub limit: Duration,
}

impl Request {
    /// A plain `GET`: no header, no redirect followed, only a certificate that this host trusts.
    pub fn get(url: impl Into<String>, limit: Duration) -> Self {
        Self {
            url: url.into(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            body: None,
            follow: false,
            verify: true,
            limit,
        }
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    headers: ureq::http::HeaderMap,
    /// The body, [`MOST_BODY`] at most.
    pub body: Vec<u8>,
    /// Whether the body went on after that.
    pub cut: bool,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// The first header of that name, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Whether a URL can be asked. The text says what is wrong, to follow "`url`: ".
///
/// # Errors
/// It cannot be read, has another scheme than `http` and `https`, no host, or a password in it.
pub fn check_url(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("`{url}` does not begin with `http://` or `https://`"));
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("holds a name or password before `@`, which messages would show: use an `Authorization` header"
                .to_owned())
        }
        Some(authority) if !authority.host().is_empty() => Ok(()),
        _ => Err(format!("`{url}` names no host")),
    }
}

/// Whether a header can be sent.
///
/// # Errors
/// Its name or value holds what no header may hold; the value is not repeated.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a name of a header"))?;
    HeaderValue::try_from(value).map_err(|_| format!("the value of `{name}` holds a line's end or a control sign"))?;
    Ok(())
}

impl Probe {
    /// Asks once. Any status is an answer. Dropped, the question ends by its own limit.
    ///
    /// # Errors
    /// No connection, no answer in time, or none that is HTTP.
    pub async fn http(&self, request: &Request) -> Result<Answer, Failure> {
        let roots = if request.verify && request.url.starts_with("https:") { self.authorities()? } else { None };
        let request = request.clone();
        let asking = tokio::task::spawn_blocking(move || ask(&request, roots, None));
        asking
            .await
            .map_err(|error| Failure::of(FailureKind::Internal, "asking a web server broke off").because(error))?
    }

    /// Asks a server inside a network namespace: whatever name the URL has, this address is asked.
    ///
    /// # Errors
    /// As [`Probe::http`].
    pub async fn http_inside(&self, request: Request, inside: Namespace, at: SocketAddr) -> Result<Answer, Failure> {
        let asking = tokio::task::spawn_blocking(move || inside.within(|| ask(&request, None, Some(at)))?);
        asking
            .await
            .map_err(|error| Failure::of(FailureKind::Internal, "asking a web server broke off").because(error))?
    }

    /// As [`host_authorities`].
    fn authorities(&self) -> Result<Option<RootCerts>, Failure> {
        for path in AUTHORITIES {
            let Some(bytes) = self.read(path, MOST_AUTHORITIES)? else { continue };
            return Ok(Some(certificates(&bytes)));
        }
        Ok(None)
    }
}

/// Returns the authorities that this host trusts; `None` when it has no list, and the public ones that came with fanli count.
pub(crate) fn host_authorities() -> Option<RootCerts> {
    AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok()).map(|bytes| certificates(&bytes))
}

/// The certificates in a PEM file. One that cannot be read vouches for nothing.
pub(crate) fn certificates(bytes: &[u8]) -> RootCerts {
    let found = parse_pem(bytes).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    found.collect::<Vec<_>>().into()
}

fn ask(request: &Request, roots: Option<RootCerts>, at: Option<SocketAddr>) -> Result<Answer, Failure> {
    let tls = TlsConfig::builder()
        .disable_verification(!request.verify)
        .root_certs(roots.unwrap_or(RootCerts::WebPki))
        .build();
    // An agent of its own: no connection is used twice, so each try tells about now.
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(if request.follow { MOST_REDIRECTS } else { 0 })
        .max_redirects_will_error(request.follow)
        .max_idle_connections(0)
        .user_agent(concat!("fanli/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(request.limit))
        .build();
    let agent = match at {
        Some(at) => ureq::Agent::with_parts(config, DefaultConnector::default(), Always(at)),
        None => config.new_agent(),
    };
    let failed = |error: ureq::Error| explain(request, error);
    let method = Method::try_from(request.method.as_str()).map_err(|error| failed(ureq::Error::Http(error.into())))?;
    let mut question = ureq::http::Request::builder().method(method).uri(&request.url);
    for (name, value) in &request.headers {
        question = question.header(name, value);
    }
    let start = Instant::now();
    let answer = match &request.body {
        Some(body) => agent.run(question.body(body.as_str()).map_err(|error| failed(error.into()))?),
        None => agent.run(question.body(()).map_err(|error| failed(error.into()))?),
    };
    let mut answer = answer.map_err(failed)?;
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    let mut body = Vec::new();
    let most = MOST_BODY as u64 + 1;
    let read = answer.body_mut().as_reader().take(most).read_to_end(&mut body);
    read.map_err(|error| {
        explain(request, ureq::Error::from(error)).within(format!("the body of the answer (status {status}) broke off"))
    })?;
    let cut = body.len() > MOST_BODY;
    body.truncate(MOST_BODY);
    Ok(Answer { status, headers, body, cut, took: start.elapsed() })
}

/// Every name is at this address.
#[derive(Debug)]
struct Always(SocketAddr);

impl Resolver for Always {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        found.push(self.0);
        Ok(found)
    }
}

/// An error of the library in our words; the URL is the caller's to add.
fn explain(request: &Request, error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::timeout("request_timeout", request.limit),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Failure::timeout("request_timeout", request.limit)
        }
        ureq::Error::HostNotFound => Failure::new("no address is known for its host name"),
        ureq::Error::Protocol(error) => Failure::new("the answer is not HTTP").because(error),
        ureq::Error::Io(error) => Failure::new("no answer").because(error),
        ureq::Error::Rustls(error) => Failure::new("no secure connection").because(error),
        other => Failure::new("no answer").because(other),
    }
}

#[cfg(test)]
mod tests {
    use super::{check_header, check_url};

    #[test]
    fn urls_that_cannot_be_asked_are_refused() {
        for fine in ["http://10.0.0.1/ping", "https://[fd00::1]:8443/x?y=z", "http://localhost:80"] {
            assert_eq!(check_url(fine), Ok(()), "{fine}");
        }
        for wrong in ["", "/ping", "10.0.0.1/ping", "ftp://x/", "http://", "http://a b/", "http://me:secret@x/"] {
            let message = check_url(wrong).unwrap_err();
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn headers_cannot_smuggle_lines() {
        assert_eq!(check_header("X-Trace", "1"), Ok(()));
        assert!(check_header("X Trace", "1").is_err());
        assert!(!check_header("X", "secret\r\nY: 2").unwrap_err().contains("secret"));
    }
}
