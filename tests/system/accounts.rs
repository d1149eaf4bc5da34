//! `user` and `group` with shadow's own programs, over a copy of this machine's `/etc`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use fanli::change::Verb;
use fanli::resource::kinds::{Kind, schema};
use fanli::value::{Map, Value};

use crate::apart::{apart, folder, sh};
use crate::args;
use crate::common::{Bench, build, refused};
use crate::file_examples::planned;

fn list(names: &[&str]) -> Value {
    Value::List(names.iter().copied().map(Value::from).collect())
}

fn user(more: Map) -> Kind {
    let mut args = args! { "name" => "fanli-tu" };
    args.extend(more);
    build("user", args)
}

/// Every table, without the lines of the test's own accounts.
fn others() -> String {
    sh(
        "cat /etc/passwd /etc/shadow /etc/group /etc/gshadow | grep -v '^fanli-t' | sed 's/fanli-t[a-z]*//g; s/:,*/:/g; s/,*$//'",
    )
}

fn line(table: &str, name: &str) -> String {
    sh(&format!("grep '^{name}:' /etc/{table} || :"))
}

/// Both tools find nothing to complain about that they did not before.
fn sound() -> String {
    sh("pwck -rq 2>&1 || :; grpck -r 2>&1 || :")
}

#[test]
fn examples_work() {
    apart("accounts::examples_work", || {
        let bench = Bench::new();
        for kind in ["group", "user"] {
            let task = planned(&bench, schema(kind).unwrap().example);
            assert!(bench.converge(&task).unwrap().is_some(), "{kind} changed nothing");
            assert_eq!(bench.plan(&task).unwrap(), None, "{kind}");
        }
        assert_eq!(line("group", "fanli-example"), "fanli-example:x:7501:");
        let nogroup = sh("getent group nogroup | cut -d: -f3");
        let wanted = format!("fanli-example:x:7501:{nogroup}:runs the example:/nonexistent:/usr/sbin/nologin");
        assert_eq!(line("passwd", "fanli-example"), wanted);
    });
}

#[test]
fn a_group_comes_changes_and_goes() {
    apart("accounts::a_group_comes_changes_and_goes", || {
        let (bench, before, sane) = (Bench::new(), others(), sound());
        let group = |gid: i64| build("group", args! { "name" => "fanli-tg", "gid" => gid });
        bench.converge(&group(7510)).unwrap();
        assert_eq!(line("group", "fanli-tg"), "fanli-tg:x:7510:");
        let change = bench.plan(&group(7511)).unwrap().unwrap();
        assert_eq!((change.verb, change.fields[0].from.to_string().as_str()), (Verb::Update, "7510"));
        bench.converge(&group(7511)).unwrap();
        assert_eq!(bench.plan(&build("group", args! { "name" => "fanli-tg" })).unwrap(), None);
        bench.converge(&build("group", args! { "name" => "fanli-ts", "system" => true })).unwrap();
        let gid: u32 = line("group", "fanli-ts").split(':').nth(2).unwrap().parse().unwrap();
        assert!(gid < 1000, "{gid}");
        let failure = bench.plan(&build("group", args! { "name" => "fanli-to", "gid" => 7511i64 })).unwrap_err();
        assert_eq!(failure.to_string(), "the number 7511 already belongs to the group `fanli-tg`");
        // A number that changed behind fanli's back, and a line that is gone from the shadow table.
        sh("groupmod -g 7512 fanli-tg");
        assert_eq!(bench.drift(&group(7511)), ["gid"]);
        sh("sed -i /^fanli-tg:/d /etc/gshadow");
        assert_eq!(bench.drift(&group(7511)), ["*create"]);
        bench.converge(&group(7511)).unwrap();
        assert_eq!(line("gshadow", "fanli-tg"), "fanli-tg:!::".replace('!', &line("gshadow", "fanli-tg")[9..10]));

        let user = user(args! { "group" => "fanli-tg" });
        bench.converge(&user).unwrap();
        let gone = |name: &str| build("group", args! { "name" => name, "state" => "absent" });
        let failure = bench.plan(&gone("fanli-tg")).unwrap_err();
        assert!(failure.to_string().ends_with("it is the primary group of users: fanli-tu"), "{failure}");
        bench.converge(&build("user", args! { "name" => "fanli-tu", "state" => "absent" })).unwrap();
        for name in ["fanli-tg", "fanli-ts", "fanli-tnever"] {
            bench.converge(&gone(name)).unwrap();
            assert_eq!(bench.plan(&gone(name)).unwrap(), None);
        }
        assert_eq!((others(), sound()), (before, sane));
    });
}

#[test]
fn a_user_comes_drifts_and_goes() {
    apart("accounts::a_user_comes_drifts_and_goes", || {
        let (bench, before, sane) = (Bench::new(), others(), sound());
        let home = folder().join("homes/fanli-tu");
        let home = home.to_str().unwrap();
        bench.converge(&build("group", args! { "name" => "fanli-tg", "gid" => 7520i64 })).unwrap();
        let wanted = user(args! {
            "uid" => 7520i64,
            "group" => "fanli-tg",
            "groups" => list(&["adm", "staff"]),
            "home" => home,
            "create_home" => true,
            "shell" => "/bin/false",
            "comment" => "Tuan Gou, admin",
        });
        bench.converge(&wanted).unwrap();
        assert_eq!(line("passwd", "fanli-tu"), format!("fanli-tu:x:7520:7520:Tuan Gou, admin:{home}:/bin/false"));
        assert!(line("shadow", "fanli-tu").starts_with("fanli-tu:!:"), "{}", line("shadow", "fanli-tu"));
        let meta = fs::metadata(home).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7520, 7520, 0o700));
        assert_eq!(bench.plan(&wanted).unwrap(), None);

        let drifts = [
            ("usermod -u 7521 fanli-tu", vec!["uid"]),
            ("usermod -g nogroup fanli-tu", vec!["group"]),
            ("gpasswd -d fanli-tu adm", vec!["groups"]),
            ("usermod -d /srv fanli-tu", vec!["home"]),
            ("usermod -s /bin/sh fanli-tu", vec!["shell"]),
            ("usermod -c x fanli-tu", vec!["comment"]),
            (&format!("rmdir {home}"), vec!["create_home"]),
            (&format!("chown root:root {home}"), vec!["create_home"]),
            (&format!("chown 7599 {home}; chmod 0777 {home}"), vec!["create_home"]),
            ("usermod -s /bin/sh -c x -u 7522 fanli-tu", vec!["comment", "shell", "uid"]),
            ("sed -i /^fanli-tu:/d /etc/shadow", vec!["*create"]),
            ("sed -i /^fanli-tu:/d /etc/shadow; usermod -s /bin/sh -G '' fanli-tu", vec!["*create"]),
        ];
        for (script, fields) in drifts {
            sh(script);
            assert_eq!(bench.drift(&wanted), fields, "{script}");
            bench.converge(&wanted).unwrap();
            assert_eq!(bench.plan(&wanted).unwrap(), None, "{script}");
        }
        assert!(line("shadow", "fanli-tu").starts_with("fanli-tu:!:"), "{}", line("shadow", "fanli-tu"));

        let meta = fs::metadata(home).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7520, 7520, 0o775));
        sh(&format!("chown games {home}"));
        let failure = bench.plan(&wanted).unwrap_err();
        assert!(failure.to_string().ends_with("it is of the user `games`"), "{failure}");
        sh(&format!("chown fanli-tu {home}"));
        let top = user(args! { "home" => "/srv", "create_home" => true });
        let failure = bench.plan(&top).unwrap_err();
        assert!(failure.to_string().ends_with("it is at the top of the file system"), "{failure}");

        // Other groups are kept, unless it says otherwise.
        sh("gpasswd -a fanli-tu games");
        assert_eq!(bench.plan(&wanted).unwrap(), None);
        let alone = user(args! { "groups" => list(&["staff"]), "exclusive" => true });
        let change = bench.converge(&alone).unwrap().unwrap();
        assert_eq!(change.fields[0].from.to_string(), r#"["adm", "games", "staff"]"#);
        let none = user(args! { "exclusive" => true });
        bench.converge(&none).unwrap();
        assert_eq!(bench.drift(&wanted), ["groups"]);

        let gone = |remove_home: bool| user(args! { "state" => "absent", "remove_home" => remove_home });
        bench.converge(&gone(false)).unwrap();
        assert!(fs::metadata(home).is_ok());
        assert_eq!(bench.plan(&gone(false)).unwrap(), None);
        bench.converge(&wanted).unwrap();
        sh(&format!("touch {home}/f; chown root {home}"));
        let failure = bench.converge(&gone(true)).unwrap_err();
        assert!(failure.to_string().ends_with("it belongs to user 0"), "{failure}");
        sh(&format!("chown 7520 {home}"));
        bench.converge(&gone(true)).unwrap();
        assert!(fs::metadata(home).is_err());
        bench.converge(&build("group", args! { "name" => "fanli-tg", "state" => "absent" })).unwrap();
        assert_eq!((others(), sound()), (before, sane));
    });
}

#[test]
fn a_user_of_the_web_tier() {
    apart("accounts::a_user_of_the_web_tier", || {
        let bench = Bench::new();
        // The machine may be one of the web tier itself; this is its copy.
        sh("userdel tuangouadmin || :; groupdel tuangouadmin || :");
        let group = build("group", args! { "name" => "tuangouadmin", "gid" => 501i64 });
        let admin = args! {
            "name" => "tuangouadmin", "uid" => 501i64, "group" => "tuangouadmin", "home" => "/nonexistent",
            "shell" => "/usr/sbin/nologin",
        };
        let admin = build("user", admin);
        let failure = bench.converge(&admin).unwrap_err();
        assert_eq!(failure.message, "there is no group `tuangouadmin` on this host, so `tuangouadmin` cannot be in it");
        bench.converge(&group).unwrap();
        bench.converge(&admin).unwrap();
        assert_eq!(sh("id tuangouadmin"), "uid=501(tuangouadmin) gid=501(tuangouadmin) groups=501(tuangouadmin)");
        let other = build("user", args! { "name" => "fanli-to", "uid" => 501i64 });
        let failure = bench.plan(&other).unwrap_err();
        assert_eq!(failure.to_string(), "the number 501 already belongs to the user `tuangouadmin`");
    });
}

#[test]
fn a_user_alone_gets_a_group_of_its_own() {
    apart("accounts::a_user_alone_gets_a_group_of_its_own", || {
        let (bench, before) = (Bench::new(), others());
        for (args, gid) in [(args! { "uid" => 7530i64 }, Some("7530")), (args! { "system" => true }, None)] {
            let kind = user(args);
            bench.converge(&kind).unwrap();
            assert_eq!(bench.plan(&kind).unwrap(), None);
            let found = line("passwd", "fanli-tu").split(':').nth(3).unwrap().to_owned();
            assert_eq!(sh(&format!("getent group {found} | cut -d: -f1")), "fanli-tu");
            assert!(gid.is_none_or(|gid| gid == found) && (gid.is_some() || found.parse::<u32>().unwrap() < 1000));
            bench.converge(&user(args! { "state" => "absent" })).unwrap();
            assert_eq!(others(), before);
        }
        // What a killed `userdel` left: groups that still name it, and its line in the shadow table.
        bench.converge(&user(args! { "groups" => list(&["adm"]) })).unwrap();
        sh("sed -i /^fanli-tu:/d /etc/passwd");
        let gone = user(args! { "state" => "absent" });
        assert_eq!(bench.drift(&gone), ["*remove"]);
        bench.converge(&gone).unwrap();
        bench.converge(&build("group", args! { "name" => "fanli-tu", "state" => "absent" })).unwrap();
        assert_eq!(others(), before);
    });
}

#[test]
fn who_holds_the_lock_is_named() {
    apart("accounts::who_holds_the_lock_is_named", || {
        let bench = Bench::new();
        // A number that belongs to another program by now: what a killed `useradd` leaves in the worst case. (Not waited for:
        // the wait of shadow's programs is theirs.)
        fs::write("/etc/group.lock", format!("{}\0", std::process::id())).unwrap();
        let failure = bench.converge(&build("group", args! { "name" => "fanli-tg" })).unwrap_err();
        assert!(
            failure.hint.as_deref().unwrap_or_default().starts_with("/etc/group.lock is held by process"),
            "{failure:?}"
        );
        // Of a program that is gone: taken over.
        fs::write("/etc/group.lock", "999999\0").unwrap();
        bench.converge(&build("group", args! { "name" => "fanli-tg" })).unwrap();
        assert!(fs::metadata("/etc/group.lock").is_err());
    });
}

#[test]
fn wrong_arguments_are_told() {
    let cases = [
        ("user", args! { "name" => "-r" }, "name: `-r` is no account name"),
        ("user", args! { "name" => "a", "uid" => -1i64 }, "uid: `-1` is not a number"),
        ("user", args! { "name" => "a", "comment" => "x:y" }, "comment: holds a `:`"),
        ("user", args! { "name" => "a", "groups" => list(&["b,c"]) }, "groups: `b,c` is no account name"),
        ("user", args! { "name" => "a", "uid" => 5i64, "state" => "absent" }, "uid: means nothing"),
        ("user", args! { "name" => "root", "state" => "absent" }, "state: `root` is never removed"),
        ("user", args! { "name" => "a", "remove_home" => true }, "remove_home: is for a user that is to be `absent`"),
        ("group", args! { "name" => "a b" }, "name: `a b` is no account name"),
        ("group", args! { "name" => "a", "gid" => 4_294_967_295i64 }, "gid: `4294967295` is not a number"),
        ("group", args! { "name" => "a", "gid" => 1i64, "state" => "absent" }, "gid: means nothing"),
    ];
    for (kind, args, wanted) in cases {
        let said = refused(kind, args);
        assert!(said.starts_with(wanted), "{said}");
    }
}

/// From any declaration to any other: after one run nothing is left to do, and the number is nobody else's.
#[test]
fn any_user_converges_from_any_other() {
    use proptest::prelude::*;

    apart("accounts::any_user_converges_from_any_other", || {
        let (bench, before, sane) = (Bench::new(), others(), sound());
        let given = |name: &'static str, values: Vec<Value>| {
            prop::option::of(prop::sample::select(values))
                .prop_map(move |value| value.map(|value| (name.to_owned(), value)))
        };
        let words = |words: &[&str]| words.iter().copied().map(Value::from).collect::<Vec<_>>();
        let groups = prop::sample::subsequence(vec!["adm", "games", "staff", "users"], 0..=4);
        let fields = (
            given("uid", vec![Value::Int(7550), Value::Int(7551), Value::Int(499)]),
            given("group", vec![Value::from("nogroup"), Value::Int(4), Value::from("games")]),
            groups.prop_map(|names| Some(("groups".to_owned(), list(&names)))),
            given("exclusive", vec![Value::Bool(true)]),
            given("home", words(&["/nonexistent", "/srv/work/h o m e", "/srv/work/other"])),
            given("create_home", vec![Value::Bool(true)]),
            given("shell", words(&["/bin/sh", "/usr/sbin/nologin"])),
            given("comment", words(&["", "Tuan, Gou", "ünïcode", "-x --system"])),
        );
        let user = fields.prop_map(|(a, b, c, d, e, f, g, h)| {
            let all: Map = [a, b, c, d, e, f, g, h].into_iter().flatten().collect();
            // `/nonexistent` stays what it says.
            let bare = all.get("home").is_none_or(|home| home.as_str() == Some("/nonexistent"));
            all.into_iter().filter(|(name, _)| name != "create_home" || !bare).collect::<Map>()
        });
        let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let done = runner.run(&(prop::collection::vec(user, 1..4)), |users| {
            for args in users {
                let kind = self::user(args);
                bench.converge(&kind).unwrap();
                prop_assert_eq!(bench.plan(&kind).unwrap(), None);
            }
            bench.converge(&build("user", args! { "name" => "fanli-tu", "state" => "absent" })).unwrap();
            bench.converge(&build("group", args! { "name" => "fanli-tu", "state" => "absent" })).unwrap();
            sh("rm -rf /srv/work/*");
            prop_assert_eq!((others(), sound()), (before.clone(), sane.clone()));
            Ok(())
        });
        done.unwrap();
    });
}
