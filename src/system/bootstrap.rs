//! A Debian root file system out of nothing but a mirror, by debootstrap, kept as a tar for whoever needs it next.
//!
//! The work runs in mount and process namespaces of its own: what debootstrap mounts is never seen outside, and everything
//! that it started ends with it, also when the helper is killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::fs::lock;
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};
use crate::value::Digest;

/// Where finished roots are kept. Several docker hosts on one machine share them.
const CACHE: &str = "/var/cache/fanli/bootstrap";
/// How long to wait for another run that makes the same root (`bootstrap lock`), and how long making it may take.
const MAKING: Duration = Duration::from_secs(30 * 60);
/// The mirror when the host names none.
const MIRROR: &str = "http://deb.debian.org/debian";

/// What a root file system is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The release: `bookworm`.
    pub suite: String,
    /// Packages beyond the minimum.
    pub packages: Vec<String>,
    /// The mirror; the one of the host's own apt sources when there is none.
    pub mirror: Option<String>,
}

/// What apt is told in the new root. With several requests on one connection it was seen to wait for ever behind a proxy.
const SETTINGS: &str = "Acquire::http::Pipeline-Depth \"0\";\nAcquire::Retries \"3\";\n";

/// `$1` root, `$2` tar, `$3` suite, `$4` mirror, `$5` sources, `$6` apt settings, then packages. The first process of its
/// namespace: when it ends, the kernel ends all others. It ends when its work is done or its input closes, and the helper
/// holds the other end of that.
const GUARD: &str = r#"exec 3<&0 </dev/null; trap '' HUP
sh -euc "$0" sh "$@" & job=$!
(read -r _ <&3; kill -9 $job) 2>/dev/null &
wait $job"#;

const WORK: &str = r#"root=$1 out=$2 suite=$3 mirror=$4 sources=$5 settings=$6; shift 6
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
# debootstrap gives up when one package of hundreds meets a mirror that is busy for a moment; its wget can try again, as apt does.
mkdir -p "$root"; settings_of_wget=$root/.wgetrc
{ cat "${WGETRC:-${HOME:-/root}/.wgetrc}" 2>/dev/null || :; printf 'tries = 5\nretry_on_http_error = 429,500,502,503,504\n'; } > "$settings_of_wget"
WGETRC=$settings_of_wget debootstrap --variant=minbase "$suite" "$root" "$mirror"
rm "$settings_of_wget"
: > "$root/etc/apt/sources.list"
mkdir -p "$root/etc/apt/sources.list.d" "$root/etc/apt/apt.conf.d"
printf '%s' "$sources" > "$root/etc/apt/sources.list.d/fanli.sources"
printf '%s' "$settings" > "$root/etc/apt/apt.conf.d/90fanli"
if [ $# -gt 0 ]; then
  printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"
  mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
  chroot "$root" apt-get -q update
  chroot "$root" apt-get -q -y --no-install-recommends install "$@"
  rm "$root/usr/sbin/policy-rc.d"
fi
chroot "$root" apt-get clean
umount -R "$root/proc" 2>/dev/null || :
umount -R "$root/sys" 2>/dev/null || :
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/var/log/*.log
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/etc/machine-id" "$root"/var/log/apt/*
: > "$root/etc/machine-id"
echo "I: packing"
tar --create --numeric-owner --one-file-system --sort=name --xattrs --xattrs-include=security.capability \
  --directory "$root" --file "$out" ."#;

impl Actuator {
    /// The tar of a root file system, made now unless it is there already.
    ///
    /// # Errors
    /// When debootstrap is not installed, or fails: with its last lines.
    pub async fn bootstrap(&self, what: &Bootstrap) -> Result<PathBuf, Failure> {
        let (mirror, sources) = self.apt_sources(what)?;
        let settings = self.apt_settings()?;
        let all = format!("1\n{what:?}\n{mirror}\n{sources}\n{settings}\n{WORK}");
        let hash = Digest::of(all.as_bytes()).short();
        let cache = Path::new(CACHE);
        self.own_dirs([Path::new("/var/cache/fanli"), cache])?;
        let tar = cache.join(format!("{hash}.tar"));
        if self.exists(&tar)? {
            return Ok(tar);
        }
        self.progress("waiting for other runs that bootstrap here", None);
        let note = format!("bootstrap of {} by process {}", what.suite, std::process::id());
        let _one =
            lock(cache.join("lock"), &note, MAKING).await.map_err(|failure| failure.within("cannot bootstrap"))?;
        if self.exists(&tar)? {
            return Ok(tar);
        }

        let work = self.state_dir().join("bootstrap");
        self.own_dirs([self.state_dir(), &work])?;
        // Whatever stands here was left by a run that was killed: we hold the lock.
        for left in self.list(&work)?.unwrap_or_default() {
            self.remove_tree(work.join(left))?;
        }
        let (root, unfinished) = (work.join(&hash), cache.join(format!("{hash}.unfinished")));
        let arguments = [what.suite.as_str(), &mirror, &sources, &settings];
        let made = self.debootstrap(&root, &unfinished, &arguments, &what.packages).await;
        self.remove_tree(&root)?;
        if let Err(failure) = made {
            self.remove_file(&unfinished)?;
            return Err(failure.within(format!("cannot bootstrap Debian {}", what.suite)));
        }
        let file = std::fs::File::open(&unfinished).context("cannot open the new root's tar")?;
        file.sync_all().context("cannot sync the new root's tar")?;
        std::fs::rename(&unfinished, &tar).with_context(|| format!("cannot rename {}", unfinished.display()))?;
        Ok(tar)
    }

    async fn debootstrap(&self, root: &Path, out: &Path, four: &[&str], packages: &[String]) -> Result<(), Failure> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", GUARD, WORK]);
        command.arg(root).arg(out).args(four).args(packages);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start unshare and debootstrap")?;
        // Held open until the end: its closing is what ends the work.
        let _life = child.stdin.take();
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::new("debootstrap has no output"));
        };
        let mut last = std::collections::VecDeque::new();
        let work = async {
            let (mut out, mut err) = (BufReader::new(stdout).split(b'\n'), BufReader::new(stderr).split(b'\n'));
            let (mut out_ended, mut err_ended) = (false, false);
            while !out_ended || !err_ended {
                let line = tokio::select! {
                    line = out.next_segment(), if !out_ended => line.context("cannot read debootstrap's output")
                        .inspect(|line| out_ended = line.is_none())?,
                    line = err.next_segment(), if !err_ended => line.context("cannot read debootstrap's output")
                        .inspect(|line| err_ended = line.is_none())?,
                };
                let Some(line) = line else { continue };
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if line.is_empty() {
                    continue;
                }
                self.progress(line.strip_prefix("I: ").unwrap_or(&line), None);
                last.push_back(line);
                if last.len() > 12 {
                    last.pop_front();
                }
            }
            child.wait().await.context("cannot wait for debootstrap")
        };
        let status = match tokio::time::timeout(MAKING, work).await {
            Ok(status) => status?,
            Err(_) => return Err(Failure::timeout("bootstrap", MAKING)),
        };
        if status.success() {
            return Ok(());
        }
        let missing = last.iter().any(|line: &String| line.contains("debootstrap: not found"));
        let failure = Failure::new(format!("debootstrap ended with {status}"))
            .because(format!("its last lines:\n{}", Vec::from(last).join("\n")));
        Err(if missing { failure.hint("install it first: `package \"debootstrap\"`") } else { failure })
    }
}

impl Probe {
    /// A file as a stream, for a request's body.
    pub fn stream(&self, path: &Path) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static + use<> {
        let path = path.to_owned();
        async_stream::try_stream! {
            let mut file = tokio::fs::File::open(path).await?;
            loop {
                let mut piece = bytes::BytesMut::with_capacity(256 << 10);
                if file.read_buf(&mut piece).await? == 0 {
                    break;
                }
                yield piece.freeze();
            }
        }
    }

    /// The mirror, and the sources for the new root: the host's own for that release, so that later builds find what the
    /// host finds.
    fn apt_sources(&self, what: &Bootstrap) -> Result<(String, String), Failure> {
        if let Some(mirror) = &what.mirror {
            return Ok((mirror.clone(), stanza(mirror, &what.suite, "main")));
        }
        let mut found = Vec::new();
        let dir = Path::new("/etc/apt/sources.list.d");
        let mut files: Vec<_> = self.list(dir)?.unwrap_or_default().into_iter().map(|name| dir.join(name)).collect();
        files.sort();
        files.insert(0, PathBuf::from("/etc/apt/sources.list"));
        for file in files {
            let Some(text) = self.read_small(&file)? else { continue };
            match file.extension().and_then(|end| end.to_str()) {
                Some("sources") => found.extend(deb822(&text)),
                Some("list") => found.extend(text.lines().filter_map(one_line)),
                _ => {}
            }
        }
        // `bookworm`, `bookworm-updates`, `bookworm-security`; nothing of other distributions, whose keys are not in the root.
        found.retain(|source| source.suite == what.suite || source.suite.starts_with(&format!("{}-", what.suite)));
        let main = found.iter().find(|source| source.suite == what.suite);
        let mirror = main.map_or(MIRROR, |source| source.uri.as_str()).to_owned();
        let text: Vec<_> = found.iter().map(|source| stanza(&source.uri, &source.suite, &source.components)).collect();
        let text = if main.is_none() { stanza(&mirror, &what.suite, "main") } else { text.join("\n") };
        Ok((mirror, text))
    }

    /// The new root's settings of apt, with the host's proxy when it has one that holds no password.
    fn apt_settings(&self) -> Result<String, Failure> {
        let dir = Path::new("/etc/apt/apt.conf.d");
        let mut names = self.list(dir)?.unwrap_or_default();
        names.sort();
        let mut settings = String::from(SETTINGS);
        for name in names {
            for line in self.read_small(dir.join(name))?.unwrap_or_default().lines() {
                let line = line.trim();
                if ["Acquire::http::Proxy ", "Acquire::https::Proxy "].iter().any(|key| line.starts_with(key))
                    && !line.contains('@')
                {
                    settings.push_str(line);
                    settings.push('\n');
                }
            }
        }
        Ok(settings)
    }
}

/// One place that apt takes packages from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    components: String,
}

fn stanza(uri: &str, suite: &str, components: &str) -> String {
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {components}\nSigned-By: {keys}\n")
}

/// Only what debootstrap and a root with Debian's keys can use; nothing that carries a password.
fn usable(uri: &str) -> bool {
    (uri.starts_with("http://") || uri.starts_with("https://")) && !uri.contains('@')
}

/// `deb [options] URI suite component…` (`sources.list(5)`).
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(after) => after.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
    let debian = !options.contains("signed-by") || options.contains("debian-archive-keyring");
    let components = words.collect::<Vec<_>>().join(" ");
    (usable(&uri) && debian && !components.is_empty()).then_some(Source { uri, suite, components })
}

/// The stanzas of a deb822 file (`sources.list(5)`): every URI with every suite.
fn deb822(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let plain: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in plain.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            let value = |line: &&str| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            };
            stanza.iter().find_map(value)
        };
        let (Some(types), Some(uris), Some(suites)) = (field("Types"), field("URIs"), field("Suites")) else {
            continue;
        };
        let off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let debian = field("Signed-By").is_none_or(|keys| keys.contains("debian-archive-keyring"));
        let components = field("Components").unwrap_or_default();
        if off || !debian || components.is_empty() || !types.split_whitespace().any(|kind| kind == "deb") {
            continue;
        }
        for uri in uris.split_whitespace().filter(|uri| usable(uri)) {
            let source = |suite: &str| Source { uri: uri.into(), suite: suite.into(), components: components.clone() };
            found.extend(suites.split_whitespace().map(source));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_in_both_spellings() {
        let text = "# a\nTypes: deb deb-src\n# b\nURIs: http://deb.debian.org/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: https://u:p@example.org/x\nSuites: bookworm\nComponents: main\n\n\
                    Types: deb\nURIs: https://download.example.org/x\nSuites: bookworm\nComponents: stable\nSigned-By: /etc/k.gpg\n";
        let suites: Vec<_> = deb822(text).into_iter().map(|source| source.suite).collect();
        assert_eq!(suites, ["bookworm", "bookworm-updates"]);
        let line = "deb [arch=amd64] http://ftp.example.org/debian bookworm main contrib";
        let source = one_line(line).unwrap();
        assert_eq!((source.suite.as_str(), source.components.as_str()), ("bookworm", "main contrib"));
        assert_eq!(one_line("deb-src http://x/ bookworm main"), None);
        assert_eq!(one_line("deb file:///srv/x bookworm main"), None);
        assert_eq!(one_line("deb [signed-by=/etc/k.gpg] http://x/ bookworm stable"), None);
    }
}
