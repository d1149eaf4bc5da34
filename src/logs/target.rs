//! A storage for log files, as it is written in a playbook: a directory, a place that rsync reaches, or a bucket of a store that speaks S3.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// A storage for log files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory of this host, on another file system than the logs.
    Directory(PathBuf),
    /// What rsync(1) takes for a destination: `rsync://HOST/MODULE/PATH`, or `USER@HOST:PATH` over ssh.
    Rsync(String),
    /// `s3://BUCKET/PREFIX`: the bucket, and what the names of its objects begin with.
    Bucket(String, String),
}

/// What a target may look like, for messages.
const FORMS: &str = "a directory (`/mnt/storage/logs`), an rsync daemon (`rsync://HOST/MODULE/PATH`), a host that ssh reaches \
                     (`USER@HOST:/PATH`), or a bucket (`s3://BUCKET/PREFIX`)";

impl Target {
    /// Returns what several targets have in common that can be reached, or cannot, together.
    pub(super) fn server(&self) -> &str {
        match self {
            Self::Directory(path) => path.to_str().unwrap_or_default(),
            Self::Bucket(bucket, _) => bucket,
            Self::Rsync(to) => {
                let daemon =
                    to.strip_prefix("rsync://").map(|rest| rest.split_once('/').map_or(rest, |(host, _)| host));
                daemon.unwrap_or_else(|| to.split_once(':').map_or(to, |(host, _)| host))
            }
        }
    }

    /// Returns whether ssh carries it.
    pub(super) fn is_ssh(&self) -> bool {
        matches!(self, Self::Rsync(to) if !to.starts_with("rsync://"))
    }
}

impl FromStr for Target {
    type Err = String;

    /// Reads a target; what it is by its form alone. The error says what is wrong, to follow the text.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.chars().any(|sign| sign.is_control() || sign.is_whitespace()) {
            return Err("holds a space or a control character".to_owned());
        }
        if text.starts_with('/') {
            let path = Path::new(text);
            let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            return if plain { Ok(Self::Directory(path.into())) } else { Err("holds `.` or `..`".to_owned()) };
        }
        if let Some(rest) = text.strip_prefix("rsync://") {
            let mut parts = rest.splitn(2, '/').map(|part| part.trim_end_matches('/'));
            let (host, module) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            return match (host.is_empty() || host.ends_with('@'), module.is_empty()) {
                (true, _) => Err("names no host".to_owned()),
                (_, true) => Err("names no module: `rsync://HOST/MODULE/PATH`".to_owned()),
                _ if !is_host(host.rsplit('@').next().unwrap_or(""), true) => {
                    Err("names a host or a port that cannot be one".to_owned())
                }
                _ if host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) => {
                    Err("holds a password, which messages would show: put it into a file, and name that as the key"
                        .to_owned())
                }
                _ => Ok(Self::Rsync(text.trim_end_matches('/').to_owned())),
            };
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let plain = |sign: char| sign.is_ascii_alphanumeric() || ".-_".contains(sign);
            return if !bucket.is_empty() && bucket.chars().all(plain) {
                Ok(Self::Bucket(bucket.to_owned(), prefix.trim_matches('/').to_owned()))
            } else {
                Err("names no bucket: `s3://BUCKET/PREFIX`".to_owned())
            };
        }
        if text.contains("://") {
            return Err(format!("is not known here: a target is {FORMS}"));
        }
        match text.split_once(':') {
            // `HOST::MODULE` is rsync's other way to write a daemon.
            Some((_, path)) if path.starts_with(':') => {
                Err("names a module with `::`: write `rsync://HOST/MODULE/PATH`".to_owned())
            }
            Some((host, path))
                if path.starts_with('/')
                    && !host.starts_with('-')
                    && is_host(host.rsplit('@').next().unwrap_or(""), false) =>
            {
                Ok(Self::Rsync(text.trim_end_matches('/').to_owned()))
            }
            _ => Err(format!("is no target: it is {FORMS}")),
        }
    }
}

/// Whether a text may name a host, with a port behind it where there may be one.
fn is_host(text: &str, with_port: bool) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':').or((!rest.is_empty()).then_some("-"))),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let plain = |sign: char| sign.is_alphanumeric() || ".-_:%".contains(sign);
    let port = port.is_none_or(|port| with_port && port.parse::<u16>().is_ok_and(|port| port > 0));
    !host.is_empty() && !host.starts_with('-') && host.chars().all(plain) && port
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(out, "{}", path.display()),
            Self::Rsync(to) => out.write_str(to),
            Self::Bucket(bucket, prefix) if prefix.is_empty() => write!(out, "s3://{bucket}"),
            Self::Bucket(bucket, prefix) => write!(out, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_its_form_says() {
        let read = |text: &str| text.parse::<Target>();
        assert_eq!(read("/mnt/logs/"), Ok(Target::Directory("/mnt/logs".into())));
        for text in [
            "rsync://store/logs/host-a",
            "rsync://store:8873/logs",
            "rsync://logs@store/logs",
            "logs@store:/srv",
            "store:/logs",
            "rsync://[fd00::1]:873/logs",
        ] {
            let target = read(text).unwrap();
            assert_eq!(target.to_string(), text);
            assert_eq!(target.is_ssh(), !text.starts_with("rsync:"), "{text}");
        }
        assert_eq!(read("rsync://logs@store:8873/logs/a").unwrap().server(), "logs@store:8873");
        assert_eq!(read("logs@store:/srv").unwrap().server(), "logs@store");
        assert_eq!(read("s3://logs/web1/").unwrap(), Target::Bucket("logs".to_owned(), "web1".to_owned()));
        assert_eq!(read("s3://logs/web1/").unwrap().to_string(), "s3://logs/web1");
        assert_eq!(read("s3://logs").unwrap().to_string(), "s3://logs");
        assert_eq!(read("rsync://store/logs/").unwrap().to_string(), "rsync://store/logs");
        let wrong = [
            ("", "is no target"),
            ("logs", "is no target"),
            ("/mnt/../etc", "holds `.` or `..`"),
            ("/mnt/a b", "holds a space"),
            ("/mnt/a\n", "a control character"),
            ("rsync:///logs", "names no host"),
            ("rsync://store", "names no module"),
            ("rsync://store/", "names no module"),
            ("rsync://logs:secret@store/logs", "holds a password"),
            ("store::logs", "names a module with `::`"),
            ("-oProxyCommand=x:/y", "is no target"),
            ("s3://", "names no bucket"),
            ("s3://key:secret@logs/x", "names no bucket"),
            ("ftp://store/logs", "is not known here"),
            ("store:", "is no target"),
            ("store:logs", "is no target"),
            ("u@-h:/p", "is no target"),
            ("rsync://store:99999/logs", "names a host or a port that cannot be one"),
            ("rsync://-store/logs", "names a host or a port that cannot be one"),
            (":x", "is no target"),
        ];
        for (text, says) in wrong {
            assert!(read(text).unwrap_err().contains(says), "{text}: {:?}", read(text));
        }
    }
}
