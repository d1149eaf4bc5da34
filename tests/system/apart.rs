//! Tests that change accounts or mounts run apart from the machine: this test binary starts itself in a mount and a PID
//! namespace of its own, over a copy of `/etc`. Whatever becomes of the test, nothing of it is left.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Set only inside.
const APART: &str = "FANLI_TEST_APART";

/// What makes it a place of its own; `$1` is an empty folder, the rest is what to run.
const PREPARE: &str = r#"
mount -t tmpfs -o mode=0755 fanli-apart "$1"
mkdir "$1/etc" "$1/utab" "$1/srv" "$1/srv/work" "$1/sbin"
cp -a /etc/. "$1/etc"
rm -f "$1"/etc/*.lock
mount --bind "$1/etc" /etc
mount --bind "$1/srv" /srv
mount --bind "$1/sbin" /usr/local/sbin
if [ -d /run/mount ]; then mount --bind "$1/utab" /run/mount; fi
printf '# of this host\n' > /etc/fstab
shift
# The shell stays as the first process, to bury orphans.
"$@" && exit 0
exit 1
"#;

/// Only the machine's own settings are a copy: for what starts real daemons that outlive their starter. `$1` is an empty folder.
const OWN_SETTINGS: &str = r#"
mount -t tmpfs -o mode=0755 fanli-apart "$1"
for dir in etc opt usr/local; do
    mkdir -p "$1/$dir" "$1/work/$dir"
    mount -t overlay -o "lowerdir=/$dir,upperdir=$1/$dir,workdir=$1/work/$dir" fanli-apart "/$dir"
done
shift
exec "$@"
"#;

/// The mount table, without network namespaces: those of other tests go from every table with their files.
pub fn mount_table() -> String {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own: Vec<&str> = text.lines().filter(|line| !line.contains(" nsfs ")).collect();
    own.join("\n")
}

/// Runs the body of the test of that name (`module::test`) apart.
pub fn apart(test: &str, body: impl FnOnce()) {
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"];
    elsewhere(test, &namespaces, PREPARE, body);
}

/// Runs the body of the test of that name with `/etc`, `/opt` and `/usr/local` of its own, over those of the machine: labs of other tests
/// show these.
pub fn with_own_settings(test: &str, body: impl FnOnce()) {
    elsewhere(test, &["--mount", "--propagation", "private"], OWN_SETTINGS, body);
}

fn elsewhere(test: &str, namespaces: &[&str], prepare: &str, body: impl FnOnce()) {
    if std::env::var_os(APART).is_some() {
        return body();
    }
    let dir = tempfile::Builder::new().prefix("fanli-apart-").tempdir().unwrap();
    let done = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-ec", prepare, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(APART, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    eprintln!("{said}");
    assert!(done.status.success(), "{test} failed: see above");
    assert!(said.contains("1 passed"), "{test} is not the test's name");
}

/// The folder of a test that runs apart; only root can write on the way to it.
pub fn folder() -> PathBuf {
    assert!(std::env::var_os(APART).is_some(), "only inside");
    PathBuf::from("/srv/work")
}

/// Runs a script that must succeed, and gives what it says.
pub fn sh(script: &str) -> String {
    let done = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{script}: {out}{err}");
    out.trim_end().to_owned()
}
