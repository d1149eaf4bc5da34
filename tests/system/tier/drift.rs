//! What people do to hosts by hand: seen by `--check` with the field named, not touched by it, then mended.

use super::run::play;
use super::shared_lab::{HOSTS, converged, nodes, on};
use crate::common::chance::soak;

/// One thing done by hand, on the first lab host. `NODE` stands for its node, `HOME` for the node's folder.
pub struct Drift {
    /// What it is, for messages.
    pub name: &'static str,
    /// How it is done.
    pub command: &'static str,
    /// The kind of task that sees it.
    pub kind: &'static str,
    /// The field that is named.
    pub field: &'static str,
}

const fn drift(name: &'static str, kind: &'static str, field: &'static str, command: &'static str) -> Drift {
    Drift { name, command, kind, field }
}

/// Runs a command in the node's network namespace.
macro_rules! inside {
    ($command:literal) => {
        concat!("nsenter --net --target $(docker inspect -f '{{.State.Pid}}' NODE) ", $command)
    };
}

pub const DRIFTS: [Drift; 15] = [
    drift("another mode", "directory", "mode", "chmod 0700 HOME/webdata"),
    drift("another owner", "directory", "owner", "chown root HOME/weblogs/www"),
    drift("another group", "directory", "group", "chgrp root HOME/weblogs/tuan"),
    drift("a missing folder", "directory", "mode", "rm -rf HOME/weblogs/zhide"),
    drift(
        "an edit in what nodes mount",
        "slot",
        "sites.conf",
        "echo '# mine' >> /data/rodata/cfg_file/apache2/*/current/sites.conf",
    ),
    drift(
        "other bytes",
        "slot",
        "programs/apache2.conf",
        "echo '; mine' >> /data/rodata/cfg_file/supervisor/1/current/programs/apache2.conf",
    ),
    drift("a missing page", "file", "content", "rm /opt/share/webdata/ping.php"),
    drift("another page", "file", "content", "echo hello > /opt/share/webdata/www/index.php"),
    drift("another shell", "user", "shell", "usermod --shell /bin/sh tuangouadmin"),
    drift("a missing link", "attach", "link", inside!("ip link delete eth0")),
    drift("a wrong address", "attach", "address", inside!("ip address add 10.88.8.222/16 dev eth0")),
    drift("another MAC", "attach", "mac", inside!("ip link set eth0 address 02:00:00:12:34:56")),
    drift("a wrong MTU", "attach", "mtu", inside!("ip link set eth0 mtu 1400")),
    drift("a stopped container", "container", "state", "docker stop --time 1 NODE"),
    drift("a missing container", "container", "image", "docker rm --force NODE"),
];

impl Drift {
    /// Does it. The watcher would mend what is attached before anybody looks; the next run starts it again.
    pub fn happen(&self, host: &str, node: &str) {
        on(host, "/etc/init.d/fanli-watch stop");
        on(host, &self.command.replace("NODE", node).replace("HOME", &format!("/data/containers/{node}")));
    }
}

/// Everything that a run could change on a host: files with their attributes, mounts, accounts, links, containers. Access logs
/// grow by being looked at, and fanli's own folder is its own business.
pub fn fingerprint(host: &str) -> String {
    on(
        host,
        r"
        # A node begins a log file whenever an hour does, or when it reloads: that is the time of its folder.
        find /data /etc /opt -xdev -not -path '*/weblogs/*/*' \
            \( -path '*/weblogs/*' -printf '%p %m %U:%G %l\n' -o -printf '%p %m %U:%G %l %T@\n' \) | sort
        find /data /etc /opt/share -xdev -type f -not -path '*/weblogs/*/*' -print0 | sort -z | xargs -0 sha256sum
        sort /proc/self/mountinfo | grep -v -e /run/docker/ -e /var/lib/docker/ | cut -d' ' -f3-
        ip -d -o link | sed -e 's/ state [A-Z]*//' -e 's/_timer *[0-9.]*//g'
        ip -o address
        ip route
        for pid in $(docker ps --quiet | xargs -r docker inspect -f '{{.State.Pid}}'); do
            nsenter --net --target $pid sh -c 'ip -d -o link; ip -o address; ip route'
        done
        docker ps --all --quiet | sort | xargs -r docker inspect | sort
        docker image ls --all --no-trunc --quiet | sort
        ",
    )
}

#[test]
fn what_was_done_by_hand_is_named_by_a_check_that_changes_nothing_and_then_mended() {
    let _lab = converged();
    let host = HOSTS[0];
    let (node, _) = nodes(host).remove(0);
    // One after the other in a soak; else those together that do not touch the same thing.
    let rounds: Vec<&[Drift]> = if soak() {
        DRIFTS.chunks(1).collect()
    } else {
        [0..9, 9..10, 10..13, 13..14, 14..15].into_iter().map(|round| &DRIFTS[round]).collect()
    };
    assert_eq!(rounds.iter().map(|round| round.len()).sum::<usize>(), DRIFTS.len());
    for round in rounds {
        let names: Vec<&str> = round.iter().map(|drift| drift.name).collect();
        let names = names.join(", ");
        round.iter().for_each(|drift| drift.happen(host, &node));
        let before = fingerprint(host);
        let check = play(&["--env", "lab", "--check"]);
        let after = fingerprint(host);
        assert_eq!(check.code, Some(0), "{names}: {}", check.told());
        let seen: Vec<String> = check.differing().iter().map(ToString::to_string).collect();
        for drift in round {
            let named = check
                .differing()
                .iter()
                .any(|step| step.kind == drift.kind && step.fields.iter().any(|field| field == drift.field));
            assert!(named, "{}: the field `{}` is not named:\n{}", drift.name, drift.field, seen.join("\n"));
        }
        let differ = || before.lines().zip(after.lines()).find(|(left, right)| left != right);
        assert!(before == after, "{names}: the check changed something: {:?}", differ());
        let mended = play(&["--env", "lab"]).expect_good();
        let again = play(&["--env", "lab"]).expect_nothing_done();
        eprintln!(
            "{names}: seen in {:.1?}, left alone, mended in {:.1?}; again {:.1?}",
            check.took, mended.took, again.took
        );
    }
}
