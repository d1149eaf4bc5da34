//! Owner, group and mode as the file kinds share them: declared by name or number, observed in the same spelling.

use super::param::{Mode, Owner};
use crate::change::{Datum, Fields};
use crate::failure::Failure;
use crate::system::Probe;
use crate::system::fs::{Attrs, Entry};
use crate::value::Value;

/// What a task declares about who may do what with a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ownership<'a> {
    pub(super) owner: Option<&'a Owner>,
    pub(super) group: Option<&'a Owner>,
    pub(super) mode: Option<Mode>,
}

/// The two tables of accounts.
#[derive(Clone, Copy)]
pub(super) enum Table {
    Users,
    Groups,
}

impl Ownership<'_> {
    /// The declared fields.
    pub(super) fn declare(&self, fields: &mut Fields) {
        for (name, account) in [("owner", self.owner), ("group", self.group)] {
            if let Some(account) = account {
                fields.insert(name.to_owned(), Datum::Value(spell(account)));
            }
        }
        if let Some(mode) = self.mode {
            fields.insert("mode".to_owned(), Datum::Value(Value::Mode(mode.0)));
        }
    }

    /// The same fields as they are.
    pub(super) fn observe(&self, probe: &Probe, entry: &Entry, fields: &mut Fields) -> Result<(), Failure> {
        for (name, table, account, id) in
            [("owner", Table::Users, self.owner, entry.uid), ("group", Table::Groups, self.group, entry.gid)]
        {
            if let Some(account) = account {
                fields.insert(name.to_owned(), Datum::Value(table.observed(probe, account, id)?));
            }
        }
        if self.mode.is_some() {
            fields.insert("mode".to_owned(), Datum::Value(Value::Mode(entry.mode)));
        }
        Ok(())
    }

    /// As numbers, to be set. A name that the host does not know is a failure that names it and the file.
    pub(super) fn attrs(&self, probe: &Probe, path: &str) -> Result<Attrs, Failure> {
        let id = |table: Table, account: Option<&Owner>| match account {
            None => Ok(None),
            Some(Owner::Id(id)) => Ok(Some(*id)),
            Some(Owner::Name(name)) => table.id_of(probe, name)?.map(Some).ok_or_else(|| {
                let (what, kind) = table.words();
                Failure::new(format!("there is no {what} `{name}` on this host, so {path} cannot belong to it"))
                    .hint(format!("make it with a `{kind}` task before this one, or declare a number"))
            }),
        };
        Ok(Attrs {
            mode: self.mode.map(|mode| mode.0),
            uid: id(Table::Users, self.owner)?,
            gid: id(Table::Groups, self.group)?,
        })
    }
}

/// A declared account as a value.
pub(super) fn spell(account: &Owner) -> Value {
    match account {
        Owner::Name(name) => Value::Str(name.clone()),
        Owner::Id(id) => Value::from(*id),
    }
}

impl Table {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Users => ("user", "user"),
            Self::Groups => ("group", "group"),
        }
    }

    /// Names and numbers of the table, in its order.
    fn pairs(self, probe: &Probe) -> Result<Vec<(String, u32)>, Failure> {
        Ok(match self {
            Self::Users => probe.users()?.into_iter().map(|user| (user.name, user.uid)).collect(),
            Self::Groups => probe.groups()?.into_iter().map(|group| (group.name, group.gid)).collect(),
        })
    }

    fn id_of(self, probe: &Probe, wanted: &str) -> Result<Option<u32>, Failure> {
        Ok(self.pairs(probe)?.into_iter().find(|(name, _)| name == wanted).map(|(_, id)| id))
    }

    /// A number in the spelling of the declaration. Two names may share a number: the declared one is then the right one.
    pub(super) fn observed(self, probe: &Probe, declared: &Owner, id: u32) -> Result<Value, Failure> {
        let Owner::Name(wanted) = declared else { return Ok(Value::from(id)) };
        let pairs = self.pairs(probe)?;
        let mut names: Vec<&str> =
            pairs.iter().filter(|(_, number)| *number == id).map(|(name, _)| name.as_str()).collect();
        names.sort_by_key(|name| *name != wanted.as_str());
        Ok(names.first().map_or_else(|| Value::from(id), |name| Value::from(*name)))
    }
}
