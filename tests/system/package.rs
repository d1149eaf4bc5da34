//! Real apt, dpkg, dnf and rpm, in a copy of this machine, over a repository that is made here.

use std::time::{Duration, Instant};

use fanli::resource::kinds::schema;
use fanli::value::Value;

use crate::common::chance::{Chance, moments};
use crate::common::{Bench, refused, session};
use crate::copy::Copy;
use crate::drive::{Report, Task, task};
use crate::file_examples::planned_args;

/// `deb NAME VERSION "Control: fields"` makes a package of what lies in `root/`, with the scripts in `DEBIAN/`; `publish` makes
/// the lists of all that were made.
const DEB: &str = r#"
repo=/usr/local/fanli-repo
mkdir -p $repo
deb() {
  mkdir -p root/DEBIAN
  printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n%s' "$1" "$2" "$3" > root/DEBIAN/control
  dpkg-deb --root-owner-group --nocheck -Znone --build root $repo/$1_$(echo $2 | tr : _).deb > /dev/null
  rm -r root
}
script() { mkdir -p root/DEBIAN; { echo '#!/bin/sh'; cat; } > root/DEBIAN/$1; chmod 755 root/DEBIAN/$1; }
publish() {
  cd $repo
  : > Packages
  for file in *.deb; do
    dpkg-deb --field $file >> Packages
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' $file $(stat -c %s $file) $(sha256sum $file | cut -d' ' -f1) >> Packages
  done
}
cd $(mktemp -d)
"#;

/// The packages of these tests. Nothing else is known to apt here.
const MAKE: &str = r#"
for version in 1.0 1.1 2.0; do
  mkdir -p root/etc root/DEBIAN
  echo "version = $version" > root/etc/fanli-t.conf
  echo /etc/fanli-t.conf > root/DEBIAN/conffiles
  deb fanli-t $version "Provides: fanli-virtual
"
done
deb fanli-needs 1.0 "Depends: fanli-t
Recommends: fanli-extra
"
deb fanli-extra 1.0
deb fanli-newer 1.0 "Depends: fanli-t (>= 1.1)
"
deb fanli-newest 1.0 "Depends: fanli-t (>= 2.0)
"
deb fanli-epoch 2:2.3-1
deb fanli-epoch 2:2.4-1
deb fanli-other 1.0 "Conflicts: fanli-t
"
mkdir -p root/etc/init.d
printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: fanli-d\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\necho $1 >> /run/fanli-d\n' > root/etc/init.d/fanli-d
chmod 755 root/etc/init.d/fanli-d
script postinst <<'END'
update-rc.d fanli-d defaults
/usr/sbin/policy-rc.d fanli-d start 2 || { echo "exit code $?" > /run/fanli-refused; exit 0; }
/etc/init.d/fanli-d start
END
deb fanli-d 1.0
# Slow, with many files: there is time to be killed in.
seq 400 | while read -r n; do mkdir -p root/usr/share/fanli-slow/$n; seq 200 > root/usr/share/fanli-slow/$n/f; done
echo 'sleep 0.3' | script preinst
echo 'sleep 0.5' | script postinst
deb fanli-slow 1.0 "Depends: fanli-needs
"
publish
"#;

/// Makes that repository all that apt knows.
const USE: &str = r"
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d
echo 'deb [trusted=yes] file:/usr/local/fanli-repo ./' > /etc/apt/sources.list
rm -rf /var/lib/apt/lists
";

fn deb_host() -> Copy {
    let copy = Copy::new();
    let own = tempfile::tempdir().unwrap();
    let made = session::once("fanli-repo.tar", own.path(), |tar| {
        copy.sh(&format!("{DEB}{MAKE}\ntar -C /usr/local -cf {} fanli-repo", tar.display()));
    });
    copy.sh(&format!("tar -C /usr/local -xf {}\n{USE}", made.display()));
    copy
}

fn names(names: &[&str]) -> Value {
    Value::List(names.iter().map(|name| Value::from(*name)).collect())
}

fn package(list: &[&str]) -> Task {
    task("package", [("names", names(list))])
}

fn with(mut task: Task, more: impl IntoIterator<Item = (&'static str, Value)>) -> Task {
    task.args.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    task
}

/// `hello: absent -> installed`
fn said(report: &Report) -> Vec<String> {
    assert!(report.failure.is_none(), "{}", report.failure.as_ref().unwrap());
    assert!(report.left.is_none(), "{:?}", report.left);
    let fields = report.change.iter().flat_map(|change| &change.fields);
    fields.map(|field| format!("{}: {} -> {}", field.field, field.from, field.to)).collect()
}

#[test]
fn the_example_installs_from_the_distribution() {
    let bench = Bench::new();
    let (kind, args) = planned_args(&bench, schema("package").unwrap().example);
    let copy = Copy::new();
    copy.sh("dpkg --purge hello tree 2> /dev/null || :");
    let mut drive = copy.drive();
    // To the distribution's mirror.
    drive.own_network = false;
    let example = Task { kind, args };
    assert_eq!(said(&drive.one(&example)), ["hello: absent -> installed", "tree: absent -> 2.*"]);
    assert_eq!(copy.sh("hello; tree --version | cut -c1-7"), "Hello, world!\ntree v2");
    drive.one(&example).no_change();
    copy.sh("dpkg --remove hello > /dev/null");
    assert_eq!(said(&drive.one(&example)), ["hello: absent -> installed"]);
}

#[test]
fn installed_pinned_removed_purged() {
    let copy = deb_host();
    let drive = copy.drive();
    let version = || copy.sh("dpkg-query -Wf '${Version}' fanli-t");
    let both = package(&["fanli-t=1.*", "fanli-needs"]);
    // The lists are empty at first: they are fetched because the names are not known.
    assert_eq!(said(&drive.one(&both)), ["fanli-needs: absent -> installed", "fanli-t: absent -> 1.*"]);
    assert_eq!(version(), "1.1");
    let there = |name: &str| copy.sh(&format!("dpkg-query -Wf '${{db:Status-Status}}' {name}")) == "installed";
    assert!(!there("fanli-extra"), "a recommended package came");
    drive.one(&both).no_change();
    drive.one(&package(&["fanli-t"])).no_change();

    copy.sh("echo changed > /etc/fanli-t.conf");
    assert_eq!(said(&drive.one(&package(&["fanli-t=2.0"]))), ["fanli-t: 1.1 -> 2.0"]);
    assert_eq!(copy.sh("cat /etc/fanli-t.conf"), "changed", "a configuration file was replaced");
    assert_eq!(said(&drive.one(&package(&["fanli-t=1.0"]))), ["fanli-t: 2.0 -> 1.0"]);
    drive.one(&both).no_change();

    // What is pinned and fits stays when a neighbour comes, unless that needs another one. An epoch need not be written.
    let pinned = |other: &'static str| package(&["fanli-t=1.*", other]);
    assert_eq!(said(&drive.one(&pinned("fanli-extra"))), ["fanli-extra: absent -> installed"]);
    assert_eq!(version(), "1.0", "a pinned package was upgraded for its neighbour");
    assert_eq!(said(&drive.one(&pinned("fanli-newer"))), ["fanli-newer: absent -> installed"]);
    assert_eq!(version(), "1.1");
    assert_eq!(said(&drive.one(&pinned("fanli-epoch=2.3*"))), ["fanli-epoch: absent -> 2.3*"]);
    assert_eq!(copy.sh("dpkg-query -Wf '${Version}' fanli-epoch"), "2:2.3-1");
    // What is held is changed by nobody, and a check says so, too.
    copy.sh("apt-mark hold fanli-t > /dev/null; dpkg --purge fanli-extra > /dev/null");
    assert_eq!(said(&drive.one(&pinned("fanli-extra"))), ["fanli-extra: absent -> installed"]);
    let away = |list: &[&str]| with(package(list), [("state", "absent".into())]);
    let mut look = copy.drive();
    look.apply = false;
    for (drive, task) in [
        (&look, package(&["fanli-t=2.0", "fanli-extra"])),
        (&drive, package(&["fanli-t=2.0", "fanli-extra"])),
        (&drive, away(&["fanli-t"])),
        (&drive, package(&["fanli-newest"])),
    ] {
        let report = drive.one(&task);
        let failure = report.failed();
        assert_eq!(failure.to_string(), "`fanli-t` would have to change, and may not: held by `apt-mark hold`");
        assert!(failure.hint.as_ref().unwrap().contains("`apt-mark unhold fanli-t`"), "{failure:?}");
    }
    assert_eq!((copy.sh("apt-mark showhold fanli-t"), version()), ("fanli-t".to_owned(), "1.1".to_owned()));
    copy.sh("apt-mark unhold fanli-t > /dev/null; dpkg --purge fanli-newer fanli-extra fanli-epoch > /dev/null");

    let failure = drive.one(&away(&["fanli-t"]));
    assert_eq!(failure.failed().to_string(), "removing `fanli-t` would also remove `fanli-needs`");
    assert_eq!(said(&drive.one(&away(&["fanli-t", "fanli-needs"]))).len(), 2);
    drive.one(&away(&["fanli-t", "fanli-needs"])).no_change();
    assert_eq!(copy.sh("cat /etc/fanli-t.conf"), "changed");
    let purge = with(away(&["fanli-t"]), [("purge", true.into())]);
    assert_eq!(said(&drive.one(&purge)), ["fanli-t: config-files -> absent"]);
    assert!(!copy.try_sh("cat /etc/fanli-t.conf").status.success());
    drive.one(&purge).no_change();

    said(&drive.one(&package(&["fanli-t"])));
    let other = package(&["fanli-other"]);
    let failure = drive.one(&other);
    assert_eq!(failure.failed().to_string(), "installing this would also remove `fanli-t`");
    assert_eq!(said(&drive.one(&with(other, [("may_remove", true.into())]))), ["fanli-other: absent -> installed"]);

    copy.sh("dpkg --purge fanli-other");
    let recommends = with(package(&["fanli-needs"]), [("recommends", true.into())]);
    said(&drive.one(&recommends));
    assert!(there("fanli-extra"));
}

#[test]
fn what_nobody_offers_is_named() {
    let copy = deb_host();
    let drive = copy.drive();
    let fails = |list: &[&str]| {
        let report = drive.one(&package(list));
        let failure = report.failed();
        format!("{failure}\n{}", failure.hint.as_deref().unwrap_or_default())
    };
    let fresh = "the lists of packages were refreshed just now";
    let text = fails(&["fanli-t", "fanli-sloww"]);
    assert_eq!(text, format!("there is no package `fanli-sloww` for this host: {fresh}\ndid you mean `fanli-slow`?"));
    let text = fails(&["fanli-t=3.*"]);
    let known = "there is `2.0`, `1.1`, `1.0`";
    assert_eq!(text, format!("there is no version `3.*` of package `fanli-t` for this host: {fresh}\n{known}"));
    let text = fails(&["fanli-virtual"]);
    let why = "is not a package, only a name that packages may provide";
    assert_eq!(text, format!("`fanli-virtual` {why}: {fresh}\nname one of `fanli-t`"));
    assert!(!copy.try_sh("dpkg-query -W fanli-t").status.success(), "some were installed all the same");
    // A mirror that does not answer is the reason then.
    copy.sh("echo 'deb [trusted=yes] file:/nowhere ./' > /etc/apt/sources.list; rm -rf /var/lib/apt/lists");
    let text = fails(&["fanli-t"]);
    assert!(text.contains("the lists of packages could not be refreshed") && text.contains("/nowhere"), "{text}");
}

#[test]
fn lists_are_refreshed_when_they_are_old() {
    let copy = deb_host();
    let drive = copy.drive();
    said(&drive.one(&package(&["fanli-extra"])));
    // The mirror has another version by now; the lists still name the old one.
    let newer = format!("{DEB} rm $repo/fanli-t_*; deb fanli-t 2.1; publish");
    copy.sh(&newer);
    said(&drive.one(&package(&["fanli-t"])));
    assert_eq!(copy.sh("dpkg-query -Wf '${Version}' fanli-t"), "2.1");

    copy.sh(&format!("{DEB} deb fanli-other 1.1; publish; dpkg --purge fanli-t"));
    let refresh = |age| with(package(&["fanli-other"]), [("refresh", Value::Duration(Duration::from_secs(age)))]);
    said(&drive.one(&refresh(86_400)));
    assert_eq!(copy.sh("dpkg-query -Wf '${Version}' fanli-other"), "1.0");
    copy.sh("dpkg --purge fanli-other");
    copy.sh("touch -d '2 days ago' /var/lib/fanli/package-lists");
    said(&drive.one(&refresh(86_400)));
    assert_eq!(copy.sh("dpkg-query -Wf '${Version}' fanli-other"), "1.1");
}

#[test]
fn daemons_of_packages_start_only_when_asked_to() {
    let copy = deb_host();
    let drive = copy.drive();
    let (plain, start) = (package(&["fanli-d"]), with(package(&["fanli-d"]), [("start", true.into())]));
    let away = with(package(&["fanli-d"]), [("state", "absent".into()), ("purge", true.into())]);
    said(&drive.one(&plain));
    assert_eq!(
        copy.sh("cat /run/fanli-refused; ls /run/fanli-d /usr/sbin/policy-rc.d 2> /dev/null || :"),
        "exit code 101"
    );
    said(&drive.one(&away));
    // With no policy at all the script of the test would fail: it asks for one that allows.
    copy.sh("printf '#!/bin/sh\\nexit 0\\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d");
    let report = drive.one(&plain);
    assert!(report.failed().to_string().contains("has a /usr/sbin/policy-rc.d of its own"), "{:?}", report.failed());
    said(&drive.one(&start));
    assert_eq!(copy.sh("cat /run/fanli-d"), "start");
    said(&drive.one(&away));
    copy.sh("printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; rm /run/fanli-d");
    said(&drive.one(&plain));
    assert_eq!(copy.sh("ls /run/fanli-d /usr/sbin/policy-rc.d 2> /dev/null || :"), "/usr/sbin/policy-rc.d");
}

#[test]
fn another_package_manager_is_waited_for() {
    let copy = deb_host();
    let drive = copy.drive();
    // At work, and stopped as long as it is to hold its lock.
    let hold = "apt-get -qq update; (apt-get -y install fanli-slow > /dev/null 2>&1 &) ; \
                until grep -q \":$(stat -c %i /var/lib/dpkg/lock-frontend) \" /proc/locks; do sleep 0.01; done; \
                kill -STOP $(pidof apt-get)";
    copy.sh(hold);
    let impatient = with(package(&["fanli-extra"]), [("lock_wait", Value::Duration(Duration::from_millis(100)))]);
    let report = drive.one(&impatient);
    let text = report.failed().to_string();
    assert!(text.starts_with("/var/lib/dpkg/lock-frontend is held by process "), "{text}");
    assert!(text.ends_with("(`apt-get`): over its limit `lock_wait` of 100ms"), "{text}");
    copy.sh("(sleep 4; kill -CONT $(pidof apt-get)) > /dev/null 2>&1 &");
    let patient = drive.one(&package(&["fanli-extra"]));
    said(&patient);
    assert!(patient.progress.iter().any(|line| line.starts_with("waiting for process ")), "{:?}", patient.progress);
    copy.sh("dpkg-query -W fanli-slow");
}

#[test]
fn killed_in_the_middle_the_next_run_finishes() {
    let mut chance = Chance::new();
    let copy = deb_host();
    let all = package(&["fanli-slow", "fanli-d"]);
    let away = with(package(&["fanli-slow", "fanli-d", "fanli-needs", "fanli-t"]), [("state", "absent".into())]);
    let whole = |at: &str| {
        let drive = copy.drive();
        said(&drive.one(&all));
        drive.one(&all).no_change();
        assert_eq!(copy.sh("dpkg --audit"), "", "{at}");
        // What a kill may have left forbids nothing, and goes.
        copy.sh("cd /usr/sbin; [ ! -e policy-rc.d ] || ./policy-rc.d x start; [ ! -e policy-rc.d ]");
        assert_eq!(copy.sh("ls /usr/share/fanli-slow | wc -l"), "400", "{at}");
        assert_eq!(copy.sh("ls /run/fanli-d 2> /dev/null || :"), "", "a daemon was started: {at}");
    };
    let gone = |at: &str| {
        let drive = copy.drive();
        said(&drive.one(&away));
        drive.one(&away).no_change();
        assert_eq!(copy.sh("dpkg --audit"), "", "{at}");
        assert_eq!(copy.sh("ls /usr/share/fanli-slow 2> /dev/null | wc -l"), "0", "{at}");
    };
    let millis = |begun: Instant| u64::try_from(begun.elapsed().as_millis()).unwrap();
    let begun = Instant::now();
    whole("not killed");
    let comes = millis(begun);
    let begun = Instant::now();
    gone("not killed");
    let goes = millis(begun);
    // Whether the kill hit.
    let killed = |task: &Task, at: u64, dpkg_alone: bool| {
        if dpkg_alone {
            // apt and fanli see it die.
            let (seconds, millis) = (at / 2000, at / 2 % 1000);
            copy.sh(&format!(
                "rm -f /run/stop; (sleep {seconds}.{millis:03}; until [ -e /run/stop ] || pkill -9 -x dpkg; do sleep 0.01; done) \
                 > /dev/null 2>&1 &"
            ));
            let report = copy.drive().one(task);
            copy.sh("touch /run/stop; sleep 0.1");
            return report.failure.is_some();
        }
        // The helper: nothing of it may go on.
        let mut drive = copy.drive();
        drive.wrap =
            ["timeout", "--signal=KILL", &format!("{}.{:03}", at / 1000, at % 1000)].map(str::to_owned).to_vec();
        let hit = drive.try_run(std::slice::from_ref(task)).is_none();
        copy.sh("for _ in $(seq 100); do pidof apt-get dpkg > /dev/null || exit 0; sleep 0.1; done; exit 1");
        hit
    };
    let (mut interrupted, mut unfinished) = (0, 0);
    // Four rounds: the helper or dpkg alone is killed, and then it goes on or back.
    let rounds = moments(4, 16);
    for round in 0..rounds {
        for (task, takes, on) in [(&all, comes, "coming"), (&away, goes, "going")] {
            let at = chance.below(takes);
            interrupted += u32::from(killed(task, at, round % 2 != 0));
            unfinished += u32::from(!copy.sh("dpkg --audit").is_empty());
            let what = format!("round {round}, {on}, at {at} ms of {takes}");
            // Both ways from where it was killed.
            if (round / 2 % 2 == 0) == (on == "coming") {
                whole(&what);
            } else {
                gone(&what);
                whole(&what);
            }
        }
        gone("next round");
    }
    eprintln!("{interrupted} of {} interrupted, {unfinished} of them with packages half done", 2 * rounds);
    assert!(interrupted > 0, "no kill hit the work");
}

/// What a kill leaves for moments only: dpkg wants the archive once more, and apt's own repair does not give it.
#[test]
fn what_dpkg_left_in_between_is_unpacked_again() {
    let copy = deb_host();
    let drive = copy.drive();
    let all = package(&["fanli-slow"]);
    let other = package(&["fanli-extra"]);
    let away = with(package(&["fanli-slow", "fanli-extra"]), [("state", "absent".into())]);
    let statuses = [
        "install reinstreq half-installed",
        "install reinstreq unpacked",
        "install reinstreq half-configured",
        "install ok half-installed",
        "install ok unpacked",
        "deinstall reinstreq half-installed",
        "deinstall ok half-installed",
    ];
    let mut chance = Chance::new();
    for status in statuses {
        let interrupt = format!(
            "sed -i '/^Package: fanli-slow$/,/^$/ s/^Status: .*/Status: {status}/' /var/lib/dpkg/status; \
             rm -f /usr/share/fanli-slow/7/f"
        );
        eprintln!("{status}");
        let nexts = [(&all, "itself"), (&other, "another"), (&away, "none")];
        for (next, name) in chance.some(nexts, moments(1, 3)) {
            said(&drive.one(&all));
            copy.sh(&interrupt);
            let report = drive.one(next);
            assert!(!said(&report).is_empty(), "{status}, then {name}");
            drive.one(next).no_change();
            assert_eq!(copy.sh("dpkg --audit"), "", "{status}, then {name}");
        }
        drive.one(&away);
        said(&drive.one(&all));
        copy.sh("test -s /usr/share/fanli-slow/7/f");
    }
}

#[test]
fn dnf_and_rpm_by_the_same_interface() {
    let copy = Copy::new();
    copy.sh(
        r#"
# From here on this is a host whose database is rpm's.
mv /var/lib/dpkg /var/lib/dpkg.away
rm -rf /var/lib/rpm /etc/yum.repos.d; mkdir -p /var/lib/rpm /etc/yum.repos.d; rpm --initdb
cd $(mktemp -d)
make() {
  printf 'Name: %s\nVersion: %s\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%s\n%%description\nx\n%%files\n' $1 $2 "$3" > x.spec
  rpmbuild --quiet --define "_topdir $PWD" --define "_rpmdir /usr/local/fanli-repo" -bb x.spec > /dev/null 2>&1
}
make fanli-t 1.0 "Provides: fanli-virtual"; make fanli-t 1.1 "Provides: fanli-virtual"; make fanli-t 2.0 "Provides: fanli-virtual"
make fanli-needs 1.0 "Requires: fanli-t
Recommends: fanli-extra"
make fanli-extra 1.0
createrepo_c --quiet /usr/local/fanli-repo
printf '[fanli]\nname=fanli\nbaseurl=file:///usr/local/fanli-repo\ngpgcheck=0\n' > /etc/yum.repos.d/fanli.repo
"#,
    );
    let drive = copy.drive();
    let both = package(&["fanli-t=1.*", "fanli-needs"]);
    assert_eq!(said(&drive.one(&both)), ["fanli-needs: absent -> installed", "fanli-t: absent -> 1.*"]);
    assert_eq!(copy.sh("rpm -qa | sort"), "fanli-needs-1.0-1.noarch\nfanli-t-1.1-1.noarch");
    drive.one(&both).no_change();
    assert_eq!(said(&drive.one(&package(&["fanli-t=2.0-1"]))), ["fanli-t: 1.1-1 -> 2.0-1"]);
    assert_eq!(said(&drive.one(&package(&["fanli-t=1.0*"]))), ["fanli-t: 2.0-1 -> 1.0*"]);
    copy.sh("rpm -e fanli-needs");
    assert_eq!(said(&drive.one(&both)), ["fanli-needs: absent -> installed"]);
    let failure = drive.one(&package(&["fanli-t", "fanli-nosuch"]));
    let expected = "there is no package `fanli-nosuch` for this host: `dnf` refreshed its lists just now";
    assert_eq!(failure.failed().to_string(), expected);
    let failure = drive.one(&package(&["fanli-virtual"]));
    let expected = "`fanli-virtual` is not the name of a package, only one that packages provide";
    assert_eq!(failure.failed().to_string(), expected);
    let away = |list: &[&str]| with(package(list), [("state", "absent".into())]);
    let failure = drive.one(&away(&["fanli-t"]));
    assert_eq!(failure.failed().to_string(), "removing `fanli-t` would also remove `fanli-needs-1.0-1.noarch`");
    said(&drive.one(&with(away(&["fanli-t"]), [("may_remove", true.into())])));
    drive.one(&away(&["fanli-t", "fanli-needs"])).no_change();
}

#[test]
fn wrong_names_are_refused_before_any_host() {
    let error = |list: &[&str]| refused("package", [("names".to_owned(), names(list))].into());
    assert_eq!(error(&["-y"]), "names: `-y` is not the name of a package");
    assert_eq!(error(&["a-"]), "names: `a-` is not the name of a package");
    assert_eq!(error(&["a b"]), "names: `a b` is not the name of a package");
    assert_eq!(error(&["./x.deb"]), "names: `./x.deb` is not the name of a package");
    assert_eq!(error(&["a*"]), "names: `a*` is not the name of a package");
    assert_eq!(error(&[""]), "names: an empty name");
    assert_eq!(error(&["a=*"]), "names: `*` is not a version, nor a version's beginning and a `*`");
    assert_eq!(error(&["a=1", "a"]), "names: `a` stands there twice");
}
