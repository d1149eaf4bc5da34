//! `fallback` of a service: a command, and where its pid file and its log are.

use crate::resource::{Param, ParamType};
use crate::value::Value;

/// How to run a service without a manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    pub(in crate::resource) command: Vec<String>,
    pub(in crate::resource) pid_file: Option<String>,
    pub(in crate::resource) log: Option<String>,
}

impl Param for Fallback {
    const TYPE: ParamType = ParamType::Map;

    fn read(value: Value) -> Result<Self, String> {
        let Value::Map(mut map) = value else {
            return Err(format!("expected map, found {} `{value}`", value.type_name()));
        };
        let mut path = |name: &str| match map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let path = ParamType::Path.accepts(&value).and_then(|()| String::read(value));
                path.map(Some).map_err(|error| format!("`{name}`: {error}"))
            }
        };
        let (pid_file, log) = (path("pid_file")?, path("log")?);
        let command = map.remove("command").ok_or("`command` is required: the program and its arguments")?;
        let command = Vec::<String>::read(command).map_err(|error| format!("`command`: {error}"))?;
        if command.first().is_none_or(String::is_empty) || command.iter().any(|word| word.contains('\0')) {
            return Err("`command` is empty, or holds a NUL".to_owned());
        }
        match map.keys().next() {
            Some(unknown) => Err(format!("`{unknown}` is none of command, pid_file, log")),
            None => Ok(Self { command, pid_file, log }),
        }
    }

    fn show(&self) -> String {
        format!("{{ command = {} }}", self.command.show())
    }
}
