//! Programs that run as another user: by `setpriv`, with the user's own groups, and nothing of root's left.

use super::Program;
use crate::failure::Failure;
use crate::system::Probe;

/// The user that a program runs as.
#[derive(Clone, Debug)]
pub struct RunAs {
    name: Option<String>,
    uid: u32,
    gid: u32,
    home: String,
}

impl RunAs {
    /// What stands before the program's own words.
    pub(super) fn prefix(&self) -> Vec<String> {
        let groups = if self.name.is_some() { "--init-groups" } else { "--clear-groups" };
        let [uid, gid] = [format!("--reuid={}", self.uid), format!("--regid={}", self.gid)];
        vec!["setpriv".to_owned(), uid, gid, groups.to_owned(), "--".to_owned()]
    }

    /// What a login would set.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let name = self.name.iter().flat_map(|name| [("USER", name.clone()), ("LOGNAME", name.clone())]);
        name.chain([("HOME", self.home.clone())]).collect()
    }
}

impl Probe {
    /// The user of that name or number, as all of the host's directories know it (`getent`). A number that none of them knows
    /// is taken as it is, with the group of the same number and no others.
    ///
    /// # Errors
    /// There is no user of that name; or fanli itself may not become another user.
    pub async fn run_as(&self, user: &str) -> Result<RunAs, Failure> {
        let own = rustix::process::geteuid();
        let program = Program::new(["getent", "passwd", user]);
        let ended = self.ask(&program).await.map_err(|failure| failure.within("users cannot be looked up"))?;
        let found = match ended.code {
            0 => entry(&ended.stdout.text()),
            // getent(1): a key that was not found.
            2 => user.parse().ok().map(|id| RunAs { name: None, uid: id, gid: id, home: "/".to_owned() }),
            _ => return Err(ended.failure().within("users cannot be looked up")),
        };
        let Some(found) = found else {
            return Err(Failure::new(format!("there is no user `{user}` on this host"))
                .hint("make it with a `user` task before this one, or declare a number"));
        };
        if !own.is_root() {
            return Err(Failure::new(format!("only root can run programs as `{user}`, and fanli runs as user {own}"))
                .hint("`become = true` in the host's block makes it root"));
        }
        Ok(found)
    }
}

/// A line of passwd(5).
fn entry(line: &str) -> Option<RunAs> {
    let fields: Vec<&str> = line.lines().next()?.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
    let home = if home.is_empty() { "/" } else { home };
    Some(RunAs {
        name: Some((*name).to_owned()),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.to_owned(),
    })
}
