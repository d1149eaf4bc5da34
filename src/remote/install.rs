//! How the helper gets onto a host: cached under its content hash, verified through the descriptor that is executed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::failure::{Context as _, Failure, FailureKind};
use crate::value::Digest;

/// What the host's shell says when the helper is not there: a line that no login script prints by accident. It does not stand
/// in the script itself, which a shell may be set to repeat.
pub(super) const NEED: &[u8] = b"=fanli-helper-needed=\n";

/// This executable. Hashed once a run, compressed only when some host lacks it; never on a thread that others wait for.
#[derive(Debug)]
pub struct Binary {
    path: PathBuf,
    digest: OnceCell<Digest>,
    packed: OnceCell<Arc<[u8]>>,
}

impl Binary {
    /// The executable that runs now.
    ///
    /// # Errors
    /// The kernel does not tell where it is.
    pub(super) fn own() -> Result<Self, Failure> {
        // By descriptor, not by name: what is sent must be what runs, even when the file was replaced meanwhile.
        let path = PathBuf::from("/proc/self/exe");
        let path =
            if path.exists() { path } else { std::env::current_exe().context("this executable cannot be found")? };
        Ok(Self { path, digest: OnceCell::new(), packed: OnceCell::new() })
    }

    /// A path that executes it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its hash.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) async fn digest(&self) -> Result<Digest, Failure> {
        let path = self.path.clone();
        let hash = || aside(move || Ok(Digest::of(&read(&path)?)));
        self.digest.get_or_try_init(hash).await.copied()
    }

    /// Its compressed form, with a line before it that says how long it is.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) async fn packed(&self) -> Result<Arc<[u8]>, Failure> {
        let path = self.path.clone();
        let pack = || {
            aside(move || {
                // gzip, as every host has it; fast, as it is done once and sent once.
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                let packed = packer.write_all(&read(&path)?).and_then(|()| packer.finish());
                let packed = packed.context("the helper cannot be compressed")?;
                Ok([format!("{}\n", packed.len()).as_bytes(), &packed].concat().into())
            })
        };
        self.packed.get_or_try_init(pack).await.cloned()
    }

    /// The one script that a host's `sh` gets, as a single word that any login shell hands on unchanged ([`is_plain_word`]).
    /// POSIX sh; needs stat, and for the first time mkdir, head, gzip, sha256sum.
    ///
    /// In order: refuse a cache that others could have written (CVE-2020-1733 is what trusting `mkdir -p` led to); take away
    /// what uploads that were cut have left; open the helper and execute that descriptor, once it is certain that it holds
    /// what the name says. It is hashed through the descriptor, unless device, inode, length and time of change are those of
    /// the file that was hashed last: only root could have kept them. When it is missing or damaged say so, read exactly the
    /// compressed bytes, unpack beside, verify, rename, and go on as if it had been there. A run that finds it starts one
    /// program (`stat`) before it.
    pub(super) async fn script(&self, state_dir: Option<&str>) -> Result<String, Failure> {
        let digest = self.digest().await?;
        let dir = state_dir.unwrap_or("/var/lib/fanli");
        let lines = SCRIPT.lines().map(str::trim);
        let script =
            [format!("d=\"{dir}\"; h={digest};").as_str()].into_iter().chain(lines).collect::<Vec<_>>().join(" ");
        if is_plain_word(&script) {
            return Ok(script);
        }
        Err(Failure::of(FailureKind::Internal, format!("the state folder {dir} cannot stand in a command line")))
    }
}

/// Whether a text between single quotes is one word of that text to sh, bash, zsh, dash, fish, csh and tcsh. csh ends at a line
/// end and expands `!` even there, and to fish a backslash is none.
pub(super) fn is_plain_word(text: &str) -> bool {
    text.chars().all(|c| (c == ' ' || c.is_ascii_graphic()) && !matches!(c, '\'' | '!' | '\\' | '`'))
}

/// Its lines are joined by blanks: each ends where a blank may follow. No character that [`is_plain_word`] refuses.
const SCRIPT: &str = r#"
umask 077; set -f; n=$(echo x; echo x); n=${n#x}; IFS=${n%x};
f=$d/helper/$h; m=needed;
die() { echo "fanli: $1" >&2; exit 97; };
{ [ -d "$d/helper" ] || mkdir -p "$d/helper" 2>/dev/null; } && [ -w "$d/helper" ] ||
die "cannot write to $d/helper; fanli needs root: log in as root or set become = true";
p=$d/helper; set -- "$p";
while [ "$p" ]; do p=${p%/*}; set -- "$@" "${p:-/}"; done;
look() {
if [ -f "$f" ]; then exec 9<"$f"; else exec 9</dev/null; fi;
s=$(stat -c "%F|%u|%a|%d:%i:%s:%z" -- "$@" - <&9) || die "cannot look at $d/helper";
};
sound() { [ -n "$now" ] && s=$(sha256sum <&9) && [ "${s%% *}" = "$h" ] && exec 9<"$f" && echo "$now" >"$f.ok"; };
look "$@";
now=; known=; whole=;
for line in $s; do
rest=${line#*|}; owner=${rest%%|*}; rest=${rest#*|}; mode=${rest%%|*};
if [ $# -eq 0 ]; then case $line in regular*) now=${rest#*|} ;; esac; continue; fi;
case $line in "directory|"*) ;; *) die "refusing the folder of the helper: $1 is no directory" ;; esac;
[ "$owner" = 0 ] || [ "$owner" = "$(id -u)" ] || die "refusing the folder of the helper: $1 belongs to user $owner";
case $mode in [1357]???) ;; *[2367]? | *[2367]) die "refusing the folder of the helper: others may write to $1" ;; esac;
shift;
done;
set +f;
for t in "$d"/helper/.new-*; do
p=${t##*/.new-}; if [ -d "/proc/${p%.gz}" ] || [ -h "$t" ]; then continue; fi;
if [ -f "$t" ]; then rm -f "$t"; fi;
done;
set -f;
if [ -f "$f.ok" ]; then read -r known <"$f.ok"; fi;
if [ -n "$now" ]; then if [ "$now" = "$known" ] || sound; then whole=1; fi; fi;
if [ -z "$whole" ]; then
t=$d/helper/.new-$$; gone() { rm -f "$t" "$t.gz"; };
trap gone EXIT; trap "exit 98" HUP INT PIPE TERM;
echo "=fanli-helper-$m=";
read -r length;
head -c "$length" >"$t.gz" && gzip -dc "$t.gz" >"$t" && chmod 0700 "$t" && mv -f "$t" "$f" ||
die "the helper could not be stored in $d/helper";
rm -f "$t.gz"; trap - EXIT HUP INT PIPE TERM;
look; now=${s##*|};
sound || die "the stored helper is damaged";
find "$d/helper" -type f -mtime +30 -name "$h*" -o -type f -mtime +30 -exec rm -f {} +;
fi;
exec /proc/self/fd/9 helper --state-dir "$d"
"#;

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).context("this executable cannot be read")
}

/// Work that takes a while, on a thread for such work.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::of(FailureKind::Internal, "a thread broke").because(error)))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// A helper that says its arguments.
    const HELPER: &str = "#!/bin/sh\necho \"runs $*\"\n";

    /// A folder that may hold a helper, and the script that brings one there.
    struct Host {
        dir: tempfile::TempDir,
        binary: Binary,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("fanli");
            std::fs::write(&path, HELPER).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            Self { dir, binary: Binary { path, digest: OnceCell::new(), packed: OnceCell::new() } }
        }

        fn block<T>(future: impl Future<Output = T>) -> T {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
        }

        fn script(&self) -> String {
            Self::block(self.binary.script(Some(self.dir.path().join("state").to_str().unwrap()))).unwrap()
        }

        /// Runs what a login shell gets; gives what was said, and what is in the folder then.
        fn start(&self, shell: &[&str], sent: &[u8]) -> (String, Vec<String>) {
            let mut words = shell.iter();
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .arg("-c")
                .arg(format!("exec sh -c '{}'", self.script()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // One that finds its helper does not read this.
            let _ = stdin.write_all(sent);
            drop(stdin);
            let mut said = String::new();
            child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            child.wait().unwrap();
            let names = std::fs::read_dir(self.dir.path().join("state/helper")).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            (said, names.filter(|name| name.starts_with('.')).collect())
        }
    }

    #[test]
    fn every_login_shell_hands_the_script_on_as_one_word() {
        let host = Host::new();
        let script = host.script();
        assert!(is_plain_word(&script), "{script}");
        // csh cuts long lines, and no login shell should see its marker in the text of the script.
        assert!(script.len() < 4000, "{}", script.len());
        assert!(!script.as_bytes().windows(NEED.len() - 1).any(|part| part == NEED.strip_suffix(b"\n").unwrap()));
        for odd in ["a\nb", "a!b", "a'b", "a\\b", "a`b", "a\u{1}b", "ä"] {
            assert!(!is_plain_word(odd), "{odd:?}");
        }
        assert!(Host::block(host.binary.script(Some("/x'; rm -rf /; '"))).is_err());
    }

    #[test]
    fn a_helper_is_sent_once_and_what_cut_uploads_left_goes() {
        let host = Host::new();
        let packed = Host::block(host.binary.packed()).unwrap();
        let need = String::from_utf8(NEED.to_vec()).unwrap();
        let runs = format!("runs helper --state-dir {}/state\n", host.dir.path().display());
        // The link breaks: a shell that lives on takes its files away, one that is killed does not.
        let half = packed.get(..packed.len() - 9).unwrap();
        assert_eq!(host.start(&["sh"], half), (need.clone(), vec![]));
        let folder = host.dir.path().join("state/helper");
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let left = [format!(".new-{}", gone.id()), format!(".new-{}.gz", gone.id())];
        let busy = format!(".new-{}.gz", std::process::id());
        for name in left.iter().chain([&busy]) {
            std::fs::write(folder.join(name), "half").unwrap();
        }
        assert_eq!(host.start(&["sh"], &packed), (format!("{need}{runs}"), vec![busy.clone()]));
        std::fs::write(folder.join(&left[0]), "half").unwrap();
        for shell in [["sh"].as_slice(), &["bash"], &["dash"], &["zsh"], &["fish"], &["tcsh"], &["csh"]] {
            let there = Command::new(shell[0]).arg("--help").stdin(Stdio::null()).output().is_ok();
            if there {
                assert_eq!(host.start(shell, b""), (runs.clone(), vec![busy.clone()]), "{shell:?}");
            }
        }
    }
}
