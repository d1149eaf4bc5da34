//! Names of log files with the time in them, as cronolog and strftime(3) have them.

use std::path::{Component, Path, PathBuf};

use jiff::ZonedDateTime;

use super::period::Every;
use crate::failure::Failure;

/// The conversions that a name may hold, each with the period of files that have no finer one; `None` says nothing of a period.
const CONVERSIONS: [(char, Option<Every>); 18] = [
    ('Y', Some(Every::Year)),
    ('y', Some(Every::Year)),
    ('m', Some(Every::Month)),
    ('b', Some(Every::Month)),
    ('B', Some(Every::Month)),
    ('U', Some(Every::Day)),
    ('W', Some(Every::Day)),
    ('d', Some(Every::Day)),
    ('j', Some(Every::Day)),
    ('a', Some(Every::Day)),
    ('A', Some(Every::Day)),
    ('w', Some(Every::Day)),
    ('F', Some(Every::Day)),
    ('H', Some(Every::HOUR)),
    ('I', Some(Every::HOUR)),
    ('M', Some(Every::MINUTE)),
    ('p', None),
    ('Z', None),
];

/// The path of log files, with the time in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The directory before the first conversion. It must exist.
    pub folder: PathBuf,
    /// The rest: names of directories that are made as they are needed, and of the file.
    rest: String,
    every: Option<Every>,
}

impl Template {
    /// Reads a template such as `/var/log/apache2/%Y%m%d%H.log`.
    ///
    /// # Errors
    /// The path is not plain and absolute, or holds a conversion that names no period.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let path = Path::new(text);
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || text.ends_with('/') || text.contains('\0') || !path.components().all(plain) {
            return Err(Failure::new(format!("`{}` is not the plain absolute path of a file", text.escape_debug()))
                .hint("for example `/var/log/apache2/access.%Y%m%d.log`"));
        }
        let every = finest(text)?;
        let varies = text.find('%').unwrap_or(text.len());
        let slash = text.get(..varies).and_then(|fixed| fixed.rfind('/')).unwrap_or(0);
        let (folder, rest) = text.split_at(slash);
        let folder = if folder.is_empty() { "/" } else { folder };
        Ok(Self { folder: PathBuf::from(folder), rest: rest.trim_start_matches('/').to_owned(), every })
    }

    /// The period that the finest conversion stands for; `None` without one.
    pub fn every(&self) -> Option<Every> {
        self.every
    }

    /// Returns the path of a file below the folder: that of a period's begin, with an ID before the last extension. Where the
    /// template holds no time, the time of the begin is a part of the ID.
    pub fn name(&self, begin: &ZonedDateTime, id: &str) -> PathBuf {
        let shown = begin.strftime(&self.rest).to_string();
        let id = match self.every {
            Some(_) => id.to_owned(),
            None => format!("{}.{id}", begin.strftime("%Y%m%dT%H%M%S")),
        };
        let start = shown.rfind('/').map_or(0, |slash| slash + 1);
        // A name that begins with its only dot has no extension.
        let dot = shown.rfind('.').filter(|dot| *dot > start).unwrap_or(shown.len());
        let (stem, extension) = shown.split_at(dot);
        PathBuf::from(format!("{stem}.{id}{extension}"))
    }
}

/// The shortest period of a template's conversions.
fn finest(text: &str) -> Result<Option<Every>, Failure> {
    let mut finest: Option<Every> = None;
    let mut rest = text.chars();
    while let Some(sign) = rest.next() {
        if sign != '%' {
            continue;
        }
        let letter = rest.next();
        if letter == Some('%') {
            continue;
        }
        let known = CONVERSIONS.iter().find(|(known, _)| Some(*known) == letter);
        let Some((_, every)) = known else {
            let shown = letter.map_or_else(|| "%".to_owned(), |letter| format!("%{}", letter.escape_debug()));
            let all = CONVERSIONS.iter().map(|(known, _)| format!("%{known}")).collect::<Vec<_>>().join(" ");
            return Err(Failure::new(format!("`{shown}` cannot stand in the name of a log file"))
                .hint(format!("there are {all}, and `%%` for the sign itself")));
        };
        finest = finest.into_iter().chain(*every).min();
    }
    Ok(finest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(template: &str, at: &str) -> String {
        let template = Template::parse(template).unwrap();
        let path = template.folder.join(template.name(&at.parse().unwrap(), "k3f9q2ab"));
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_id_stands_before_the_extension() {
        let at = "2026-11-30T09:07:05+08:00[Asia/Shanghai]";
        for (template, name) in [
            ("/l/www/%Y%m%d%H.log", "/l/www/2026113009.k3f9q2ab.log"),
            ("/l/%Y/%m/access_log", "/l/2026/11/access_log.k3f9q2ab"),
            ("/l/100%%/%d", "/l/100%/30.k3f9q2ab"),
            ("/l/a.b/%H", "/l/a.b/09.k3f9q2ab"),
            ("/l/.%H", "/l/.09.k3f9q2ab"),
            ("/l/access.log", "/l/access.20261130T090705.k3f9q2ab.log"),
            ("/%j.log", "/334.k3f9q2ab.log"),
        ] {
            assert_eq!(named(template, at), name);
        }
    }

    #[test]
    fn the_finest_conversion_is_the_period() {
        let every = |template: &str| Template::parse(template).unwrap().every();
        assert_eq!(every("/l/%Y%m%d%H.log"), Some(Every::HOUR));
        assert_eq!(every("/l/%H/%Y.log"), Some(Every::HOUR));
        assert_eq!(every("/l/%Y-%j.log"), Some(Every::Day));
        assert_eq!(every("/l/%Y/%b.log"), Some(Every::Month));
        assert_eq!(every("/l/%Y%m%d%H%M"), Some(Every::MINUTE));
        assert_eq!(every("/l/access.log"), None);
        assert_eq!(every("/l/100%%"), None);
        assert_eq!(Template::parse("/l/%Y/%m/x").unwrap().folder, Path::new("/l"));
        assert_eq!(Template::parse("/%Y").unwrap().folder, Path::new("/"));
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for text in ["", "l/%H", "/l/", "/l/../%H", "/l/%S", "/l/%", "/l/%q", "/l/%é", "/l/\0"] {
            assert!(Template::parse(text).is_err(), "{text:?}");
        }
    }
}
