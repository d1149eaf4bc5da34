//! What a declared container comes to: what Docker is asked for, what is refused, and what is remembered of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Container, Restart};
use crate::resource::{ArgError, Param, ParamType};
use crate::system::container_body::{Bind, Body, Port, Propagation};
use crate::system::docker::SPEC_LABEL;
use crate::system::fs::HOST_ITSELF;
use crate::value::{Arrow, Map, Value, show_size};

/// A share of processors, in thousandths of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(pub(super) u64);

impl Param for Cpus {
    const TYPE: ParamType = ParamType::Any;

    fn read(value: Value) -> Result<Self, String> {
        let misfit =
            || format!("expected processors such as `2`, `\"1.5\"` or `50%`, found {} `{value}`", value.type_name());
        let millis = match &value {
            Value::Int(whole) => u64::try_from(*whole).ok().and_then(|whole| whole.checked_mul(1000)),
            Value::Percent(share) => Some(u64::from(*share) * 10),
            Value::Float(_) | Value::Str(_) => thousandths(&value.to_string()),
            _ => None,
        };
        millis.filter(|millis| (10..=1_000_000).contains(millis)).map(Self).ok_or_else(misfit)
    }

    fn show(&self) -> String {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// `1.5` as 1500; more than three digits after the point are none.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    format!("{whole}{part:0<3}").parse().ok()
}

/// Directories that are the host like [`HOST_ITSELF`], with everything below.
const HOST_BELOW: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/fanli",
    "/run/docker",
    "/run/containerd",
    "/var/run/docker",
    "/var/run/containerd",
];
/// Capabilities with which a process can leave its container.
pub(super) const HOST_CAPABILITIES: &[&str] = &[
    "ALL",
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_PTRACE",
    "SYS_BOOT",
    "DAC_READ_SEARCH",
    "BPF",
    "PERFMON",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "SYSLOG",
];

/// Whether a directory may be mounted; `path` without symbolic links where they are known.
pub(in crate::resource) fn refused_source(path: &str) -> Result<(), String> {
    let below = |root: &&&str| path.strip_prefix(**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if HOST_ITSELF.contains(&path) || HOST_BELOW.iter().any(|root| below(&root)) {
        return Err(format!("`{path}` is part of the host itself: whoever writes there owns the host"));
    }
    if ["docker.sock", "containerd.sock"].iter().any(|socket| path.ends_with(socket)) {
        return Err(format!("`{path}` is the daemon's socket: whoever has it owns the host"));
    }
    Ok(())
}

/// A plain value as text for an environment variable, a label or an argument.
pub(in crate::resource) fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::Null
        | Value::List(_)
        | Value::Map(_)
        | Value::Call(_)
        | Value::Arrow(_)
        | Value::Blob(_)
        | Value::Tree(_) => Err(format!("expected text, found {}", value.type_name())),
        plain => Ok(plain.to_string()),
    }
}

/// A map of plain values as text.
pub(in crate::resource) fn texts(field: &str, map: &Map) -> Result<BTreeMap<String, String>, ArgError> {
    let entry = |(key, value): (&String, &Value)| match scalar(value) {
        Ok(text) if text.contains('\0') => Err(ArgError::new(field, format!("`{key}` holds a NUL"))),
        Ok(text) => Ok((key.clone(), text)),
        Err(message) => Err(ArgError::new(field, format!("`{key}`: {message}"))),
    };
    map.iter().map(entry).collect()
}

/// A mount as it is declared.
pub(in crate::resource) fn bind(arrow: &Arrow) -> Result<Bind, String> {
    for (path, what) in [(&arrow.from, "on the host"), (&arrow.to, "in the container")] {
        ParamType::Path.accepts(&Value::from(path.as_str())).map_err(|message| format!("{message} ({what})"))?;
    }
    refused_source(&arrow.from)?;
    if arrow.to == "/" || arrow.to == "/proc" || arrow.to.starts_with("/proc/") {
        return Err(format!("`{}` cannot be mounted over in a container", arrow.to));
    }
    let mut bind = Bind { from: arrow.from.clone(), to: arrow.to.clone(), ..Bind::default() };
    for flag in &arrow.flags {
        match flag.as_str() {
            "read_only" => bind.read_only = true,
            "slave" => bind.propagation = Propagation::Slave,
            "shared" => bind.propagation = Propagation::Shared,
            "nosuid" | "nodev" | "noexec" => {
                return Err(format!(
                    "Docker cannot set `{flag}` on one mount; mount `{}` on the host with it",
                    arrow.from
                ));
            }
            other => return Err(format!("`{other}` is none of read_only, slave, shared")),
        }
    }
    Ok(bind)
}

/// `[address:]port:port[/tcp|/udp]`
fn port(text: &str) -> Result<Port, String> {
    let misfit = || format!("`{text}` is not a port such as \"8080:80\" or \"10.0.0.1:53:53/udp\"");
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(misfit);
    let (rest, inside) = rest.rsplit_once(':').ok_or_else(misfit)?;
    let (address, outside) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, outside)) => {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            (Some(address.parse::<IpAddr>().map_err(|_| misfit())?), outside)
        }
    };
    if !["tcp", "udp"].contains(&protocol) {
        return Err(misfit());
    }
    Ok(Port { address, outside: number(outside)?, inside: number(inside)?, protocol: protocol.to_owned() })
}

fn pairs(field: &'static str, items: &[String], sign: char) -> Result<BTreeMap<String, String>, ArgError> {
    let pair = |item: &String| {
        let (key, value) = item.split_once(sign).unwrap_or((item, ""));
        let fits = !key.is_empty() && (!value.is_empty() || field == "tmpfs");
        let error = || ArgError::new(field, format!("`{item}` has no `{sign}` between name and value"));
        fits.then(|| (key.to_owned(), value.to_owned())).ok_or_else(error)
    };
    items.iter().map(pair).collect()
}

/// The directories of the host among some mounts that a container may write.
pub fn writable_sources(mounts: &Value) -> Vec<String> {
    let Value::List(mounts) = mounts else { return Vec::new() };
    let source = |mount: &Value| match mount {
        Value::Arrow(arrow) => writable_source(arrow),
        _ => None,
    };
    mounts.iter().filter_map(source).collect()
}

fn writable_source(arrow: &Arrow) -> Option<String> {
    (!arrow.flags.iter().any(|flag| flag == "read_only")).then(|| arrow.from.clone())
}

impl Container {
    /// The directories of the host that it may write.
    pub fn writable_sources(&self) -> Vec<String> {
        self.mounts.iter().filter_map(writable_source).collect()
    }

    /// What Docker is asked for.
    pub(in crate::resource) fn body(&self) -> Result<Body, ArgError> {
        let mut binds = Vec::new();
        for arrow in &self.mounts {
            binds.push(bind(arrow).map_err(|message| ArgError::new("mounts", message))?);
        }
        let ports: Result<_, _> = self.ports.iter().map(|text| port(text)).collect();
        let spec =
            serde_json::Value::Object(self.spec().iter().map(|(key, value)| (key.clone(), to_json(value))).collect());
        let mut labels = texts("labels", &self.labels)?;
        labels.insert(SPEC_LABEL.to_owned(), spec.to_string());
        Ok(Body {
            image: self.image().to_owned(),
            command: self.command.clone(),
            entrypoint: self.entrypoint.clone(),
            env: texts("env", &self.env)?,
            hostname: self.hostname.clone().unwrap_or_else(|| self.name.clone()),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            memory: self.memory.map(|size| size.0),
            nano_cpus: self.cpus.map(|cpus| cpus.0 * 1_000_000),
            binds,
            tmpfs: pairs("tmpfs", &self.tmpfs, ':')?,
            network: self.docker_lan()?.map_or_else(|| self.network.show(), |lan| lan.name),
            address: self.docker_lan()?.map(|lan| lan.address),
            ports: ports.map_err(|message| ArgError::new("ports", message))?,
            dns: self.dns.clone(),
            search: self.search.clone(),
            extra_hosts: self.extra_hosts.clone(),
            sysctls: pairs("sysctls", &self.sysctls, '=')?,
            capabilities: self.capabilities.clone(),
            restart: docker_word(self.restart).to_owned(),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            init: self.init,
            read_only: self.read_only,
            labels,
            log_size: self.log_size.0,
            log_files: self.log_files,
        })
    }

    /// What was declared, in one spelling; what is not declared and has no default is not there.
    pub(in crate::resource) fn spec(&self) -> BTreeMap<String, Value> {
        let list = |items: &[String]| Value::List(items.iter().map(|item| Value::from(item.as_str())).collect());
        let optional = |items: &[String]| (!items.is_empty()).then(|| list(items));
        let map = |map: &Map| {
            let text = |(key, value): (&String, &Value)| (key.clone(), Value::Str(value.to_string()));
            (!map.is_empty()).then(|| Value::Map(map.iter().map(text).collect()))
        };
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        let flag = |flag: bool| flag.then_some(Value::Bool(true));
        let mounts: Vec<String> = self.mounts.iter().map(shown).collect();
        let dns: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
        let fields = [
            ("image", Some(Value::from(self.image()))),
            ("command", self.command.as_deref().map(list)),
            ("entrypoint", self.entrypoint.as_deref().map(list)),
            ("env", map(&self.env)),
            ("hostname", text(&self.hostname)),
            ("user", text(&self.user)),
            ("workdir", text(&self.workdir)),
            ("memory", self.memory.map(|size| Value::Str(show_size(size.0)))),
            ("cpus", self.cpus.map(|cpus| Value::Str(cpus.show()))),
            ("mounts", optional(&mounts)),
            ("tmpfs", optional(&self.tmpfs)),
            ("network", Some(Value::Str(self.network.show()))),
            ("lan", map(&self.lan)),
            ("ports", optional(&self.ports)),
            ("dns", optional(&dns)),
            ("search", optional(&self.search)),
            ("extra_hosts", optional(&self.extra_hosts)),
            ("sysctls", optional(&self.sysctls)),
            ("capabilities", optional(&self.capabilities)),
            ("restart", Some(Value::Str(self.restart.show()))),
            ("stop_signal", text(&self.stop_signal)),
            ("stop_timeout", Some(Value::Str(self.stop_timeout.show()))),
            ("init", flag(self.init)),
            ("read_only", flag(self.read_only)),
            ("labels", map(&self.labels)),
            ("log_size", Some(Value::Str(show_size(self.log_size.0)))),
            ("log_files", Some(Value::Int(self.log_files))),
            ("gate", flag(self.gate)),
            ("tools", flag(self.tools)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// A mount in the words of its declaration.
pub(super) fn shown(arrow: &Arrow) -> String {
    let flags: String = arrow.flags.iter().flat_map(|flag| [" ", flag]).collect();
    format!("{} -> {}{flags}", arrow.from, arrow.to)
}

fn docker_word(restart: Restart) -> &'static str {
    match restart {
        Restart::No => "no",
        Restart::Always => "always",
        Restart::UnlessStopped => "unless-stopped",
        Restart::OnFailure => "on-failure",
    }
}

/// The plain values of a spec as they stand in the label, so that a person can read it there.
pub(in crate::resource) fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Int(number) => (*number).into(),
        Value::Bool(flag) => (*flag).into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => {
            serde_json::Value::Object(map.iter().map(|(key, item)| (key.clone(), to_json(item))).collect())
        }
        other => other.to_string().into(),
    }
}

pub(in crate::resource) fn from_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(flag),
        serde_json::Value::Number(number) => number.as_i64().map_or(Value::Null, Value::Int),
        serde_json::Value::String(text) => Value::Str(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(map) => {
            Value::Map(map.into_iter().map(|(key, item)| (key, from_json(item))).collect())
        }
    }
}

/// Every name that [`Container::spec`] can hold.
pub(super) const SPEC_FIELDS: &[&str] = &[
    "image",
    "command",
    "entrypoint",
    "env",
    "hostname",
    "user",
    "workdir",
    "memory",
    "cpus",
    "mounts",
    "tmpfs",
    "network",
    "lan",
    "ports",
    "dns",
    "search",
    "extra_hosts",
    "sysctls",
    "capabilities",
    "restart",
    "stop_signal",
    "stop_timeout",
    "init",
    "read_only",
    "labels",
    "log_size",
    "log_files",
    "gate",
    "tools",
];
