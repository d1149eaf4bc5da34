//! What a program on trial is asked, from inside its network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::mark::Listens;
use crate::failure::Failure;
use crate::resource::http::said;
use crate::resource::{ArgError, Param};
use crate::system::http::{Answer, Request, check_header, check_url};
use crate::value::Map;

/// One question and the right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Smoke {
    host: Option<String>,
    path: String,
    pub(super) port: u16,
    tls: bool,
    status: Vec<i64>,
    contains: Option<String>,
    address: Option<IpAddr>,
}

fn field<T: Param>(map: &Map, name: &str) -> Result<Option<T>, ArgError> {
    let wrong = |message| ArgError::new("requests", format!("`{name}`: {message}"));
    map.get(name).cloned().map(T::read).transpose().map_err(wrong)
}

impl Smoke {
    pub(super) fn read(map: &Map) -> Result<Self, ArgError> {
        const KNOWN: [&str; 7] = ["host", "path", "port", "tls", "status", "contains", "address"];
        if let Some(unknown) = map.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            let near = crate::diagnostic::nearest(unknown, KNOWN);
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(ArgError::new("requests", format!("`{unknown}` is none of {}{near}", KNOWN.join(", "))));
        }
        let tls = field(map, "tls")?.unwrap_or(false);
        let port: i64 = field(map, "port")?.unwrap_or(if tls { 443 } else { 80 });
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let smoke = Self {
            host: field(map, "host")?,
            path: field(map, "path")?.unwrap_or_else(|| "/".to_owned()),
            port: port.ok_or_else(|| ArgError::new("requests", "`port` is not a port"))?,
            tls,
            status: field(map, "status")?.unwrap_or_else(|| vec![200]),
            contains: field(map, "contains")?,
            address: field(map, "address")?,
        };
        if !smoke.path.starts_with('/') {
            return Err(ArgError::new("requests", format!("`path`: `{}` does not begin with `/`", smoke.path)));
        }
        let fits = check_url(&smoke.url(Ipv4Addr::LOCALHOST.into()))
            .and_then(|()| check_header("host", smoke.host.as_deref().unwrap_or_default()));
        fits.map_err(|message| ArgError::new("requests", message))?;
        Ok(smoke)
    }

    fn url(&self, at: IpAddr) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = self.host.clone().unwrap_or_else(|| match at {
            IpAddr::V4(four) => four.to_string(),
            IpAddr::V6(six) => format!("[{six}]"),
        });
        let usual = if self.tls { 443 } else { 80 };
        let port = if self.port == usual { String::new() } else { format!(":{}", self.port) };
        format!("{scheme}://{host}{port}{}", self.path)
    }

    /// Where it is asked: on the address that is listened on, or by loopback where all are.
    pub(super) fn at(&self, listens: &Listens) -> SocketAddr {
        let mut there = listens.iter().filter(|(_, port, _)| *port == self.port).map(|(address, ..)| *address);
        let found = there.clone().find(IpAddr::is_unspecified).or_else(|| there.next());
        let address = self.address.or(found.filter(|address| !address.is_unspecified()));
        SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), self.port)
    }

    pub(super) fn request(&self, at: IpAddr, limit: Duration) -> Request {
        Request {
            headers: self.host.iter().map(|host| ("host".to_owned(), host.clone())).collect(),
            verify: false,
            ..Request::get(self.url(at), limit)
        }
    }

    /// What is wrong with an answer.
    pub(super) fn judge(&self, answer: &Answer) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&answer.body);
        if !self.status.contains(&i64::from(answer.status)) {
            let wanted: Vec<String> = self.status.iter().map(ToString::to_string).collect();
            let message = format!("status {}, not {}", answer.status, wanted.join(" or "));
            return Err(Failure::new(message).because(said(&text)));
        }
        match &self.contains {
            Some(wanted) if !text.contains(wanted.as_str()) => {
                Err(Failure::new(format!("the body does not hold `{wanted}`")).because(said(&text)))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn map(fields: &[(&str, Value)]) -> Map {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_request_has_the_defaults_of_its_scheme() {
        let plain = Smoke::read(&Map::new()).unwrap();
        assert_eq!((plain.port, plain.url(Ipv4Addr::LOCALHOST.into())), (80, "http://127.0.0.1/".to_owned()));
        let tls = Smoke::read(&map(&[("tls", Value::Bool(true)), ("host", "a.example".into())])).unwrap();
        assert_eq!(tls.url(Ipv4Addr::LOCALHOST.into()), "https://a.example/");
        for (name, value) in [
            ("hots", Value::from("x")),
            ("port", Value::Int(0)),
            ("path", "x".into()),
            ("status", "ok".into()),
            ("host", "a b".into()),
            ("host", "me:secret@a".into()),
        ] {
            assert!(Smoke::read(&map(&[(name, value)])).is_err(), "{name}");
        }
    }

    #[test]
    fn it_is_asked_where_it_listens() {
        let smoke = Smoke::read(&Map::new()).unwrap();
        let at = |addresses: &[&str]| {
            let listens = addresses.iter().map(|text| (text.parse().unwrap(), 80, String::new())).collect();
            smoke.at(&listens).ip().to_string()
        };
        assert_eq!(at(&[]), "127.0.0.1");
        assert_eq!(at(&["10.0.0.5", "0.0.0.0"]), "127.0.0.1");
        assert_eq!(at(&["10.0.0.5"]), "10.0.0.5");
    }
}
