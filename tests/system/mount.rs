//! `mount` with bind mounts, tmpfs and a disk image, in a mount namespace of its own.

use std::fs;

use fanli::change::Verb;
use fanli::resource::kinds::{Kind, schema};
use fanli::value::{Map, Value};

use crate::apart::{apart, folder, mount_table, sh};
use crate::args;
use crate::common::{Bench, build, refused};
use crate::file_examples::planned;

fn list(options: &str) -> Value {
    Value::List(options.split(',').filter(|option| !option.is_empty()).map(Value::from).collect())
}

/// A mount on `point` in the test's folder.
fn mount(point: &str, kind: &str, from: &str, options: &str) -> Kind {
    let path = folder().join(point);
    fs::create_dir_all(&path).unwrap();
    let mut args = args! { "path" => path.to_str().unwrap(), "type" => kind, "options" => list(options) };
    if !from.is_empty() {
        args.insert("from".to_owned(), Value::from(from));
    }
    build("mount", args)
}

fn with_state(point: &str, state: &str, more: Map) -> Kind {
    let mut args = args! { "path" => folder().join(point).to_str().unwrap(), "state" => state };
    args.extend(more);
    build("mount", args)
}

fn at(name: &str) -> String {
    folder().join(name).to_str().unwrap().to_owned()
}

/// A folder with a file in it, that names it.
fn store(name: &str) -> String {
    let path = folder().join(name);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("name"), name).unwrap();
    at(name)
}

fn name_at(point: &str) -> String {
    fs::read_to_string(folder().join(point).join("name")).unwrap_or_default()
}

fn fstab() -> String {
    fs::read_to_string("/etc/fstab").unwrap_or_default()
}

/// Looking changes nothing: neither the table of mounts nor fstab.
fn drift(bench: &Bench, task: &Kind) -> Vec<String> {
    let picture = || (mount_table(), fstab());
    let before = picture();
    let found = bench.drift(task);
    assert_eq!(picture(), before);
    found
}

/// Spoils it by a script, sees the fields, mends it, and finds nothing more to do.
fn spoil(bench: &Bench, task: &Kind, script: &str, fields: &[&str]) {
    sh(script);
    assert_eq!(drift(bench, task), fields, "{script}");
    bench.converge(task).unwrap_or_else(|failure| panic!("{script}: {failure} {:?}", failure.hint));
    assert_eq!(bench.plan(task).unwrap(), None, "{script}");
}

#[test]
fn the_example_works() {
    apart("mount::the_example_works", || {
        let bench = Bench::new();
        sh("mkdir -p /srv/fanli-example/store /srv/fanli-example/shared; echo x > /srv/fanli-example/store/f");
        let task = planned(&bench, schema("mount").unwrap().example);
        assert!(bench.converge(&task).unwrap().is_some());
        assert_eq!(bench.plan(&task).unwrap(), None);
        assert_eq!(fs::read_to_string("/srv/fanli-example/shared/f").unwrap(), "x\n");
        assert!(fs::write("/srv/fanli-example/shared/f", "y").is_err());
        fs::write("/srv/fanli-example/store/f", "y").unwrap();
        let line = "/srv/fanli-example/store /srv/fanli-example/shared none bind,ro,nosuid 0 0\n";
        assert_eq!(fstab(), format!("# of this host\n{line}"));
        // What stands in fstab is what mount(8) makes of it at the next start.
        sh("umount /srv/fanli-example/shared; mount /srv/fanli-example/shared");
        assert_eq!(bench.plan(&task).unwrap(), None);
    });
}

#[test]
fn drift_of_a_bind_mount_is_seen_and_mended() {
    apart("mount::drift_of_a_bind_mount_is_seen_and_mended", || {
        let bench = Bench::new();
        let (good, other) = (store("a store"), store("other"));
        let task = mount("on here", "bind", &good, "ro,nosuid,noatime");
        let point = at("on here");
        assert_eq!(drift(&bench, &task), ["*create"]);
        bench.converge(&task).unwrap();
        assert_eq!(name_at("on here"), "a store");
        let again =
            format!("mount --bind '{good}' '{point}'; mount -i -o remount,bind,ro,nosuid,noatime none '{point}'");
        let cases = [
            (format!("umount '{point}'"), vec!["mounted"]),
            (format!("mount -i -o remount,bind,rw,nosuid,noatime none '{point}'"), vec!["options"]),
            (format!("mount -i -o remount,bind,ro,noatime none '{point}'"), vec!["options"]),
            (format!("umount '{point}'; mount --bind '{good}' '{point}'"), vec!["options"]),
            (format!("mount --bind '{other}' '{point}'"), vec!["from", "options"]),
            (format!("umount '{point}'; mount --bind -o ro,nosuid,noatime '{other}' '{point}'"), vec!["from"]),
            (format!("mount -t tmpfs -o ro,nosuid,noatime t '{point}'"), vec!["from", "type"]),
            (format!("umount '{point}'; {again}"), vec![]),
            (format!("{again}; {again}"), vec![]),
            ("echo '# only this' > /etc/fstab".to_owned(), vec!["fstab"]),
            ("rm /etc/fstab".to_owned(), vec!["fstab"]),
            ("sed -i s/nosuid/suid/ /etc/fstab".to_owned(), vec!["fstab"]),
            ("sed -i s/none/ext4/ /etc/fstab".to_owned(), vec!["fstab"]),
            (
                "sed -i 's/^/   /; s/ 0 0/ 0 2 # mine/' /etc/fstab; echo '/dev/x /opt/y xfs' >> /etc/fstab".to_owned(),
                vec![],
            ),
            ("sed -i p /etc/fstab".to_owned(), vec!["fstab"]),
            (format!("while umount '{point}' 2>/dev/null; do :; done; sed -i /bind/d /etc/fstab"), vec!["*create"]),
        ];
        for (script, fields) in cases {
            spoil(&bench, &task, &script, &fields);
            assert_eq!(name_at("on here"), "a store", "{script}");
        }
        assert!(fstab().contains("/dev/x /opt/y xfs\n"));
        assert_eq!(fstab().matches("bind").count(), 1, "{}", fstab());
        // The source is removed and made anew: what is mounted is the old one, which nobody else sees any more.
        spoil(&bench, &task, &format!("rm -r '{good}'; mkdir '{good}'; printf 'a store' > '{good}/name'"), &["from"]);
        assert_eq!(name_at("on here"), "a store");

        let moved = mount("on here", "bind", &other, "");
        assert_eq!(drift(&bench, &moved), ["from", "fstab", "options"]);
        bench.converge(&moved).unwrap();
        assert_eq!(name_at("on here"), "other");
        fs::write(folder().join("on here/new"), "x").unwrap();
        assert_eq!(sh(&format!("findmnt -no VFS-OPTIONS '{point}'")), "rw,relatime");
    });
}

#[test]
fn unmounted_and_absent() {
    apart("mount::unmounted_and_absent", || {
        let bench = Bench::new();
        let good = store("store");
        let task = mount("p", "bind", &good, "");
        let absent = with_state("p", "absent", Map::new());
        let idle = with_state("p", "unmounted", Map::new());
        let kept = with_state("p", "unmounted", args! { "type" => "bind", "from" => good.as_str() });
        assert_eq!(bench.converge(&absent).unwrap(), None);
        assert_eq!(bench.converge(&idle).unwrap(), None);
        bench.converge(&task).unwrap();
        for state in [&idle, &kept] {
            bench.converge(&task).unwrap();
            assert_eq!(drift(&bench, state), ["mounted"]);
            bench.converge(state).unwrap();
            assert!(fstab().contains("bind") && name_at("p").is_empty());
        }
        sh("echo > /etc/fstab");
        assert_eq!(drift(&bench, &kept), ["fstab"]);
        bench.converge(&kept).unwrap();
        assert_eq!(drift(&bench, &absent), ["*remove"]);
        // Several over each other, all to go.
        sh(&format!("for i in 1 2 3; do mount -t tmpfs t {}; done", at("p")));
        bench.converge(&absent).unwrap();
        assert_eq!((bench.plan(&absent).unwrap(), fstab()), (None, "\n".to_owned()));
        let alone = build("mount", {
            let mut args = args! { "path" => at("p"), "type" => "bind", "from" => good.as_str() };
            args.insert("fstab".to_owned(), Value::Bool(false));
            args
        });
        bench.converge(&alone).unwrap();
        assert_eq!(fstab(), "\n");
        bench.converge(&absent).unwrap();
    });
}

#[test]
fn tmpfs_is_mounted_and_changed_in_place() {
    apart("mount::tmpfs_is_mounted_and_changed_in_place", || {
        let bench = Bench::new();
        let task = mount("t", "tmpfs", "", "size=8m,nr_inodes=2k,mode=0750,noexec");
        bench.converge(&task).unwrap();
        let point = at("t");
        fs::write(format!("{point}/kept"), "x").unwrap();
        assert_eq!(
            sh(&format!("stat -c %a {point}; df -B1 --output=size {point} | tail -n1 | tr -d ' '")),
            "750\n8388608"
        );
        assert!(fstab().ends_with(&format!("tmpfs {point} tmpfs size=8m,nr_inodes=2k,mode=0750,noexec 0 0\n")));
        spoil(&bench, &task, &format!("mount -o remount,size=9m,noexec none {point}"), &["options"]);
        spoil(&bench, &task, &format!("mount -o remount,ro,noexec none {point}"), &["options"]);
        spoil(&bench, &task, &format!("mount -o remount,exec none {point}"), &["options"]);
        bench.converge(&mount("t", "tmpfs", "", "size=16m,nosuid")).unwrap();
        assert_eq!(fs::read_to_string(format!("{point}/kept")).unwrap(), "x", "it was mounted anew, not in place");
        let all = sh(&format!("findmnt -no OPTIONS {point}"));
        assert!(all.contains("size=16384k") && all.contains("nosuid") && all.contains("noexec"), "{all}");
    });
}

#[test]
fn a_busy_mount_is_an_error_that_names_who() {
    apart("mount::a_busy_mount_is_an_error_that_names_who", || {
        let bench = Bench::new();
        let good = store("store");
        let task = mount("p", "bind", &good, "");
        bench.converge(&task).unwrap();
        let absent = with_state("p", "absent", Map::new());
        let mut holder = std::process::Command::new("sleep").arg("60").current_dir(folder().join("p")).spawn().unwrap();
        let failure = bench.converge(&absent).unwrap_err();
        assert_eq!(failure.message, format!("cannot unmount {}", at("p")));
        assert_eq!(failure.hint, Some(format!("stop what uses it first: {} (sleep)", holder.id())));
        holder.kill().unwrap();
        holder.wait().unwrap();
        sh(&format!("mkdir -p {0}/sub; mount -t tmpfs t {0}/sub", at("p")));
        let failure = bench.converge(&absent).unwrap_err();
        assert_eq!(failure.hint, Some(format!("unmount what is mounted below it first: {}/sub", at("p"))));
        assert!(fstab().contains("bind"), "it is still mounted, so its line stays");
        sh(&format!("umount {}/sub", at("p")));
        bench.converge(&absent).unwrap();
    });
}

#[test]
fn what_is_missing_is_named() {
    apart("mount::what_is_missing_is_named", || {
        let bench = Bench::new();
        let bind = |path: &str, from: &str| build("mount", args! { "path" => path, "type" => "bind", "from" => from });
        let failed = |task: &Kind| {
            let failure = bench.converge(task).unwrap_err();
            (failure.message.replace(&at(""), ""), failure.hint.unwrap_or_default())
        };
        let (message, hint) = failed(&bind(&at("nowhere"), &store("store")));
        assert_eq!(message, "there is no nowhere to mount on");
        assert_eq!(hint, "make it with a `directory` task before this one");
        fs::create_dir(folder().join("p")).unwrap();
        assert_eq!(failed(&bind(&at("p"), &at("nothing"))).0, "there is no nothing to mount on p");
        fs::write(folder().join("file"), "x").unwrap();
        assert_eq!(failed(&bind(&at("p"), &at("file"))).0, "file cannot be mounted on p: it is a directory");
        fs::write(folder().join("target"), "").unwrap();
        bench.converge(&bind(&at("target"), &at("file"))).unwrap();
        assert_eq!(fs::read_to_string(folder().join("target")).unwrap(), "x");
        std::os::unix::fs::symlink(at("p"), at("link")).unwrap();
        let failure = bench.plan(&bind(&at("link"), &at("store"))).unwrap_err();
        assert!(failure.message.starts_with(&format!("{} is a link to", at("link"))), "{failure}");
        // mount.nfs is not here; what would mount it is told before anything is tried.
        let nfs = build(
            "mount",
            args! { "path" => at("p"), "type" => "nfs", "from" => "store:/export", "options" => list("ro,hard") },
        );
        let (message, hint) = failed(&nfs);
        assert_eq!(message, "this host has no `mount.nfs`, which mounts of type `nfs` need");
        assert!(hint.contains("nfs-common"), "{hint}");
        assert!(!fstab().contains("nfs"));
    });
}

#[test]
fn links_on_the_way_are_the_same_place() {
    apart("mount::links_on_the_way_are_the_same_place", || {
        let bench = Bench::new();
        let good = store("store");
        fs::create_dir_all(folder().join("real/p")).unwrap();
        // Right in /srv: further below it would have to be declared.
        std::os::unix::fs::symlink(at("real"), "/srv/way").unwrap();
        std::os::unix::fs::symlink(&good, at("source")).unwrap();
        let task = build("mount", args! { "path" => "/srv/way/p", "type" => "bind", "from" => at("source") });
        bench.converge(&task).unwrap();
        assert_eq!(bench.plan(&task).unwrap(), None);
        spoil(&bench, &task, &format!("umount {}", at("real/p")), &["mounted"]);
        spoil(&bench, &task, &format!("mount -t tmpfs t {}", at("real/p")), &["from", "type"]);
        spoil(
            &bench,
            &task,
            "sed -i s:/srv/way:/srv/work/real: /etc/fstab; echo 'a /srv/way/p nfs' >> /etc/fstab",
            &["fstab"],
        );
        bench.converge(&build("mount", args! { "path" => "/srv/way/p", "state" => "absent" })).unwrap();
        assert_eq!(fstab(), "# of this host\n");
    });
}

#[test]
fn a_bind_of_what_lies_on_a_mount_of_its_own() {
    apart("mount::a_bind_of_what_lies_on_a_mount_of_its_own", || {
        let bench = Bench::new();
        bench.converge(&mount("disk", "tmpfs", "", "")).unwrap();
        let inner = store("disk/inner");
        let task = mount("p", "bind", &inner, "");
        bench.converge(&task).unwrap();
        assert_eq!(name_at("p"), "disk/inner");
        // Onto itself: a way to give a folder options of its own.
        let own = mount("disk/inner", "bind", &inner, "nosuid");
        bench.converge(&own).unwrap();
        assert_eq!(bench.plan(&own).unwrap(), None);
        assert_eq!(bench.plan(&task).unwrap(), None);
    });
}

#[test]
fn a_disk_by_its_image() {
    apart("mount::a_disk_by_its_image", || {
        let bench = Bench::new();
        let image = at("image");
        sh(&format!("truncate -s 4M {image}; mkfs.ext4 -q {image}"));
        let task = mount("disk", "ext4", &image, "loop,noatime");
        bench.converge(&task).unwrap();
        assert_eq!(bench.plan(&task).unwrap(), None);
        let point = at("disk");
        spoil(&bench, &task, &format!("mount -o remount,ro {point}"), &["options"]);
        spoil(&bench, &task, &format!("umount {point}"), &["mounted"]);
        bench.converge(&with_state("disk", "absent", Map::new())).unwrap();
        assert_eq!(sh("losetup -a"), "");
    });
}

#[test]
fn killed_between_its_steps_the_next_run_goes_on() {
    apart("mount::killed_between_its_steps_the_next_run_goes_on", || {
        let bench = Bench::new();
        let good = store("store");
        let task = mount("p", "bind", &good, "ro");
        let point = at("p");
        // After each of its steps, as a kill there leaves it.
        for (script, fields) in [
            (format!("mount --bind {good} {point}"), vec!["fstab", "options"]),
            (format!("mount --bind -o ro {good} {point}"), vec!["fstab"]),
        ] {
            sh(&script);
            assert_eq!(drift(&bench, &task), fields);
            bench.converge(&task).unwrap();
            bench.converge(&with_state("p", "absent", Map::new())).unwrap();
        }
        // On the way out: unmounted, its line still there.
        bench.converge(&task).unwrap();
        sh(&format!("umount {point}"));
        let change = bench.converge(&with_state("p", "absent", Map::new())).unwrap().unwrap();
        assert_eq!(change.verb, Verb::Remove);
    });
}

#[test]
fn wrong_arguments_are_told() {
    let x = "/x";
    let cases = [
        (args! { "path" => "/", "type" => "tmpfs" }, "path: `/` is what everything stands on"),
        (args! { "path" => x }, "type: is required"),
        (args! { "path" => x, "type" => "nsf" }, "type: `nsf` is none of"),
        (args! { "path" => x, "type" => "nfs" }, "from: is required"),
        (args! { "path" => x, "type" => "nfs", "from" => "store" }, "from: `store` is not like `server:/export`"),
        (args! { "path" => x, "type" => "cifs", "from" => "a:/b" }, "from: `a:/b` is not like `//server/share`"),
        (args! { "path" => x, "type" => "sshfs", "from" => "/b" }, "from: `/b` is not like `user@server:/path`"),
        (args! { "path" => x, "type" => "bind", "from" => "b" }, "from: `b` is not an absolute path"),
        (args! { "path" => x, "type" => "ext4", "from" => "-r" }, "from: `-r` is nothing that can be mounted"),
        (args! { "path" => x, "type" => "tmpfs", "options" => list("ro,remount") }, "options: `remount` fanli says"),
        (args! { "path" => x, "type" => "tmpfs", "options" => list("rbind") }, "options: `rbind` is for `type = bind`"),
        (args! { "path" => x, "type" => "tmpfs", "options" => list("a\nb") }, "options: `a\\nb` holds a line end"),
        (args! { "path" => x, "type" => "tmpfs", "state" => "absent" }, "type: means nothing"),
        (args! { "path" => x, "from" => "/b", "state" => "unmounted" }, "from: needs `type` beside it"),
    ];
    for (args, wanted) in cases {
        let said = refused("mount", args);
        assert!(said.starts_with(wanted), "{said}");
    }
}

/// Whatever was mounted there, and whatever is declared: after one run nothing is left to do.
#[test]
fn any_bind_converges_from_anything() {
    use proptest::prelude::*;

    apart("mount::any_bind_converges_from_anything", || {
        let bench = Bench::new();
        let stores = [store("one"), store("two three")];
        let (point, name) = (at("p q"), "p q");
        let flags =
            || prop::sample::subsequence(vec!["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"], 0..=6);
        let before = prop::collection::vec((0..3usize, flags()), 0..3);
        let line =
            prop::option::of(prop_oneof![Just("x"), Just("/a /b ext4 ro 0 0"), Just("s:/x /srv/work/p\\040q nfs")]);
        let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let cases = (before, line, 0..2usize, flags());
        let done = runner.run(&cases, |(before, line, which, options)| {
            for (what, flags) in before {
                let from = stores.get(what).map_or("-t tmpfs t".to_owned(), |store| format!("--bind '{store}'"));
                let flags = [vec!["remount", "bind"], flags].concat().join(",");
                sh(&format!("mkdir -p '{point}'; mount {from} '{point}'; mount -i -o {flags} none '{point}'"));
            }
            fs::write("/etc/fstab", line.unwrap_or_default()).unwrap();
            let task = mount(name, "bind", &stores[which], &options.join(","));
            bench.converge(&task).unwrap();
            prop_assert_eq!(bench.plan(&task).unwrap(), None);
            prop_assert_eq!(name_at(name), ["one", "two three"][which]);
            bench.converge(&with_state(name, "absent", Map::new())).unwrap();
            prop_assert!(
                line.is_none_or(|line| fstab() == format!("{line}\n") || line.contains("q nfs")),
                "{}",
                fstab()
            );
            Ok(())
        });
        done.unwrap();
    });
}

/// A folder of user 501 in which `conf` is a directory and `evil` a link to a directory of root's.
fn theirs(victim: &str) -> std::path::PathBuf {
    let theirs = folder().join("theirs");
    sh(&format!("mkdir -p '{0}/conf'; ln -s '{victim}' '{0}/evil'; chown -R 501 '{0}'", theirs.display()));
    theirs
}

fn mounts_at(bench: &Bench, path: &str) -> usize {
    bench.probe.mounts().unwrap().all().iter().filter(|mount| mount.point == path).count()
}

#[test]
fn below_a_directory_of_another_user_it_is_mounted_all_the_same() {
    apart("mount::below_a_directory_of_another_user_it_is_mounted_all_the_same", || {
        let bench = Bench::new();
        let good = store("good");
        theirs(&good);
        for (kind, from) in [("bind", good.as_str()), ("tmpfs", "t")] {
            let task = |options: &str| mount("theirs/conf", kind, from, options);
            assert_eq!(drift(&bench, &task("ro,nosuid")), ["*create"]);
            bench.converge(&task("ro,nosuid")).unwrap();
            assert_eq!(bench.plan(&task("ro,nosuid")).unwrap(), None);
            assert_eq!(mounts_at(&bench, &at("theirs/conf")), 1);
            spoil(&bench, &task("ro,nosuid"), &format!("umount '{}'", at("theirs/conf")), &["mounted"]);
            bench.converge(&task("nosuid,noexec")).unwrap();
            assert_eq!(mounts_at(&bench, &at("theirs/conf")), 1);
            bench.converge(&with_state("theirs/conf", "absent", Map::new())).unwrap();
            assert_eq!(mounts_at(&bench, &at("theirs/conf")), 0);
        }
        let state = bench.probe.state_dir().display().to_string();
        assert_eq!(bench.probe.mounts().unwrap().below(&state), Vec::<&str>::new());
        // What a killed run has left on fanli's own place is in nobody's way.
        sh(&format!("mkdir -p '{state}/mounting/directory'; mount -t tmpfs left '{state}/mounting/directory'"));
        bench.converge(&mount("theirs/conf", "tmpfs", "t", "")).unwrap();
        assert_eq!(bench.probe.mounts().unwrap().below(&state), Vec::<&str>::new());
        assert_eq!(sh(&format!("findmnt -no SOURCE '{}'", at("theirs/conf"))), "t");
    });
}

#[test]
fn names_that_others_swap_never_lead_a_mount_elsewhere() {
    apart("mount::names_that_others_swap_never_lead_a_mount_elsewhere", || {
        let bench = Bench::new();
        let victim = store("victim");
        let theirs = theirs(&victim);
        let (conf, evil) = (theirs.join("conf"), theirs.join("evil"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (mut mounted, mut bound) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = renameat_with(CWD, &conf, CWD, &evil, RenameFlags::EXCHANGE);
                }
            });
            for round in 0..60 {
                let from = format!("t{round}");
                let path = conf.to_str().unwrap();
                let point = args! { "path" => path, "type" => "tmpfs", "from" => from.as_str(), "fstab" => false };
                let tasks = [build("mount", point), mount("on", "bind", path, "")];
                for task in &tasks {
                    if let Ok(Some(change)) = bench.plan(task) {
                        let _ = bench.apply(task, &change);
                    }
                }
                assert_eq!(mounts_at(&bench, &victim), 0, "round {round}");
                assert_eq!(name_at("on"), "", "round {round}");
                mounted += usize::from(bench.probe.mounts().unwrap().all().iter().any(|mount| mount.source == from));
                bound += mounts_at(&bench, &at("on"));
                // Under either name, as long as there is something.
                let (on, conf, evil) = (at("on"), conf.display(), evil.display());
                sh(&format!("for p in '{on}' '{conf}' '{evil}'; do umount -l $p || true; done 2>/dev/null"));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(mounted > 0 && bound > 0, "{mounted} mounted, {bound} bound: the race was not met");
    });
}
