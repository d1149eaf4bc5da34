//! The tier over SSH on three docker hosts.

use super::run::{Play, eventually, get, must, play};
use super::shared_lab::{HOSTS, converged, down, in_node, mend, nodes, on};
use crate::common::fanli;
use std::time::Duration;

#[test]
fn a1_the_tier_comes_up_over_ssh_and_a_second_run_changes_nothing() {
    let lab = converged();
    if let Some(first) = &lab.first {
        eprintln!("the tier came up in {:?}", first.took);
    }
    let second = play(&["--env", "lab"]).expect_nothing_done();
    eprintln!("a run that finds nothing to do takes {:?}", second.took);
    assert!(second.took < Duration::from_secs(20), "{:?}", second.took);
}

#[test]
fn a2_every_node_answers_every_host_with_its_name() {
    let _lab = converged();
    let all: Vec<(String, String)> = HOSTS.iter().flat_map(|host| nodes(host)).collect();
    assert_eq!(all.len(), 3, "{all:?}");
    for (name, address) in &all {
        // This machine is one more neighbour on the switch.
        assert_eq!(get(address, "/index.php"), (200, name.clone()));
        for host in HOSTS {
            assert_eq!(on(host, &format!("curl -sS --max-time 5 http://{address}/")), *name, "from {host}");
        }
    }
    for host in HOSTS {
        assert_eq!(nodes(host).len(), 1, "nodes are spread evenly");
    }
}

#[test]
fn a3_logs_are_cut_by_the_hour_and_belong_to_the_admin() {
    let _lab = converged();
    let (name, address) = nodes("lab1").remove(0);
    on("lab1", &format!("curl -sS --max-time 5 -H 'Host: tuan.fanli.test' http://{address}/?a3"));
    let log = format!("/data/containers/{name}/weblogs/tuan/$(TZ=Asia/Shanghai date +%Y%m%d%H).*.log");
    eventually("the line is in the log", Duration::from_secs(10), || {
        on("lab1", &format!("cat {log} | grep -c 'GET /?a3' || true")) != "0"
    });
    assert_eq!(on("lab1", &format!("stat -c '%U:%a' {log} | sort -u")), "tuangouadmin:644");
}

#[test]
fn a3_lines_of_all_nodes_are_read_over_ssh() {
    let _lab = converged();
    let all: Vec<(String, String)> = HOSTS.iter().flat_map(|host| nodes(host)).collect();
    let secret = fanli::value::Digest::of(format!("{:?}", std::time::Instant::now()).as_bytes()).short();
    let asked: Vec<(String, String)> = (0..60)
        .map(|number| {
            let (name, address) = &all[number % all.len()];
            let path = format!("/index.php?{secret}-{number}");
            assert_eq!(get(address, &path), (200, name.clone()));
            (path, name.clone())
        })
        .collect();
    let logs = |more: &[&str]| {
        must(fanli(), &[&["logs", more[0]], &more[1..], &["playbooks/web-tier.fp", "--env", "lab"]].concat())
    };
    let mut objects = Vec::new();
    eventually("every request is in a log", Duration::from_secs(20), || {
        let found = logs(&["grep", &secret, "--json", "--since", "1h"]);
        objects = found.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
        objects.len() >= asked.len()
    });
    assert_eq!(objects.len(), asked.len(), "each once");
    let text = |object: &serde_json::Value, name: &str| object[name].as_str().unwrap().to_owned();
    assert!(objects.is_sorted_by_key(|object| text(object, "at").parse::<jiff::Timestamp>().unwrap()));
    for (path, name) in &asked {
        let of = |object: &&serde_json::Value| text(object, "line").contains(&format!("GET {path} "));
        let found: Vec<&serde_json::Value> = objects.iter().filter(of).collect();
        assert_eq!(found.len(), 1, "{path}");
        assert_eq!((text(found[0], "node"), text(found[0], "site")), (name.clone(), "www".to_owned()));
    }
    let (path, name) = &asked[asked.len() - 1];
    let one = logs(&["cat", "--limit", name, "--site", "www", "--since", "1h"]);
    let line = one.lines().find(|line| line.contains(path)).unwrap();
    assert!(line.starts_with(&format!("{name} www  ")), "{line}");
    assert_eq!(logs(&["grep", &secret, "--site", "tuan"]), "");
    let last = logs(&["tail", "-n", "2000"]);
    assert_eq!(asked.iter().filter(|(path, _)| last.contains(&format!("GET {path} "))).count(), asked.len());
}

#[test]
fn a3_copies_of_closed_logs_are_stored_on_another_host() {
    let _lab = converged();
    let (name, address) = nodes("lab1").remove(0);
    let secret = fanli::value::Digest::of(format!("{:?}", std::time::Instant::now()).as_bytes()).short();
    for number in 0..20 {
        assert_eq!(get(&address, &format!("/index.php?{secret}-{number}")), (200, name.clone()));
    }
    // The writers of before end with the workers of before.
    on("lab1", &format!("docker exec {name} apachectl -k graceful"));
    let folder = format!("/data/containers/{name}/weblogs/www");
    let of_it = format!("grep -l {secret} {folder}/*.log | sed 's,.*/,,'");
    let mut file = String::new();
    eventually("its file is closed", Duration::from_secs(30), || {
        file = on("lab1", &of_it);
        on("lab1", &format!("cat {folder}/.{file}.seal")).contains("\"why\":\"end\"")
    });
    // As if its hour had ended two hours ago: then it is compressed, and copied.
    on(
        "lab1",
        &format!(
            "at() {{ date -u -d \"-$1 hours\" +%FT%TZ; }}; sed -i -E \"s/(\\\"begin\\\":)[^,]*/\\1\\\"$(at 3)\\\"/; \
             s/(\\\"end\\\":)[^,]*/\\1\\\"$(at 2)\\\"/\" {folder}/.{file}.seal && /etc/init.d/fanli-watch restart"
        ),
    );
    let copy = format!("/data/logstore/{name}/www/{file}.zst");
    eventually("a copy is stored", Duration::from_secs(60), || {
        on("lab3", &format!("stat -c %U {copy} 2>/dev/null || true")) == "nobody"
    });
    eventually("status says so", Duration::from_secs(60), || {
        must(fanli(), &["status", "playbooks/web-tier.fp", "--env", "lab"]).contains("copies      all are stored")
    });
    let found = || must(fanli(), &["logs", "grep", &secret, "playbooks/web-tier.fp", "--env", "lab"]);
    // Each line once, though it is there twice.
    let there = found();
    assert_eq!(there.lines().count(), 20, "{there}");
    // What the node has no more the storage has.
    on("lab1", &format!("rm {folder}/{file}.zst {folder}/.{file}.seal"));
    let there = found();
    assert_eq!(there.lines().filter(|line| line.starts_with(&format!("lab3 {name}/www  "))).count(), 20, "{there}");
    play(&["--env", "lab"]).expect_nothing_done();
}

#[test]
fn a4_the_real_programs_accept_their_configuration() {
    let _lab = converged();
    let (name, address) = nodes("lab2").remove(0);
    assert_eq!(on("lab2", &format!("docker exec {name} apachectl -t 2>&1")), "Syntax OK");
    assert!(on("lab2", &format!("docker exec {name} supervisorctl status apache2")).contains("RUNNING"));
    assert_eq!(on("lab2", &format!("docker exec {name} cat /proc/1/comm")), "supervisord");
    // PHP has what the environment says, asked from itself.
    let page = "/data/store/webdata/www/limits.php";
    on("lab2", &format!("echo '<?php echo ini_get(\"memory_limit\"), ini_get(\"display_errors\");' > {page}"));
    let said = get(&address, "/limits.php");
    on("lab2", &format!("rm {page}"));
    assert_eq!(said, (200, "64M1".to_owned()));
}

#[test]
fn b1_a_restarted_node_gets_its_interface_back_from_the_watcher() {
    let _lab = converged();
    let (name, address) = nodes("lab1").remove(0);
    on("lab1", &format!("docker restart {name}"));
    eventually("the node answers again without a run", Duration::from_secs(30), || {
        get(&address, "/index.php") == (200, name.clone())
    });
    play(&["--env", "lab"]).expect_nothing_done();
}

#[test]
fn b1_without_a_watcher_exactly_the_interface_is_mended_by_the_next_run() {
    let _lab = converged();
    let (name, address) = nodes("lab1").remove(0);
    on("lab1", &format!("/etc/init.d/fanli-watch stop && docker restart {name}"));
    assert!(!in_node("lab1", &name, "ip -o link").contains("eth0"), "docker restart was seen to lose the interface");
    // The rollout takes the node out of traffic and back, and remembers what it was.
    let of_rollout = ["backend", "former"];
    let what = |run: &Play| {
        let differing = run.differing().into_iter().filter(|step| !of_rollout.contains(&step.kind.as_str()));
        differing.map(|step| (step.target.clone(), step.kind.clone())).collect::<Vec<_>>()
    };
    let both = [("lab1".to_owned(), "watcher".to_owned()), (name.clone(), "attach".to_owned())];
    let check = play(&["--env", "lab", "--check"]);
    assert_eq!(what(&check), both, "{}", check.told());
    // The watcher, which is started first, may have been quicker than the step.
    let mended = play(&["--env", "lab"]).expect_good();
    assert!([&both[..], &both[..1]].contains(&&what(&mended)[..]), "{}", mended.told());
    assert_eq!(get(&address, "/index.php"), (200, name));
    play(&["--env", "lab"]).expect_nothing_done();
}

#[test]
fn b2_a_daemon_that_crashed_is_started_and_its_nodes_are_attached_again() {
    let _lab = converged();
    let (name, address) = nodes("lab3").remove(0);
    on("lab3", "kill -9 $(cat /run/docker.pid)");
    mend();
    assert_eq!(get(&address, "/index.php"), (200, name));
}

#[test]
fn b3_a_changed_configuration_is_tested_and_the_nodes_reload_it() {
    let _lab = converged();
    let (name, _) = nodes("lab1").remove(0);
    let pid = on("lab1", &format!("docker exec {name} supervisorctl pid apache2"));
    let run = play(&["--env", "lab", "--set", "domain=shop.test"]).expect_good();
    assert!(run.differing().iter().any(|step| step.kind == "trial"), "{}", run.told());
    assert!(run.differing().iter().any(|step| step.kind == "switch"), "{}", run.told());
    let (status, _) = get(&nodes("lab1")[0].1, "/ping");
    assert_eq!(status, 200);
    assert_eq!(on("lab1", &format!("docker exec {name} supervisorctl pid apache2")), pid, "reloaded, not restarted");
    mend();
}

#[test]
fn b4_another_user_becomes_root_by_sudo_behind_a_login_script_that_talks() {
    let _lab = converged();
    on(
        "lab2",
        "useradd --create-home --shell /bin/bash deploy && usermod -p '*' deploy && \
         echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy && \
         printf 'echo Welcome to lab2; echo really >&2\n' > /home/deploy/.bashrc && chown deploy: /home/deploy/.bashrc",
    );
    let folder = tempfile::tempdir().unwrap();
    let playbook = |more: &str| {
        let path = folder.path().join("play.fp");
        let text = format!(
            "hosts all_of_them {{\n  host \"lab2\" {{ address = 10.88.0.2  user = \"deploy\"  {more} \
             config = \"/var/lib/fanli-lab/lab/ssh_config\" }}\n}}\n\
             play \"p\" on hosts.all_of_them {{\n  file \"/root/by-sudo\" {{ content = \"yes\\n\" }}\n}}\n"
        );
        std::fs::write(&path, text).unwrap();
        super::run::output(crate::common::fanli(), &["play", path.to_str().unwrap()])
    };
    let without = playbook("");
    let said = String::from_utf8_lossy(&without.stdout).into_owned();
    assert_eq!(without.status.code(), Some(5), "{said}");
    assert!(said.contains("fanli needs root: log in as root or set become = true"), "{said}");
    let with = playbook("become = true ");
    assert_eq!(with.status.code(), Some(0), "{}", String::from_utf8_lossy(&with.stdout));
    assert_eq!(on("lab2", "stat -c '%U %a' /root/by-sudo; cat /root/by-sudo"), "root 644\nyes");
    on("lab2", "rm /etc/sudoers.d/deploy /root/by-sudo && userdel --remove deploy 2> /dev/null");
}

#[test]
fn z_down_leaves_nothing() {
    down(converged());
    let left = super::run::must(
        "sh",
        &[
            "-c",
            "ip -o link | grep -e fl-lab || true; ls /run/netns | grep fl-lab || true; \
             grep -l fanli-lab/lab/ /proc/[0-9]*/mountinfo 2>/dev/null || true; ls -d /sys/fs/cgroup/*/fanli-lab/lab 2>/dev/null || true; \
             iptables-save 2>/dev/null | grep -e fl-lab -e 10.88.0.0 || true; ls -d /var/lib/fanli-lab/lab /run/fanli-lab/lab.* 2>/dev/null || true",
        ],
    );
    assert_eq!(left, "");
}
