//! `user`: an account in `/etc/passwd`.

use super::account::{check_id, check_name, keep};
use super::ownership::Table;
use super::param::{HostPath, Owner, Presence};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, Fields, State, Verb};
use crate::failure::Failure;
use crate::system::accounts::{Group, User as Found};
use crate::system::fs::{Attrs, EntryKind};
use crate::system::process::Program;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

crate::kind! {
    /// Keeps a local user account.
    ///
    /// Only `/etc/passwd` counts, not LDAP or NIS. A new account has no password: nobody can log in with one. When `uid` or
    /// `home` change, files elsewhere keep the old number, and nothing is moved. An account without its line in `/etc/shadow`
    /// (a killed `useradd`) counts as missing and is completed.
    pub struct User = "user" {
        /// Its login name.
        name: String,
        /// Its number. Not declared: a new account gets the next free one.
        uid: Option<i64>,
        /// Its primary group, which must exist. Not declared: a new account gets a group of its own name, made when missing.
        group: Option<Owner>,
        /// Groups that it is in besides, by name; they must exist. It stays in others.
        groups: Vec<String> = Vec::new(),
        /// Whether it leaves every group that `groups` does not name.
        exclusive: bool = false,
        /// Its home directory.
        home: Option<HostPath>,
        /// Whether an empty home directory is made when it is missing, 0700 and its own. One that is there becomes its own, without
        /// what is inside, and closed to writes of others, unless it is another user's or at the top of the file system.
        create_home: bool = false,
        /// Its login shell.
        shell: Option<HostPath>,
        /// Its full name or purpose.
        comment: Option<String>,
        /// Whether a new account without `uid` gets its number from the range for system accounts.
        system: bool = false,
        /// Whether its home directory goes with it when it is to be `absent`.
        remove_home: bool = false,
        /// Whether it is to be there. A user with running processes cannot be removed.
        state: Presence = Presence::Present,
    }
    example r#"user "fanli-example" {
  uid     = 7501
  group   = "nogroup"
  groups  = ["adm"]
  home    = "/nonexistent"
  shell   = "/usr/sbin/nologin"
  comment = "runs the example"
}"#
}

/// The fields that one call of `useradd` or `usermod` sets.
const TABLE_FIELDS: [&str; 6] = ["uid", "group", "groups", "home", "shell", "comment"];

/// The right of everybody else to write.
const OTHERS_WRITE: u32 = 0o002;

impl User {
    fn uid(&self) -> Option<u32> {
        self.uid.and_then(|uid| u32::try_from(uid).ok())
    }

    fn find(&self, users: &[Found]) -> Option<Found> {
        users.iter().find(|user| user.name == self.name).cloned()
    }

    /// Whether the account has no line in `/etc/shadow` although it should.
    fn half_made(&self, probe: &Probe, found: &Found) -> Result<bool, Failure> {
        Ok(found.shadowed && probe.shadowed_users()?.is_some_and(|names| !names.contains(&self.name)))
    }

    /// What a killed `userdel` leaves: the line in `/etc/shadow`, and the groups that still name the user.
    fn left_behind(&self, probe: &Probe) -> Result<(bool, Vec<String>), Failure> {
        let shadow = probe.shadowed_users()?.is_some_and(|names| names.contains(&self.name));
        Ok((shadow, self.memberships(&probe.groups()?)))
    }

    /// The supplementary groups that it is in, sorted.
    fn memberships(&self, groups: &[Group]) -> Vec<String> {
        let mut names: Vec<String> =
            groups.iter().filter(|group| group.members.contains(&self.name)).map(|group| group.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The declared supplementary groups, sorted.
    fn wanted_groups(&self) -> Vec<String> {
        let mut names = self.groups.clone();
        names.sort();
        names.dedup();
        names
    }

    fn fields(&self, found: &Found, probe: &Probe) -> Result<Fields, Failure> {
        let mut fields = Fields::new();
        let mut set = |name: &str, datum: Datum| fields.insert(name.to_owned(), datum);
        set("uid", Value::from(found.uid).into());
        set("home", found.home.as_str().into());
        set("shell", found.shell.as_str().into());
        set("comment", found.comment.as_str().into());
        if let Some(group) = &self.group {
            set("group", Table::Groups.observed(probe, group, found.gid)?.into());
        }
        let wanted = self.wanted_groups();
        let mut names = self.memberships(&probe.groups()?);
        // A killed `usermod` may have come as far as /etc/group: only who is in both tables is in.
        let shadow = probe.shadowed_groups()?.unwrap_or_default();
        let whole = |name: &String| shadow.get(name).is_none_or(|members| members.contains(&self.name));
        names.retain(|name| if wanted.contains(name) { whole(name) } else { self.exclusive });
        set("groups", list(names).into());
        if self.create_home {
            let home = self.home.as_ref().map_or(found.home.as_str(), |home| home.0.as_str());
            set("create_home", self.own_home(home, found.uid, probe)?);
        }
        Ok(fields)
    }

    /// Whether the home directory is there and its own, or what is wrong with it.
    fn own_home(&self, home: &str, uid: u32, probe: &Probe) -> Result<Datum, Failure> {
        let entry = probe.stat_following(home)?.filter(|entry| entry.kind == EntryKind::Directory);
        let Some(entry) = entry else { return Ok(Value::Bool(false).into()) };
        if entry.uid != uid {
            let users = probe.users()?;
            let other = users.iter().find(|user| user.uid == entry.uid && user.uid != 0 && user.name != self.name);
            let why = match other {
                Some(other) => format!("it is of the user `{}`", other.name),
                None if std::path::Path::new(home).components().count() <= 2 => {
                    "it is at the top of the file system".to_owned()
                }
                None => return Ok(format!("of user {}", entry.uid).into()),
            };
            return Err(Failure::new(format!("the home directory {home} does not become that of `{}`", self.name))
                .because(why)
                .hint("declare another `home`, or leave `create_home` out and its owner to a `directory` task"));
        }
        let open = entry.mode & OTHERS_WRITE != 0;
        Ok(if open { format!("others may write to it ({:04o})", entry.mode).into() } else { Value::Bool(true).into() })
    }

    /// The options that `useradd` and `usermod` share, for the fields that are to be set.
    fn options(&self, groups: &[Group], wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Failure> {
        let missing = |name: &dyn std::fmt::Display| {
            Failure::new(format!("there is no group `{name}` on this host, so `{}` cannot be in it", self.name))
                .hint("make it with a `group` task before this one")
        };
        let mut options = Vec::new();
        let mut add = |name: &str, value: String| options.push(format!("--{name}={value}"));
        if let Some(uid) = self.uid().filter(|_| wanted("uid")) {
            add("uid", uid.to_string());
        }
        match self.group.as_ref().filter(|_| wanted("group")) {
            Some(Owner::Name(name)) => {
                let group = groups.iter().find(|group| group.name == *name).ok_or_else(|| missing(name))?;
                add("gid", group.gid.to_string());
            }
            Some(Owner::Id(gid)) => {
                groups.iter().find(|group| group.gid == *gid).ok_or_else(|| missing(gid))?;
                add("gid", gid.to_string());
            }
            None => {}
        }
        if wanted("groups") && (self.exclusive || !self.groups.is_empty()) {
            let names = self.wanted_groups();
            if let Some(name) = names.iter().find(|name| !groups.iter().any(|group| group.name == **name)) {
                return Err(missing(name));
            }
            add("groups", names.join(","));
        }
        if let Some(home) = self.home.as_ref().filter(|_| wanted("home")) {
            add("home", home.0.clone());
        }
        if let Some(shell) = self.shell.as_ref().filter(|_| wanted("shell")) {
            add("shell", shell.0.clone());
        }
        if let Some(comment) = self.comment.as_ref().filter(|_| wanted("comment")) {
            add("comment", comment.clone());
        }
        Ok(options)
    }

    async fn create(&self, hands: &Actuator) -> Result<(), Failure> {
        let mut program = Program::new(["useradd", "--no-create-home", "--no-user-group", "--no-log-init"]);
        let groups = hands.groups()?;
        program = program.args(self.options(&groups, |_| true)?).args(self.system.then_some("--system"));
        if self.group.is_none() {
            program = program.arg("--gid").arg(&self.name);
            if !groups.iter().any(|group| group.name == self.name) {
                // By a call of its own: a `useradd` that is killed after the user's line would leave a group that nobody has.
                let gid = self.uid().filter(|uid| !groups.iter().any(|group| group.gid == *uid));
                let own = Program::new(["groupadd"]).args(self.system.then_some("--system"));
                let own = own.args(gid.map(|gid| format!("--gid={gid}"))).arg(&self.name);
                keep(hands, &own).await?;
            }
        }
        keep(hands, &program.arg(&self.name)).await
    }

    async fn mend(&self, hands: &Actuator, wanted: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let options = self.options(&hands.groups()?, &wanted)?;
        if options.is_empty() {
            return Ok(());
        }
        let append = (wanted("groups") && !self.exclusive && !self.groups.is_empty()).then_some("--append");
        keep(hands, &Program::new(["usermod"]).args(append).args(options).arg(&self.name)).await
    }

    fn make_home(&self, hands: &Actuator) -> Result<(), Failure> {
        let Some(user) = self.find(&hands.users()?) else { return Ok(()) };
        let (home, uid, gid) = (&user.home, Some(user.uid), Some(user.gid));
        let Some(entry) = hands.stat_following(home)? else {
            return hands.make_dir(home, Attrs { mode: Some(0o700), uid, gid });
        };
        if entry.kind != EntryKind::Directory {
            return Ok(());
        }
        self.own_home(home, user.uid, hands)?;
        let strange = entry.uid != user.uid;
        let mode = (entry.mode & OTHERS_WRITE != 0).then_some(entry.mode & !OTHERS_WRITE);
        let attrs = Attrs { mode, uid: uid.filter(|_| strange), gid: gid.filter(|_| strange) };
        if attrs == Attrs::default() { Ok(()) } else { hands.set_attrs(home, attrs) }
    }

    async fn remove(&self, hands: &Actuator) -> Result<(), Failure> {
        let users = hands.users()?;
        if let Some(user) = self.find(&users) {
            if self.remove_home {
                remove_home(hands, &user, &users)?;
            }
            keep(hands, &Program::new(["userdel"]).arg(&self.name)).await?;
        }
        let (shadow, groups) = self.left_behind(hands)?;
        for group in groups {
            keep(hands, &Program::new(["gpasswd", "--delete"]).arg(&self.name).arg(group)).await?;
        }
        if shadow {
            keep(hands, &Program::new(["pwconv"])).await?;
        }
        Ok(())
    }
}

fn list(names: Vec<String>) -> Value {
    Value::List(names.into_iter().map(Value::Str).collect())
}

/// Removes a home directory that is the user's alone.
fn remove_home(hands: &Actuator, user: &Found, users: &[Found]) -> Result<(), Failure> {
    let home = user.home.as_str();
    let Some(entry) = hands.stat(home)? else { return Ok(()) };
    let kept = |why: String| {
        Err(Failure::new(format!("the home directory {home} is not removed with `{}`", user.name))
            .because(why)
            .hint("without `remove_home` the account goes and the directory stays"))
    };
    if entry.kind != EntryKind::Directory {
        return kept(format!("it is {}", entry.kind.show()));
    }
    if entry.uid != user.uid {
        return kept(format!("it belongs to user {}", entry.uid));
    }
    let inside = |other: &&Found| other.name != user.name && std::path::Path::new(&other.home).starts_with(home);
    if let Some(other) = users.iter().find(inside) {
        return kept(format!("the home of `{}` is there too", other.name));
    }
    hands.remove_tree(home)
}

impl Resource for User {
    fn check(&self) -> Result<(), ArgError> {
        check_name("name", &self.name)?;
        check_id("uid", self.uid)?;
        if let Some(Owner::Name(group)) = &self.group {
            check_name("group", group)?;
        }
        self.groups.iter().try_for_each(|group| check_name("groups", group))?;
        let texts = [
            ("home", self.home.as_ref().map(|path| &path.0)),
            ("shell", self.shell.as_ref().map(|path| &path.0)),
            ("comment", self.comment.as_ref()),
        ];
        for (field, text) in texts {
            if text.is_some_and(|text| text.contains(|c: char| c == ':' || c.is_control())) {
                return Err(ArgError::new(field, "holds a `:` or a line end; /etc/passwd has no place for them"));
            }
        }
        let declared = [
            ("uid", self.uid.is_some()),
            ("group", self.group.is_some()),
            ("groups", !self.groups.is_empty()),
            ("home", self.home.is_some()),
            ("create_home", self.create_home),
            ("shell", self.shell.is_some()),
            ("comment", self.comment.is_some()),
        ];
        match (self.state, declared.iter().find(|(_, given)| *given)) {
            (Presence::Absent, Some((field, _))) => {
                Err(ArgError::new(*field, "means nothing for a user that is to be `absent`"))
            }
            (Presence::Absent, None) if self.name == "root" => Err(ArgError::new("state", "`root` is never removed")),
            (Presence::Present, _) if self.remove_home => {
                Err(ArgError::new("remove_home", "is for a user that is to be `absent`"))
            }
            _ => Ok(()),
        }
    }

    fn desired(&self) -> State {
        if self.state == Presence::Absent {
            return State::Absent;
        }
        let mut fields = Fields::new();
        let mut set = |name: &str, datum: Option<Value>| {
            fields.extend(datum.map(|value| (name.to_owned(), Datum::Value(value))));
        };
        set("uid", self.uid().map(Value::from));
        set("group", self.group.as_ref().map(super::ownership::spell));
        set("groups", (self.exclusive || !self.groups.is_empty()).then(|| list(self.wanted_groups())));
        set("home", self.home.as_ref().map(|home| Value::from(home.0.as_str())));
        set("shell", self.shell.as_ref().map(|shell| Value::from(shell.0.as_str())));
        set("comment", self.comment.as_deref().map(Value::from));
        set("create_home", self.create_home.then_some(Value::Bool(true)));
        State::Present(fields)
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let users = probe.users()?;
        let found = self.find(&users);
        if self.state == Presence::Absent {
            let (shadow, groups) = self.left_behind(probe)?;
            let there = found.is_some() || shadow || !groups.is_empty();
            return Ok(if there { State::Present(Fields::new()) } else { State::Absent }.into());
        }
        if let Some(uid) = self.uid().filter(|uid| found.as_ref().is_none_or(|found| found.uid != *uid))
            && let Some(other) = users.iter().find(|user| user.uid == uid)
        {
            return Err(Failure::new(format!("the number {uid} already belongs to the user `{}`", other.name))
                .hint("choose another `uid`, or remove that user with `state = absent` first"));
        }
        match found {
            Some(found) if !self.half_made(probe, &found)? => Ok(State::Present(self.fields(&found, probe)?).into()),
            _ => Ok(State::Absent.into()),
        }
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        match (change.verb, self.find(&hands.users()?)) {
            (Verb::Remove, _) => {
                self.remove(hands).await?;
                return Ok(Map::new());
            }
            (_, None) => self.create(hands).await?,
            (Verb::Create, Some(_)) => {
                // Half made. A line of its own in /etc/shadow, with a password that no text can match.
                let locked = format!("{}:!\n", self.name);
                keep(hands, &Program::new(["chpasswd", "--encrypted"]).stdin(locked)).await?;
                self.mend(hands, |_| true).await?;
            }
            (Verb::Update, Some(_)) => {
                if TABLE_FIELDS.iter().any(|field| change.touches(field)) {
                    self.mend(hands, |field| change.touches(field)).await?;
                }
            }
        }
        if self.create_home {
            self.make_home(hands)?;
        }
        Ok(Map::new())
    }
}
