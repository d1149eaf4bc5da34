//! `http`: waits until a web server answers as it should.

use std::time::Duration;

use super::patience::Patience;
use super::{ArgError, Nature, Observed, Resource};
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::system::http::{Answer, MOST_BODY, Request, check_header, check_url};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};
use crate::visible::first_bytes;

/// How much of a body the result keeps, and a failure shows, in bytes.
const KEPT: usize = 64 * 1024;
const SHOWN: usize = 200;

crate::choice! {
    /// How the server is asked.
    pub enum Method {
        /// For what the URL names.
        Get = "GET",
        /// The same without the body.
        Head = "HEAD",
        /// With a body.
        Post = "POST",
        /// For what may be asked.
        Options = "OPTIONS",
    }
}

crate::kind! {
    /// Waits until a web server answers as it should, asked from the host.
    ///
    /// It only looks, in check mode too, unless changes before it were not applied; a `POST` must be one that changes nothing. Each
    /// try is a new connection, and proxies of anybody's environment are not used. When `within` is over, the failure
    /// says what the last answer was.
    pub struct Http = "http" {
        /// What is asked: `http://…` or `https://…`.
        url: String,
        /// The status that is right, or several.
        status: Vec<i64> = vec![200],
        /// A text that the body must hold, within its first 1 MiB.
        contains: Option<String>,
        /// How long to wait for the right answer.
        within: Duration = Duration::from_secs(30),
        /// How many times in a row the answer must be right.
        times: i64 = 1,
        /// The longest pause between two tries: after ones that fail it begins at 50 ms and doubles.
        every: Duration = Duration::from_secs(1),
        /// How long one try may take.
        request_timeout: Duration = Duration::from_secs(5),
        /// How it is asked.
        method: Method = Method::Get,
        /// More headers.
        headers: Map = Map::new(),
        /// The host name that the server is asked for, when it is not the URL's.
        host: Option<String>,
        /// What is sent along, with `method = POST`.
        body: Option<String>,
        /// Whether redirects are followed; else a redirect is the answer.
        follow: bool = false,
        /// Whether the server's certificate must be one that the host trusts.
        verify: bool = true,
    }
    results {
        "status": "the status of the answer",
        "body": "its body: the first 64 KiB",
        "took": "how long the server took, a duration",
    }
    example r#"http "http://127.0.0.1:18765/ping" {
  status   = [200, 204]
  contains = "pong"
  within   = 10s
}"#
}

impl Http {
    fn patience(&self) -> Patience {
        Patience { within: self.within, every: self.every, times: self.times }
    }

    fn headers(&self) -> Vec<(String, String)> {
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), value.to_string()));
        headers.chain(self.host.iter().map(|host| ("host".to_owned(), host.clone()))).collect()
    }

    /// What is wrong with an answer.
    fn judge(&self, answer: &Answer) -> Result<Map, Failure> {
        let text = String::from_utf8_lossy(&answer.body);
        if !self.status.contains(&i64::from(answer.status)) {
            let wanted: Vec<String> = self.status.iter().map(ToString::to_string).collect();
            let (found, wanted) = (answer.status, wanted.join(" or "));
            return Err(Failure::new(format!("status {found}, not {wanted}")).because(said(&text)));
        }
        if let Some(wanted) = &self.contains
            && !text.contains(wanted.as_str())
        {
            let place = if answer.cut { "the first 1 MiB of the body does" } else { "the body does" };
            let wanted = first_bytes(wanted, SHOWN);
            return Err(Failure::new(format!("{place} not hold `{wanted}`")).because(said(&text)));
        }
        Ok(Map::from([
            ("status".to_owned(), Value::Int(answer.status.into())),
            ("body".to_owned(), Value::from(first_bytes(&text, KEPT))),
            ("took".to_owned(), Value::Duration(answer.took)),
        ]))
    }
}

/// The beginning of a body in one line.
pub(super) fn said(body: &str) -> String {
    let line = body.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match first_bytes(&line, SHOWN) {
        "" => "it had no body".to_owned(),
        all if all.len() == line.len() => format!("it said `{all}`"),
        first => format!("it said `{first}…`"),
    }
}

impl Resource for Http {
    fn check(&self) -> Result<(), ArgError> {
        check_url(&self.url).map_err(|message| ArgError::new("url", message))?;
        if self.status.is_empty() || !self.status.iter().all(|status| (100..=599).contains(status)) {
            return Err(ArgError::new("status", "expected codes from 100 to 599"));
        }
        for (name, value) in self.headers() {
            let field = if name == "host" { "host" } else { "headers" };
            check_header(&name, &value).map_err(|message| ArgError::new(field, message))?;
        }
        if self.host.is_some() && self.headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
            return Err(ArgError::new("host", "stands among the `headers` too"));
        }
        if self.body.is_some() && self.method != Method::Post {
            return Err(ArgError::new("body", "needs `method = POST`"));
        }
        if self.contains.is_some() && self.method == Method::Head {
            return Err(ArgError::new("contains", "cannot be found with `method = HEAD`: the answer has no body"));
        }
        if self.contains.as_ref().is_some_and(|text| text.len() > MOST_BODY) {
            return Err(ArgError::new("contains", "is longer than the 1 MiB that is read"));
        }
        if self.request_timeout.is_zero() {
            return Err(ArgError::new("request_timeout", "must be longer than nothing: `request_timeout = 5s`"));
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
        let request = &Request {
            url: self.url.clone(),
            method: super::Param::show(&self.method),
            headers: self.headers(),
            body: self.body.clone(),
            follow: self.follow,
            verify: self.verify,
            limit: self.request_timeout.min(self.within),
        };
        let attempt = || async move { self.judge(&probe.http(request).await?) };
        let output = self.patience().until(probe, attempt).await;
        let output = output.map_err(|failure| failure.within(format!("{} does not answer as it should", self.url)))?;
        Ok(Observed { state: self.desired(), output })
    }

    async fn apply(&self, _: &Change, _: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
