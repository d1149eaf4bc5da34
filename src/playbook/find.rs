//! Files that a playbook names: where they are, and that they stay inside of the project.

use std::path::{Component, Path, PathBuf};

use crate::diagnostic::nearest;

/// Why there is no such file.
#[derive(Debug)]
pub(crate) struct Missing {
    /// What is wrong.
    pub(crate) message: String,
    /// The way out, where one is known.
    pub(crate) help: Option<String>,
}

impl Missing {
    fn new(message: String, help: impl Into<Option<String>>) -> Self {
        Self { message, help: help.into() }
    }
}

/// Where a path written in a playbook leads: beside the file that names it, else below the project's root.
///
/// # Errors
/// The path is absolute, holds `..`, exists in neither place, or leaves the project through a link.
pub(crate) fn find(relative: &str, beside: &Path, root: &Path) -> Result<PathBuf, Missing> {
    let path = Path::new(relative);
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if relative.is_empty() {
        return Err(Missing::new("the path is empty".to_owned(), None));
    }
    if relative.contains('\0') || !path.components().all(plain) {
        let message = format!("`{relative}` does not stay inside of the project");
        let help = "a path is relative, to this file or to the project's root, without `..`".to_owned();
        return Err(Missing::new(message, help));
    }
    let (near, far) = (tidy(&beside.join(path)), tidy(&root.join(path)));
    let Some(found) = [&near, &far].into_iter().find(|path| path.exists()) else {
        let places = if near == far {
            near.display().to_string()
        } else {
            format!("{} and no {}", near.display(), far.display())
        };
        if near.is_symlink() || far.is_symlink() {
            return Err(Missing::new(format!("`{relative}` is a link that leads nowhere"), None));
        }
        let close = nearest_file(&near).or_else(|| nearest_file(&far));
        let close = close.map(|close| {
            let shown = close.strip_prefix(beside).or_else(|_| close.strip_prefix(root)).unwrap_or(&close);
            format!("did you mean `{}`?", shown.display())
        });
        return Err(Missing::new(format!("there is no {places}"), close));
    };
    // A link may lead anywhere inside of the project; one that leads out could carry any file of this machine to hosts.
    if let (Ok(real), Ok(real_root)) = (std::fs::canonicalize(found), std::fs::canonicalize(root))
        && !real.starts_with(&real_root)
    {
        let message = format!("`{relative}` leads out of the project, through a link");
        return Err(Missing::new(message, "put a copy into the project".to_owned()));
    }
    Ok(found.clone())
}

/// A path as people write it: `env/lab.fp`, not `./env/lab.fp`.
pub(super) fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The file in the same folder whose name is nearest to that of a missing one.
pub(crate) fn nearest_file(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(folder.map_or_else(|| PathBuf::from(near), |folder| folder.join(near)))
}

/// The folder above `playbooks/`, or the playbook's own folder.
pub(super) fn project_root(folder: &Path) -> PathBuf {
    let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    if real.file_name().is_none_or(|name| name != "playbooks") {
        return folder.to_owned();
    }
    match folder.parent() {
        _ if folder == Path::new(".") => PathBuf::from(".."),
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => folder.to_owned(),
    }
}
