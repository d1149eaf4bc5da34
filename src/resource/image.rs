//! `image`: an image that is made anew only when what it is made of changed.

use std::collections::BTreeMap;

use super::container::{scalar, short_id, texts};
use super::param::read_call;
use super::{ArgError, Observed, Param, ParamType, Resource};
use crate::change::{Change, Datum, Fields, State, Verb};
use crate::failure::Failure;
use crate::system::bootstrap::Bootstrap;
use crate::system::docker::{Build, DockerHands, IMAGE_LABEL, image_name};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Tree, TreeEntryKind, Value};

/// The label with the repository that an image was made for: a tag may move, this stays.
const REPO_LABEL: &str = "fanli.repo";
/// What the field `base` says when the image was built on what its `FROM` names now.
const UP_TO_DATE: &str = "up to date";

crate::choice! {
    /// Whether an image should be there.
    pub enum ImageState {
        /// It is there, as declared.
        Present = "present",
        /// It is not there.
        Absent = "absent",
    }
}

impl Param for Bootstrap {
    const TYPE: ParamType = ParamType::Call(&["debian"]);

    fn read(value: Value) -> Result<Self, String> {
        let mut call = read_call(value, &["debian"])?;
        if call.args.len() != 1 {
            return Err("expected one release, as in debian(\"bookworm\")".to_owned());
        }
        let suite = call.args.pop().map_or_else(|| Err(String::new()), |suite| scalar(&suite))?;
        let packages = call.named.remove("packages").map(Vec::<String>::read).transpose()?.unwrap_or_default();
        let mirror = call.named.remove("mirror").map(String::read).transpose()?;
        if let Some(unknown) = call.named.keys().next() {
            return Err(format!("debian(…) has no `{unknown}`; it has packages, mirror"));
        }
        let word = |text: &str, more: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
            text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
        };
        if !word(&suite, "-") {
            return Err(format!("`{suite}` is not a release such as bookworm"));
        }
        if let Some(odd) = packages.iter().find(|name| !word(name, "+.-")) {
            return Err(format!("`{odd}` is not a package's name"));
        }
        let url = |mirror: &String| {
            let rest = mirror.strip_prefix("http://").or_else(|| mirror.strip_prefix("https://"));
            rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/~%[]".contains(c)))
        };
        if let Some(odd) = mirror.iter().find(|mirror| !url(mirror)) {
            return Err(format!(
                "`{odd}` is not a mirror such as http://deb.debian.org/debian (a password has no place in it)"
            ));
        }
        Ok(Self { suite, packages, mirror })
    }

    fn show(&self) -> String {
        format!("debian(\"{}\")", self.suite)
    }
}

crate::kind! {
    /// Keeps an image as declared: built from a folder with a Dockerfile, or a fresh Debian root.
    ///
    /// What went in is stored on the image. It is built anew only when that differs: a file of the context, an argument, or
    /// the image that its `FROM` names. What the context's `.dockerignore` leaves out is neither read nor sent, by Docker's own rules
    /// (patterns, `**`, exceptions with `!`, the last one decides). A Debian root is made once per machine and kept in
    /// `/var/cache/fanli/bootstrap` until what is declared differs; remove the file there for a fresh one.
    ///
    /// The example presumes debootstrap on the host (`package "debootstrap"`) and a Debian mirror.
    pub struct Image = "image" {
        /// Its name: `repo:tag`.
        name: String,
        /// The folder that it is built from.
        context: Option<Tree>,
        /// The Dockerfile in that folder.
        dockerfile: String = "Dockerfile".to_owned(),
        /// Build arguments. Anybody who has the image can read them: no secrets.
        args: Map = Map::new(),
        /// The stage of the Dockerfile to stop at.
        target: Option<String>,
        /// Makes it from a Debian mirror instead: `debian("bookworm", packages: ["apache2"], mirror: "http://…")`.
        bootstrap: Option<Bootstrap>,
        /// How many images of this repository that fanli made are kept after a build; older ones that no container uses go.
        keep: Option<i64>,
        /// Whether it should be there.
        state: ImageState = ImageState::Present,
    }
    results {
        "id": "the image's ID",
    }
    example r#"# presumes debootstrap and a Debian mirror
image "fanli/base-example:12" {
  bootstrap = debian("bookworm", packages: ["netbase"])
}"#
}

impl Image {
    /// What it is made of, as far as the playbook says; the rest is in `base`.
    fn spec(&self) -> BTreeMap<String, Value> {
        let mut spec = BTreeMap::new();
        if let Some(root) = &self.bootstrap {
            spec.insert("bootstrap".to_owned(), Value::Str(format!("debian {}", root.suite)));
            if !root.packages.is_empty() {
                let packages = root.packages.iter().map(|name| Value::from(name.as_str())).collect();
                spec.insert("packages".to_owned(), Value::List(packages));
            }
            spec.extend(root.mirror.as_deref().map(|mirror| ("mirror".to_owned(), Value::from(mirror))));
        }
        if let Some(tree) = &self.context {
            spec.insert("context".to_owned(), Value::Str(tree.digest().short()));
            spec.insert("dockerfile".to_owned(), Value::from(self.dockerfile.as_str()));
            if !self.args.is_empty() {
                let text = |(key, value): (&String, &Value)| (key.clone(), Value::Str(value.to_string()));
                spec.insert("args".to_owned(), Value::Map(self.args.iter().map(text).collect()));
            }
            spec.extend(self.target.as_deref().map(|target| ("target".to_owned(), Value::from(target))));
        }
        spec
    }

    /// The label's text: the spec, and the IDs of the images that it stands on.
    fn label(&self, bases: &BTreeMap<String, String>) -> String {
        let mut spec: serde_json::Map<String, serde_json::Value> =
            self.spec().iter().map(|(key, value)| (key.clone(), super::container::to_json(value))).collect();
        if self.context.is_some() {
            spec.insert(
                "base".to_owned(),
                bases.iter().map(|(name, id)| (name.clone(), serde_json::Value::from(id.as_str()))).collect(),
            );
        }
        // A builder expands `$` in labels; JSON has another spelling for it.
        serde_json::Value::Object(spec).to_string().replace('$', "\\u0024")
    }

    fn texts(&self) -> Result<BTreeMap<String, String>, Failure> {
        texts("args", &self.args).map_err(|error| Failure::new(format!("`args` {}", error.message)))
    }

    /// The images that its Dockerfile names.
    async fn bases(&self, tree: &Tree, probe: &Probe) -> Result<Vec<String>, Failure> {
        let dockerfile = tree.entries.iter().find(|entry| entry.path == self.dockerfile);
        let Some(TreeEntryKind::File { blob, .. }) = dockerfile.map(|entry| &entry.kind) else { return Ok(Vec::new()) };
        let text = probe.blob(blob).await?;
        Ok(base_images(&String::from_utf8_lossy(&text), &self.texts()?))
    }

    async fn build(&self, tree: &Tree, docker: &DockerHands, hands: &Actuator) -> Result<(), Failure> {
        let args = self.texts()?;
        let mut bases = BTreeMap::new();
        for name in self.bases(tree, hands).await? {
            if let Some(image) = docker.image(&name).await? {
                bases.insert(name, image.id);
            }
        }
        hands.progress("packing the context", None);
        let tar = hands.context_tar(tree).await?;
        let build = Build {
            tag: self.name.clone(),
            dockerfile: self.dockerfile.clone(),
            args,
            target: self.target.clone(),
            labels: self.labels(&bases)?,
        };
        docker.build(&build, tar, |line| hands.progress(line, None)).await
    }

    fn labels(&self, bases: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Failure> {
        let (repo, _) = image_name(&self.name).map_err(Failure::new)?;
        Ok([(IMAGE_LABEL, self.label(bases)), (REPO_LABEL, repo.to_owned())]
            .map(|(key, value)| (key.to_owned(), value))
            .into())
    }

    /// Removes the older images of this repository beyond `keep`. What is in use, or stands below another image, stays.
    async fn prune(&self, keep: usize, docker: &DockerHands) -> Result<(), Failure> {
        let (repo, _) = image_name(&self.name).map_err(Failure::new)?;
        let mut images = docker.own_images().await?;
        images.retain(|image| image.labels.get(REPO_LABEL).is_some_and(|made_for| made_for == repo));
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        let used = docker.images_in_use().await?;
        for image in images.into_iter().skip(keep) {
            if used.contains(&image.id) || image.tags.contains(&self.name) {
                continue;
            }
            let own = |tag: &&String| tag.rsplit_once(':').is_some_and(|(name, _)| name == repo);
            for tag in image.tags.iter().filter(own) {
                docker.remove_image(tag).await?;
            }
            if image.tags.iter().all(|tag| own(&tag) || tag == "<none>:<none>") {
                docker.remove_image(&image.id).await?;
            }
        }
        Ok(())
    }
}

/// The images that a Dockerfile stands on: its `FROM` and `COPY --from` names that are no stages of its own. A name that
/// holds a variable without a value is left out.
fn base_images(dockerfile: &str, args: &BTreeMap<String, String>) -> Vec<String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let (mut stages, mut found) = (Vec::new(), Vec::new());
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        match words.next().map(str::to_ascii_uppercase).as_deref() {
            Some("ARG") => {
                let (name, default) =
                    words.next().map(|word| word.split_once('=').unwrap_or((word, ""))).unwrap_or_default();
                let value = args.get(name).cloned().unwrap_or_else(|| default.trim_matches('"').to_owned());
                values.insert(name.to_owned(), value);
            }
            Some("FROM") => {
                let rest: Vec<&str> = words.filter(|word| !word.starts_with("--")).collect();
                if let Some(name) = rest.first() {
                    found.push(expand(name, &values));
                }
                stages.extend(rest.get(2).map(|name| (*name).to_owned()));
            }
            Some("COPY") => {
                let from = words.find_map(|word| word.strip_prefix("--from="));
                found.extend(from.filter(|from| from.parse::<u32>().is_err()).map(|name| expand(name, &values)));
            }
            _ => {}
        }
    }
    found.retain(|name| name != "scratch" && !stages.contains(name) && image_name(name).is_ok());
    found.sort();
    found.dedup();
    found
}

fn expand(name: &str, values: &BTreeMap<String, String>) -> String {
    // Longer names first, so that $TAGS is not taken for $TAG.
    let mut known: Vec<_> = values.iter().collect();
    known.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    known.into_iter().fold(name.to_owned(), |text, (key, value)| {
        text.replace(&format!("${{{key}}}"), value).replace(&format!("${key}"), value)
    })
}

impl Resource for Image {
    fn check(&self) -> Result<(), ArgError> {
        image_name(&self.name).map_err(|message| ArgError::new("name", message))?;
        if self.state == ImageState::Absent {
            return Ok(());
        }
        let tree = match (&self.context, &self.bootstrap) {
            (Some(tree), None) => Some(tree),
            (None, Some(_)) => None,
            _ => return Err(ArgError::new("context", "needs either `context` or `bootstrap`, not both")),
        };
        texts("args", &self.args)?;
        if let Some(tree) = tree {
            let file = |path: &str| {
                tree.entries.iter().any(|entry| entry.path == path && matches!(entry.kind, TreeEntryKind::File { .. }))
            };
            if !file(&self.dockerfile) {
                return Err(ArgError::new("dockerfile", format!("`{}` is no file in the context", self.dockerfile)));
            }
        }
        if self.keep.is_some_and(|keep| !(1..=1000).contains(&keep)) {
            return Err(ArgError::new("keep", "expected 1 to 1000 images"));
        }
        Ok(())
    }

    fn desired(&self) -> State {
        if self.state == ImageState::Absent {
            return State::Absent;
        }
        let names = ["bootstrap", "packages", "mirror", "context", "dockerfile", "args", "target", "base"];
        let mut fields: Fields = names.map(|name| (name.to_owned(), Datum::Absent)).into();
        fields.extend(self.spec().into_iter().map(|(name, value)| (name, Datum::Value(value))));
        if self.context.is_some() {
            fields.insert("base".to_owned(), UP_TO_DATE.into());
        }
        State::Present(fields)
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let docker = probe.docker()?;
        let Some(image) = docker.image(&self.name).await? else { return Ok(State::Absent.into()) };
        let spec = image.labels.get(IMAGE_LABEL).and_then(|text| serde_json::from_str(text).ok());
        let spec = spec.map_or(Value::Null, super::container::from_json);
        let mut fields = Fields::new();
        if let Value::Map(mut map) = spec {
            if let Some(Value::Map(bases)) = map.remove("base") {
                let mut base = UP_TO_DATE.to_owned();
                for (name, was) in bases {
                    let was = was.to_string();
                    if let Some(now) = docker.image(&name).await?
                        && now.id != was
                    {
                        base = format!("an older {name} ({})", short_id(&was));
                    }
                }
                fields.insert("base".to_owned(), base.into());
            }
            fields.extend(map.into_iter().map(|(name, value)| (name, Datum::Value(value))));
        }
        Ok(Observed { state: State::Present(fields), output: output(&image.id) })
    }

    async fn stands_on(&self, probe: &Probe) -> Result<Vec<(&'static str, String)>, Failure> {
        let Some(tree) = self.context.as_ref().filter(|_| self.state == ImageState::Present) else {
            return Ok(Vec::new());
        };
        Ok(self.bases(tree, probe).await?.into_iter().map(|name| ("image", name)).collect())
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let docker = hands.docker_hands()?;
        if change.verb == Verb::Remove {
            if !docker.remove_image(&self.name).await? && docker.image(&self.name).await?.is_some() {
                return Err(Failure::new(format!("image {} is in use", self.name))
                    .hint("remove the containers and images that stand on it first"));
            }
            return Ok(Map::new());
        }
        if let Some(root) = &self.bootstrap {
            let tar = hands.bootstrap(root).await?;
            hands.progress("importing the root file system", None);
            let name = image_name(&self.name).map_err(Failure::new)?;
            docker.import(name, &self.labels(&BTreeMap::new())?, hands.stream(&tar)).await?;
        } else if let Some(tree) = &self.context {
            self.build(tree, &docker, hands).await?;
        }
        if let Some(keep) = self.keep.and_then(|keep| usize::try_from(keep).ok()) {
            self.prune(keep, &docker).await?;
        }
        let made = docker.image(&self.name).await?;
        Ok(made.map(|image| output(&image.id)).unwrap_or_default())
    }
}

fn output(id: &str) -> Map {
    Map::from([("id".to_owned(), Value::from(id))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_tells_what_it_stands_on() {
        let text = "ARG TAG=12\nFROM fanli/base:${TAG} AS build\nRUN x\nFROM --platform=linux/amd64 fanli/run:$REL\n\
                    COPY --from=build /a /a\nCOPY --from=0 /a /b\nCOPY --from=team/tools:1 /c /c\nFROM scratch\n";
        let args = BTreeMap::from([("TAG".to_owned(), "13".to_owned())]);
        assert_eq!(base_images(text, &args), ["fanli/base:13", "team/tools:1"]);
    }
}
