//! A FUSE file system whose program is gone, below the tasks that declare it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::run::{Place, Run};
use crate::common::fanli;

/// Plays in a mount namespace of its own, in which a file system without a program is mounted on `out/m`.
fn play_beside_a_dead_one(place: &Place, more: &[&str]) -> Run {
    let script = r#"exec 3<>/dev/fuse
mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 gone "$1"
exec 3>&-
stat "$1" 2>&1 | grep -q 'endpoint is not connected' || exit 77
shift
"$@" || exit
case $* in *--check*) exit ;; esac
findmnt --noheadings --output FSTYPE,SOURCE "$OUT/m" > "$OUT/mounted"
stat --format=%a "$OUT/m" >> "$OUT/mounted""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", script, "sh"]).arg(place.out("m")).arg(fanli());
    command.args(["play", "play.fp", "--json", "--state-dir"]).arg(place.path("state-%h")).args(more);
    command.current_dir(place.path("")).env("OUT", place.out(""));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Run::of(command.spawn().unwrap())
}

fn place(mode: &str) -> Place {
    let playbook = format!(
        r#"play "p" on hosts.all_of_them {{
  directory "OUT/m" {{ {mode} }}
  mount "OUT/m" {{
    type    = tmpfs
    from    = "alive"
    options = ["mode=0711", "size=64k"]
    fstab   = false
  }}
  file "OUT/m/f" {{ content = "written" }}
}}"#
    );
    let place = Place::new(&["h"], &playbook);
    fs::create_dir(place.out("m")).unwrap();
    fs::set_permissions(place.out("m"), fs::Permissions::from_mode(0o700)).unwrap();
    place
}

#[test]
fn a_dead_mount_is_mended_by_the_tasks_that_declare_it() {
    for (mode, steps) in [("", "h directory m: ok"), ("mode = 0755", "h directory m: changed")] {
        let place = place(mode);
        let check = play_beside_a_dead_one(&place, &["--check"]);
        assert_eq!(check.code, Some(0), "{}", check.text);
        let run = play_beside_a_dead_one(&place, &[]).expect(0);
        assert_eq!(run.steps(), [steps, "h mount m: changed", "h file f: changed"], "{}", run.text);
        assert_eq!(place.read("mounted").unwrap(), "tmpfs  alive\n711\n");
        if !mode.is_empty() {
            let told = "mounted dead: transport endpoint is not connected -> absent";
            assert!(run.text.contains(told), "{}", run.text);
            // The directory below is as declared, too.
            assert_eq!(fs::metadata(place.out("m")).unwrap().permissions().mode() & 0o777, 0o755);
        }
    }
}

#[test]
fn a_directory_under_a_dead_mount_is_not_removed_and_the_way_is_told() {
    let place = Place::new(&["h"], "play \"p\" on hosts.all_of_them {\n  directory \"OUT/m\" { state = absent }\n}");
    fs::create_dir(place.out("m")).unwrap();
    let run = play_beside_a_dead_one(&place, &[]).expect(4);
    assert!(run.text.contains("cannot be removed: gone is mounted on it"), "{}", run.text);
    assert!(run.text.contains("a `mount` task with `state = absent` before this one"), "{}", run.text);
}
