//! README's first command on this very machine: it becomes its own docker host. Its settings are a copy for as long: labs of other tests
//! stand on those of the machine.

use std::time::Duration;

use super::run::{Play, get, must, output, play};
use super::shared_lab::images;
use crate::apart::with_own_settings;
use crate::common::session;

/// Takes away what the tier leaves on this machine. Images stay, as packages do.
struct CleanUp {
    dockerd_before: Option<String>,
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        let stop = if self.dockerd_before.is_none() {
            "if [ -e /run/docker.pid ]; then kill $(cat /run/docker.pid); while [ -e /run/docker.pid ]; do sleep 0.1; done; fi"
        } else {
            ":"
        };
        let script = format!(
            "/etc/init.d/fanli-watch stop; rm -f /etc/init.d/fanli-watch; update-rc.d fanli-watch remove
             systemctl disable --now fanli-watch; rm -f /etc/systemd/system/fanli-watch.service
             rm -rf /usr/local/lib/fanli /var/lib/fanli/attach /var/lib/fanli/watch /var/lib/fanli/rollout /var/log/fanli-watch.log
             docker ps --all --quiet --filter label=tier=web | xargs -r docker rm --force; {stop}
             for share in fanliweb webdata; do
                 umount /opt/share/$share; sed -i \"\\\\#[[:space:]]/opt/share/$share[[:space:]]#d\" /etc/fstab
             done
             ip -o link | sed -n 's/^[0-9]*: \\(fn[^@:]*\\)@.*/\\1/p' | xargs -r -n1 ip link delete
             rm -rf /data/containers /data/rodata /data/store /opt/share
             userdel tuangouadmin; groupdel tuangouadmin"
        );
        let _ = output("sh", &["-c", &script]);
    }
}

#[test]
fn a_bare_machine_gets_three_nodes_and_the_second_run_changes_nothing() {
    let test = "tier::bare_machine::a_bare_machine_gets_three_nodes_and_the_second_run_changes_nothing";
    // A daemon that runs already would not see the copy.
    if std::path::Path::new("/run/docker.pid").exists() {
        from_nothing();
    } else {
        with_own_settings(test, from_nothing);
    }
}

fn from_nothing() {
    let _lock = session::lock("bare-machine");
    let dockerd_before = std::fs::read_to_string("/run/docker.pid").ok();
    let _clean_up = CleanUp { dockerd_before };
    let first: Play = play(&[]).expect_good();
    eprintln!("from nothing to three nodes in {:?}", first.took);
    for (name, address) in [("web00010", "10.77.0.10"), ("web00011", "10.77.0.11"), ("web00012", "10.77.0.12")] {
        assert_eq!(get(address, "/index.php"), (200, name.to_owned()));
        assert_eq!(get(address, "/ping").0, 200);
    }
    if let Some(session) = session::folder() {
        let images = images(&session);
        must("docker", &["save", "--output", images.to_str().unwrap(), "fanli/base:12", "fanli/web:1"]);
    }
    let second = play(&[]).expect_nothing_done();
    eprintln!("a run that finds nothing to do takes {:?}", second.took);
    assert!(second.took < Duration::from_secs(20), "{:?}", second.took);
}
