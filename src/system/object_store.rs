//! Objects in a store that speaks S3: asked for, put and compared. Requests are signed by `rusty-s3`, carried by `ureq`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, copy, sink};
use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use sha2::{Digest as _, Sha256};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, SendBody};

use super::http::host_authorities;
use crate::failure::{Context as _, Failure};

/// The longest file with an account that is read, in bytes.
const MOST_ACCOUNT: u64 = 64 * 1024;
/// The longest object that one request can put (the limit of S3 itself): 5 GiB.
const MOST_OBJECT: u64 = 5 << 30;
/// How long a connection may take to stand, and an answer to come: limit `store`.
const LIMIT: Duration = Duration::from_secs(60);
/// How slow a store may be at most, in bytes a second.
const SLOWEST: u64 = 16 * 1024;
/// What a store answers that has something against one object: bad request, too large, its name too long, not processable.
const OF_AN_OBJECT: [u16; 4] = [400, 413, 414, 422];
/// How long a signature is good for.
const SIGNED: Duration = Duration::from_secs(3600);

/// A bucket, and the account that may use it.
pub struct ObjectStore {
    agent: Agent,
    bucket: Bucket,
    account: Credentials,
}

/// What is known of an object by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Its length in bytes.
    pub length: u64,
    /// Its MD5, which every store compares with what it has read (`Content-MD5`), and most give as `ETag`.
    md5: [u8; 16],
    /// Its SHA-256.
    sha256: [u8; 32],
}

/// What became of an object that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there, and is what was sent.
    Stored,
    /// Another one is there.
    Other,
    /// The store does not take it, whatever it says of others: its name is too long, it was damaged on the way.
    Refused(Failure),
}

impl Sums {
    /// Reads all of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(mut from: impl Read) -> std::io::Result<Self> {
        let (mut md5, mut sha256, mut length) = (md5::Md5::new(), Sha256::new(), 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let came = from.read(&mut buffer)?;
            if came == 0 {
                return Ok(Self { length, md5: md5.finalize().into(), sha256: sha256.finalize().into() });
            }
            let bytes = buffer.get(..came).unwrap_or_default();
            md5.update(bytes);
            sha256.update(bytes);
            length += u64::try_from(came).unwrap_or(0);
        }
    }
}

impl Sums {
    /// Whether an object is this, by what its store has computed of it; `None` where that says nothing.
    fn are_said_by(&self, answer: &ureq::http::Response<ureq::Body>) -> Option<bool> {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(sha256) = header("x-amz-checksum-sha256") {
            return Some(sha256 == base64(&self.sha256));
        }
        // Of an object that is encrypted with a key of its own, the tag is something else (AWS API Reference, "Object").
        (header("etag")?.trim_matches('"') == hex(&self.md5)).then_some(true)
    }
}

impl ObjectStore {
    /// A bucket with the account that a file holds, in the format of `~/.aws/config`: `aws_access_key_id`, `aws_secret_access_key`,
    /// and where they are needed `aws_session_token`, `region` and `endpoint_url`.
    ///
    /// # Errors
    /// The file cannot be read, or says too little; the name of the bucket cannot be one.
    pub fn open(bucket: &str, account: &std::path::Path) -> Result<Self, Failure> {
        let failed = || format!("cannot read {}", account.display());
        let mut text = String::new();
        File::open(account).with_context(failed)?.take(MOST_ACCOUNT).read_to_string(&mut text).with_context(failed)?;
        let settings = Settings { text: &text, path: account };
        let region = settings.find("region").unwrap_or("us-east-1");
        // A store of one's own has no name for each bucket.
        let (endpoint, style) = match settings.find("endpoint_url") {
            Some(url) => (url.to_owned(), UrlStyle::Path),
            None => (format!("https://s3.{region}.amazonaws.com"), UrlStyle::VirtualHost),
        };
        let url = endpoint
            .parse()
            .map_err(|error| Failure::new(format!("`endpoint_url` of {} is not a URL: {error}", account.display())))?;
        let bucket = Bucket::new(url, style, bucket.to_owned(), region.to_owned())
            .map_err(|error| Failure::new(format!("`{bucket}` cannot be a bucket at {endpoint}")).because(error))?;
        let (key, secret) = (settings.need("aws_access_key_id")?, settings.need("aws_secret_access_key")?);
        let account = match settings.find("aws_session_token") {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        let roots = host_authorities().unwrap_or(RootCerts::WebPki);
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("fanli/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(LIMIT))
            .timeout_recv_response(Some(LIMIT))
            .build();
        Ok(Self { agent: config.new_agent(), bucket, account })
    }

    /// Puts an object, unless one is there: then the two are compared. `sums` are those of `body`.
    ///
    /// # Errors
    /// The store cannot be reached or refuses; what it has is not what was sent.
    pub fn put(&self, object: &str, body: &mut dyn Read, sums: &Sums) -> Result<Put, Failure> {
        if sums.length > MOST_OBJECT {
            return Err(Failure::new(format!("{object} is longer than an object may be: 5 GiB"))
                .hint("let log-pipe begin another file before that: `--size 1GiB`"));
        }
        if let Some(same) = self.compare(object, sums)? {
            return Ok(if same { Put::Stored } else { Put::Other });
        }
        let mut action = self.bucket.put_object(Some(&self.account), object);
        let (md5, sha256) = (base64(&sums.md5), base64(&sums.sha256));
        let headers =
            [("content-md5", md5.as_str()), ("x-amz-checksum-sha256", sha256.as_str()), ("if-none-match", "*")];
        for (name, value) in headers {
            action.headers_mut().insert(name, value);
        }
        let mut request = ureq::http::Request::put(action.sign(SIGNED).as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header("content-length", sums.length).body(SendBody::from_reader(body));
        let request = request.map_err(|error| failed("put", object, error.into()))?;
        let limit = LIMIT + Duration::from_secs(sums.length / SLOWEST);
        let request = self.agent.configure_request(request).timeout_send_body(Some(limit)).build();
        let mut answer = self.agent.run(request).map_err(|error| failed("put", object, error))?;
        // 409 and 412: another one put it meanwhile.
        if ![200, 409, 412].contains(&answer.status().as_u16()) {
            let of_it_alone = OF_AN_OBJECT.contains(&answer.status().as_u16());
            let failure = refused("put", object, &mut answer);
            return if of_it_alone { Ok(Put::Refused(failure)) } else { Err(failure) };
        }
        if answer.status() == 200 && sums.are_said_by(&answer) == Some(true) {
            return Ok(Put::Stored);
        }
        match self.compare(object, sums)? {
            Some(true) => Ok(Put::Stored),
            Some(false) if answer.status() == 200 => {
                Err(Failure::new(format!("{object} is not what was sent: its store has read something else")))
            }
            Some(false) => Ok(Put::Other),
            None => Err(Failure::new(format!("{object} was put, and is not there"))),
        }
    }

    /// Returns the length of an object in bytes; `None` when there is none.
    ///
    /// # Errors
    /// The store cannot be reached, refuses, or does not tell it.
    pub fn length(&self, object: &str) -> Result<Option<u64>, Failure> {
        let Some(answer) = self.look(object)? else { return Ok(None) };
        length(&answer).map(Some).ok_or_else(|| Failure::new(format!("the store does not tell the length of {object}")))
    }

    /// What a store tells of an object; `None` when there is none.
    fn look(&self, object: &str) -> Result<Option<ureq::http::Response<ureq::Body>>, Failure> {
        let mut action = self.bucket.head_object(Some(&self.account), object);
        action.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
        let request = ureq::http::Request::head(action.sign(SIGNED).as_str()).header("x-amz-checksum-mode", "ENABLED");
        let request = request.body(()).map_err(|error| failed("look at", object, error.into()))?;
        let mut answer = self.agent.run(request).map_err(|error| failed("look at", object, error))?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer)),
            404 => Ok(None),
            _ => Err(refused("look at", object, &mut answer)),
        }
    }

    /// Whether an object is what `sums` say, by what its store has computed of it, or by reading it; `None` when there is none.
    fn compare(&self, object: &str, sums: &Sums) -> Result<Option<bool>, Failure> {
        let Some(answer) = self.look(object)? else { return Ok(None) };
        if length(&answer).is_some_and(|length| length != sums.length) {
            return Ok(Some(false));
        }
        match sums.are_said_by(&answer) {
            Some(same) => Ok(Some(same)),
            None => self.read(object).map(|read| Some(read == *sums)),
        }
    }

    fn read(&self, object: &str) -> Result<Sums, Failure> {
        let action = self.bucket.get_object(Some(&self.account), object);
        let mut answer =
            self.agent.get(action.sign(SIGNED).as_str()).call().map_err(|error| failed("read", object, error))?;
        if answer.status() != 200 {
            return Err(refused("read", object, &mut answer));
        }
        Sums::of(answer.body_mut().as_reader()).with_context(|| format!("cannot read {object}"))
    }
}

/// The length of an object, as its store tells it.
fn length(answer: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    answer.headers().get("content-length")?.to_str().ok()?.parse().ok()
}

/// A file with `key = value` lines, and sections of which `default` counts.
struct Settings<'a> {
    text: &'a str,
    path: &'a std::path::Path,
}

impl Settings<'_> {
    fn find(&self, name: &str) -> Option<&str> {
        let mut counts = true;
        let mut found = None;
        for line in self.text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                counts = section.trim() == "default";
            } else if let Some((key, value)) = line.split_once('=')
                && counts
                && key.trim() == name
            {
                found = Some(value.trim()).filter(|value| !value.is_empty());
            }
        }
        found
    }

    fn need(&self, name: &str) -> Result<&str, Failure> {
        self.find(name).ok_or_else(|| {
            Failure::new(format!("{} has no `{name}`", self.path.display()))
                .hint("it has the format of `~/.aws/config`: a line `[default]`, then `name = value`")
        })
    }
}

fn failed(what: &str, object: &str, error: ureq::Error) -> Failure {
    let failure = Failure::new(format!("cannot {what} {object}"));
    match error {
        ureq::Error::Timeout(_) => failure.because(Failure::timeout("store", LIMIT)),
        ureq::Error::HostNotFound => failure.because("no address is known for the store's host name"),
        other => failure.because(other),
    }
}

/// An answer that is an error, as the store explains it.
fn refused(what: &str, object: &str, answer: &mut ureq::http::Response<ureq::Body>) -> Failure {
    let status = answer.status();
    let mut text = String::new();
    let _ = answer.body_mut().as_reader().take(16 * 1024).read_to_string(&mut text);
    let _ = copy(&mut answer.body_mut().as_reader().take(1 << 20), &mut sink());
    let failure = Failure::new(format!("cannot {what} {object}")).because(format!("the store answers {status}"));
    let found = roxmltree::Document::parse(&text).ok().map(|page| {
        let part = |name: &str| page.descendants().find(|node| node.has_tag_name(name)).and_then(|node| node.text());
        format!("{}: {}", part("Code").unwrap_or_default(), part("Message").unwrap_or_default())
    });
    let failure = found.into_iter().fold(failure, Failure::because);
    if status == 403 {
        failure.hint("see the account's key and secret, its rights in the bucket, and this host's clock")
    } else {
        failure
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_as_other_tools_read_it() {
        let path = std::path::Path::new("/etc/store");
        let text = "# ours\nregion=eu-1\n[other]\naws_access_key_id = wrong\n[ default ]\naws_access_key_id = AKID\n endpoint_url = http://s:9000 \nempty =\n";
        let settings = Settings { text, path };
        assert_eq!(settings.find("aws_access_key_id"), Some("AKID"));
        assert_eq!(settings.find("endpoint_url"), Some("http://s:9000"));
        assert_eq!((settings.find("region"), settings.find("empty")), (Some("eu-1"), None));
        assert!(
            settings.need("aws_secret_access_key").unwrap_err().to_string().contains("has no `aws_secret_access_key`")
        );
    }

    #[test]
    fn sums_are_those_of_other_tools() {
        let sums = Sums::of(&b"hello"[..]).unwrap();
        assert_eq!((sums.length, hex(&sums.md5)), (5, "5d41402abc4b2a76b9719d911017c592".to_owned()));
        assert_eq!(base64(&sums.sha256), "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=");
    }
}
