//! How the helper gets onto a host: cached under its content hash, verified through the descriptor that is executed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::failure::{Context as _, Failure, FailureKind};
use crate::value::Digest;

/// What the host's shell says when the helper is not there: a line that no login script prints by accident.
pub(super) const NEED: &[u8] = b"\x01fanli-need\n";

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

    /// The one command line that a host's shell gets. POSIX sh; needs stat, and for the first time mkdir, head, gzip, sha256sum.
    ///
    /// In order: refuse a cache that others could have written (CVE-2020-1733 is what trusting `mkdir -p` led to); open the
    /// helper and execute that descriptor, once it is certain that it holds what the name says. It is hashed through the
    /// descriptor, unless device, inode, length and time of change are those of the file that was hashed last: only root
    /// could have kept them. When it is missing or damaged say so, read exactly the compressed bytes, unpack beside,
    /// verify, rename, and go on as if it had been there. A run that finds it starts one program (`stat`) before it.
    pub(super) async fn script(&self, state_dir: Option<&str>) -> Result<String, Failure> {
        let digest = self.digest().await?;
        let dir = state_dir.unwrap_or("/var/lib/fanli");
        Ok(format!("d={dir}\nh={digest}\n{SCRIPT}"))
    }
}

const SCRIPT: &str = r#"umask 077; set -f; IFS='
'
f=$d/helper/$h
die() { echo "fanli: $1" >&2; exit 97; }
{ [ -d "$d/helper" ] || mkdir -p "$d/helper" 2>/dev/null; } && [ -w "$d/helper" ] || die "cannot write to $d/helper; fanli needs root: log in as root or set become = true"
p=$d/helper; set -- "$p"
while [ "$p" != / ]; do p=${p%/*}; [ -n "$p" ] || p=/; set -- "$@" "$p"; done
look() { if [ -f "$f" ]; then exec 9<"$f"; else exec 9</dev/null; fi; s=$(stat -c '%F|%u|%a|%d:%i:%s:%z' -- "$@" - <&9) || die "cannot look at $d/helper"; }
sound() { [ -n "$now" ] && s=$(sha256sum <&9) && [ "${s%% *}" = "$h" ] && exec 9<"$f" && echo "$now" >"$f.ok"; }
look "$@"
now=; known=
for line in $s; do
  rest=${line#*|}; owner=${rest%%|*}; rest=${rest#*|}; mode=${rest%%|*}
  if [ $# -eq 0 ]; then case $line in regular*) now=${rest#*|} ;; esac; continue; fi
  case $line in directory\|*) ;; *) die "refusing the helper's folder: $1 is no directory" ;; esac
  [ "$owner" = 0 ] || [ "$owner" = "$(id -u)" ] || die "refusing the helper's folder: $1 belongs to user $owner"
  case $mode in [1357]???) ;; *[2367]? | *[2367]) die "refusing the helper's folder: others may write to $1" ;; esac
  shift
done
[ -z "$now" ] || [ ! -f "$f.ok" ] || read -r known <"$f.ok"
if [ -z "$now" ] || [ "$now" != "$known" ] && ! sound; then
  printf '\001fanli-need\n'
  read -r length
  t=$d/helper/.new-$$
  trap 'rm -f "$t" "$t.gz"' EXIT
  head -c "$length" >"$t.gz" && gzip -dc "$t.gz" >"$t" && chmod 0700 "$t" && mv -f "$t" "$f" || die "the helper could not be stored in $d/helper"
  rm -f "$t.gz"; trap - EXIT
  look; now=${s##*|}
  sound || die "the stored helper is damaged"
  find "$d/helper" -type f ! -name "$h*" -mtime +30 -exec rm -f {} +
fi
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
