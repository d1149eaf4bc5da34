//! The Docker daemon of this host, over its local socket.
//!
//! Requests carry no version, so any daemon answers in its own; what comes back is read into the small structs here, because
//! the client's own types refuse a whole answer when one word in it is new to them.

mod raw;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{
    BuildImageOptions, CreateContainerOptions, CreateImageOptions, InspectContainerOptions, ListContainersOptions,
    ListImagesOptions, ListNetworksOptions, RemoveContainerOptions, RemoveImageOptions, RenameContainerOptions,
    StartContainerOptions, StopContainerOptions, TagImageOptions,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;

use self::raw::{RawContainer, RawContainerSummary, RawDockerNetwork, RawImage, RawImageSummary, published};
use super::waiting::waiting;
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};

/// Where the daemon listens. Only this: no TCP, and nothing from the environment of whoever logged in.
const SOCKET: &str = "/var/run/docker.sock";

/// How long the daemon may take for an answer that needs no work (`docker answer`).
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How many connections stay open for later requests.
const KEPT: usize = 4;
/// How long an image may take to go in (`docker import`).
const IMPORT: Duration = Duration::from_secs(15 * 60);
/// How long a build may take (`docker build`).
const BUILD: Duration = Duration::from_secs(2 * 3600);
/// How long a build may say nothing at all (`docker silence`). Package managers and compilers say something every few seconds;
/// a daemon that lost sight of its own container says nothing for ever.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// The label with what was declared for a container; its presence says that fanli made it.
pub const SPEC_LABEL: &str = "fanli.spec";
/// The same for an image. Another name, because containers inherit the labels of their image.
pub const IMAGE_LABEL: &str = "fanli.image";

/// Which socket the daemon has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// A daemon to look at.
#[derive(Clone)]
pub struct Docker {
    pub(super) client: bollard::Docker,
}

/// A daemon to change.
pub struct DockerHands {
    docker: Docker,
}

impl Deref for DockerHands {
    type Target = Docker;

    fn deref(&self) -> &Docker {
        &self.docker
    }
}

/// What is known of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its full ID.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// The ID of the image that it was made from.
    pub image_id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `running`, `exited`, `paused`, `restarting`, `created`, `dead`: in the daemon's words.
    pub status: String,
    /// The exit code of its last process, and what the daemon says about a failed start.
    pub exit: (i64, String),
    /// How often the daemon has started it again after it ended by itself.
    pub restarts: u64,
    /// The process ID of its first process, while there is one.
    pub pid: Option<u32>,
    /// When it was last started, as the daemon writes it.
    pub started_at: String,
    /// `none`, `host`, `bridge`, `container:ID`.
    pub network_mode: String,
    /// The path of its network namespace, as the daemon says it.
    pub sandbox: String,
    /// Docker's networks that it is on, each with its address there.
    pub networks: BTreeMap<String, String>,
    /// Published TCP and UDP ports: of the host, and inside.
    pub published: Vec<(u16, u16)>,
    /// Its limit of memory in bytes; 0 is none.
    pub memory: u64,
    /// Its limit of processor time in billionths of a processor; 0 is none.
    pub nano_cpus: u64,
    /// Its restart policy in the daemon's words.
    pub restart: String,
    /// Directories of the host that it was made with: what the daemon mounts at each start, by the place in the container.
    pub mounts: BTreeMap<String, String>,
    /// Limits that fanli never declares, each as `docker update` calls it: somebody set them.
    pub other_limits: Vec<String>,
}

impl Container {
    /// The networks that it is on, where these are others than its mode says: it was connected or disconnected since.
    pub fn strayed(&self) -> Option<String> {
        // Docker calls its bridge `default` where the container did not name it; one that shares another's network is on none.
        let mode = if self.network_mode == "default" { "bridge" } else { &self.network_mode };
        if mode.starts_with("container:") || (self.networks.len() == 1 && self.networks.contains_key(mode)) {
            return None;
        }
        let names: Vec<&str> = self.networks.keys().map(String::as_str).collect();
        match (mode, names.is_empty()) {
            // Nothing is what it should have.
            ("none", true) => None,
            (_, true) => Some("nothing".to_owned()),
            _ => Some(names.join(", ")),
        }
    }
}

/// What is known of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its ID.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was made: seconds since 1970. Only lists know it.
    pub created: i64,
    /// What runs the command in its containers, and the command. Only a look at the one image knows them.
    pub entrypoint: Vec<String>,
    /// See `entrypoint`.
    pub command: Vec<String>,
}

/// How an image is built.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// `repo:tag` of the result.
    pub tag: String,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Stage to stop at.
    pub target: Option<String>,
    /// Labels of the result.
    pub labels: BTreeMap<String, String>,
}

/// What is known of one of the daemon's own networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerNetwork {
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan`, `overlay`: in the daemon's words.
    pub driver: String,
    /// Its subnets, as the daemon writes them.
    pub subnets: Vec<String>,
    /// The host's link that it stands on, where its driver has one.
    pub parent: Option<String>,
}

impl Probe {
    /// The daemon of this host, to look at.
    ///
    /// # Errors
    /// When its socket is not there, or is not one that only root (and who root lets) could have put there.
    pub fn docker(&self) -> Result<Docker, Failure> {
        // A daemon that was restarted has a socket of its own.
        self.same_docker(trusted_socket(Path::new(SOCKET))?, connect)
    }
}

impl Probe {
    /// The daemon of this host, to look at; `None` where there is no socket of one.
    ///
    /// # Errors
    /// As [`Probe::docker`].
    pub fn docker_if_there(&self) -> Result<Option<Docker>, Failure> {
        if self.exists(SOCKET)? { self.docker().map(Some) } else { Ok(None) }
    }
}

/// A client whose requests share connections that stay open: bollard's own opens one for each request.
fn connect() -> Result<Docker, Failure> {
    use hyper_util::{client::legacy, rt};
    let mut builder = legacy::Client::builder(rt::TokioExecutor::new());
    builder.pool_idle_timeout(None).pool_max_idle_per_host(KEPT);
    let client = builder.build(hyperlocal::UnixConnector);
    let send = move |request: bollard::BollardRequest| {
        let answer = client.request(request);
        async move { answer.await.map_err(Error::from) }
    };
    // The connector finds the path of the socket where others have the name of a machine, in hexadecimal digits.
    let place = SOCKET.bytes().fold("unix://".to_owned(), |place, byte| format!("{place}{byte:02x}"));
    // The client's own limit is the outermost one; each request has a tighter limit with a name.
    let limit = BUILD.as_secs();
    let client = bollard::Docker::connect_with_custom_transport(send, Some(place), limit, bollard::API_DEFAULT_VERSION)
        .map_err(|error| failure("cannot use the Docker daemon", &error))?;
    Ok(Docker { client })
}

impl Actuator {
    /// The daemon of this host, to change.
    ///
    /// # Errors
    /// As [`Probe::docker`].
    pub fn docker_hands(&self) -> Result<DockerHands, Failure> {
        Ok(DockerHands { docker: self.docker()? })
    }
}

/// Whoever answers on this socket is given the run of the host, so it must be the daemon's own.
fn trusted_socket(path: &Path) -> Result<Identity, Failure> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| {
        Failure::new(format!("the Docker daemon does not answer: {shown}: {error}"))
            .hint("install and start Docker first, for instance with `package \"docker.io\"` and `service \"docker\"`")
    })?;
    if !meta.file_type().is_socket() || meta.uid() != 0 || meta.mode() & 0o002 != 0 {
        return Err(Failure::new(format!(
            "{shown} is not a socket that belongs to root and is closed to others: it is not trusted"
        ))
        .hint("let the Docker service make it anew"));
    }
    Ok(Identity { device: meta.dev(), inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()) })
}

/// An error of the client in plain words.
pub(super) fn failure(what: &str, error: &Error) -> Failure {
    let failure = match error {
        Error::DockerResponseServerError { status_code, message } => {
            Failure::new(what).because(format!("{} (status {status_code})", message.trim()))
        }
        Error::DockerStreamError { error } => Failure::new(what).because(error.trim()),
        other => {
            let mut failure = Failure::new(what).because(other);
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                failure = failure.because(inner);
                source = inner.source();
            }
            failure
        }
    };
    let refused = failure.causes.iter().any(|cause| cause.contains("onnection refused"));
    if refused { failure.hint("the Docker daemon is not running: start its service first") } else { failure }
}

pub(super) fn is_status(error: &Error, code: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == code)
}

pub(super) async fn limited<T>(
    limit: (&str, Duration),
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match waiting(what, Box::pin(tokio::time::timeout(limit.1, work))).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failure(what, &error)),
        Err(_) => Err(Failure::timeout(limit.0, limit.1).within(what)),
    }
}

/// Reads an answer into one of the structs above, whether the client could make sense of it or not.
/// `None` when the thing does not exist.
pub(super) async fn ask<A: serde::Serialize, T: DeserializeOwned>(
    what: &str,
    request: impl Future<Output = Result<A, Error>>,
) -> Result<Option<T>, Failure> {
    let answer = waiting(what, Box::pin(tokio::time::timeout(ANSWER, request)))
        .await
        .map_err(|_| Failure::timeout("docker answer", ANSWER).within(what))?;
    let read = match answer {
        Ok(typed) => serde_json::to_value(typed).and_then(serde_json::from_value),
        Err(Error::JsonDataError { contents, .. }) => serde_json::from_str(&contents),
        Err(error) if is_status(&error, 404) => return Ok(None),
        Err(error) => return Err(failure(what, &error)),
    };
    read.map(Some).with_context(|| format!("{what}: the Docker daemon answered something else than expected"))
}

impl Docker {
    /// The container of that name; `None` when there is none.
    pub async fn container(&self, name: &str) -> Result<Option<Container>, Failure> {
        let what = format!("cannot inspect container {name}");
        let raw: Option<RawContainer> =
            ask(&what, self.client.inspect_container(name, None::<InspectContainerOptions>)).await?;
        // The daemon also takes the beginning of an ID for a name.
        let named = |raw: &RawContainer| raw.name.trim_start_matches('/') == name || raw.id == name;
        Ok(raw.filter(named).map(|raw| Container {
            other_limits: raw.host_config.other_limits(),
            name: raw.name.trim_start_matches('/').to_owned(),
            id: raw.id,
            image_id: raw.image,
            labels: raw.config.labels.unwrap_or_default(),
            status: raw.state.status,
            exit: (raw.state.exit_code, raw.state.error),
            restarts: raw.restart_count,
            pid: Some(raw.state.pid).filter(|pid| *pid > 0),
            started_at: raw.state.started_at,
            network_mode: raw.host_config.network_mode,
            published: raw.network_settings.ports.as_ref().map(published).unwrap_or_default(),
            networks: raw
                .network_settings
                .networks
                .unwrap_or_default()
                .into_iter()
                .map(|(name, end)| (name, end.address))
                .collect(),
            sandbox: raw.network_settings.sandbox_key,
            memory: u64::try_from(raw.host_config.memory).unwrap_or(0),
            nano_cpus: u64::try_from(raw.host_config.nano_cpus).unwrap_or(0),
            restart: raw.host_config.restart_policy.name,
            mounts: raw
                .host_config
                .mounts
                .into_iter()
                .flatten()
                .filter(|mount| mount.kind == "bind")
                .map(|mount| (mount.target, mount.source))
                .collect(),
        }))
    }

    /// The image of that name or ID; `None` when there is none.
    pub async fn image(&self, name: &str) -> Result<Option<Image>, Failure> {
        let what = format!("cannot inspect image {name}");
        let raw: Option<RawImage> = ask(&what, self.client.inspect_image(name)).await?;
        Ok(raw.map(|raw| {
            let config = raw.config.unwrap_or_default();
            Image {
                id: raw.id,
                labels: config.labels.unwrap_or_default(),
                tags: raw.repo_tags.unwrap_or_default(),
                created: 0,
                entrypoint: config.entrypoint.unwrap_or_default(),
                command: config.cmd.unwrap_or_default(),
            }
        }))
    }

    /// All images of a repository that fanli made.
    pub async fn own_images(&self) -> Result<Vec<Image>, Failure> {
        let filters = HashMap::from([("label".to_owned(), vec![IMAGE_LABEL.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..Default::default() };
        let raw: Option<Vec<RawImageSummary>> =
            ask("cannot list images", self.client.list_images(Some(options))).await?;
        let image = |raw: RawImageSummary| Image {
            id: raw.id,
            labels: raw.labels.unwrap_or_default(),
            tags: raw.repo_tags.unwrap_or_default(),
            created: raw.created,
            entrypoint: Vec::new(),
            command: Vec::new(),
        };
        Ok(raw.unwrap_or_default().into_iter().map(image).collect())
    }

    /// The IDs of the images that containers were made from, running or not.
    pub async fn images_in_use(&self) -> Result<Vec<String>, Failure> {
        Ok(self.containers().await?.into_iter().map(|raw| raw.image_id).collect())
    }

    /// The directories and files of the host that containers mount writable, running or not; volumes are among them.
    pub async fn writable_mounts(&self) -> Result<Vec<String>, Failure> {
        let mounts = self.containers().await?.into_iter().flat_map(|raw| raw.mounts.unwrap_or_default());
        let sources = mounts.filter(|mount| mount.writable && mount.source.starts_with('/')).map(|mount| mount.source);
        Ok(sources.collect())
    }

    /// The names of all containers, running or not.
    pub async fn container_names(&self) -> Result<Vec<String>, Failure> {
        self.listed(ListContainersOptions { all: true, ..Default::default() }).await
    }

    /// The names of all running containers that have a label.
    pub async fn running_with(&self, label: &str) -> Result<Vec<String>, Failure> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        self.listed(ListContainersOptions { filters: Some(filters), ..Default::default() }).await
    }

    /// The names of the containers that a list has.
    pub(super) async fn listed(&self, options: ListContainersOptions) -> Result<Vec<String>, Failure> {
        let raw: Option<Vec<RawContainerSummary>> =
            ask("cannot list containers", self.client.list_containers(Some(options))).await?;
        let names = raw.into_iter().flatten().flat_map(|raw| raw.names.unwrap_or_default());
        Ok(names.map(|name| name.trim_start_matches('/').to_owned()).collect())
    }

    /// The daemon's own networks.
    pub async fn networks(&self) -> Result<Vec<DockerNetwork>, Failure> {
        let raw: Option<Vec<RawDockerNetwork>> =
            ask("cannot list Docker's networks", self.client.list_networks(None::<ListNetworksOptions>)).await?;
        let network = |raw: RawDockerNetwork| DockerNetwork {
            name: raw.name,
            driver: raw.driver,
            subnets: raw
                .ipam
                .and_then(|ipam| ipam.config)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|config| config.subnet)
                .collect(),
            parent: raw.options.and_then(|mut options| options.remove("parent")),
        };
        Ok(raw.unwrap_or_default().into_iter().map(network).collect())
    }

    async fn containers(&self) -> Result<Vec<RawContainerSummary>, Failure> {
        let options = ListContainersOptions { all: true, ..Default::default() };
        let raw: Option<Vec<RawContainerSummary>> =
            ask("cannot list containers", self.client.list_containers(Some(options))).await?;
        Ok(raw.unwrap_or_default())
    }
}

impl DockerHands {
    /// Makes a container without starting it; gives its ID.
    pub async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, Failure> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let what = format!("cannot create container {name}");
        let made = limited(("docker answer", ANSWER), &what, self.client.create_container(Some(options), body)).await?;
        Ok(made.id)
    }

    /// Starts a container; one that runs already is left alone.
    pub async fn start(&self, name: &str) -> Result<(), Failure> {
        let what = format!("cannot start container {name}");
        let request = self.client.start_container(name, None::<StartContainerOptions>);
        limited(("docker answer", ANSWER), &what, request).await
    }

    /// Stops a container: its stop signal, then after `grace` the end. One that does not run, or is not there, is left alone. What
    /// fanli plugged into it is gone when this comes back.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<(), Failure> {
        let network = self.plugged_network(name).await;
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), ..Default::default() };
        let request = async {
            match self.client.stop_container(name, Some(options)).await {
                Err(error) if is_status(&error, 404) || is_status(&error, 304) => Ok(()),
                other => other,
            }
        };
        let limit = grace.saturating_add(ANSWER);
        limited(("docker stop", limit), &format!("cannot stop container {name}"), request).await?;
        if let Some(network) = network {
            network.unplug().await;
        }
        Ok(())
    }

    /// Removes a container and its anonymous volumes, running or not. One that is not there is fine, and one that is just being
    /// removed is waited for.
    pub async fn remove(&self, name: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        let request = async {
            loop {
                match self.client.remove_container(name, Some(options.clone())).await {
                    Err(error) if is_status(&error, 404) => return Ok(()),
                    // Asked by a run that was killed meanwhile: the daemon goes on.
                    Err(error) if is_status(&error, 409) && error.to_string().contains("already in progress") => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    other => return other,
                }
            }
        };
        limited(("docker answer", ANSWER), &format!("cannot remove container {name}"), request).await
    }

    /// Lets a paused container go on.
    pub async fn unpause(&self, name: &str) -> Result<(), Failure> {
        let request = self.client.unpause_container(name);
        limited(("docker answer", ANSWER), &format!("cannot unpause container {name}"), request).await
    }

    /// Gives a container another name.
    pub async fn rename(&self, name: &str, to: &str) -> Result<(), Failure> {
        let options = RenameContainerOptions { name: to.to_owned() };
        let request = self.client.rename_container(name, options);
        limited(("docker answer", ANSWER), &format!("cannot rename container {name} to {to}"), request).await
    }

    /// Sets when the daemon starts a container again by itself, in its own words.
    pub async fn set_restart(&self, name: &str, policy: &str) -> Result<(), Failure> {
        let policy = RestartPolicy { name: policy.parse::<RestartPolicyNameEnum>().ok(), maximum_retry_count: None };
        let body = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
        let what = format!("cannot set the restart policy of container {name}");
        limited(("docker answer", ANSWER), &what, self.client.update_container(name, body)).await
    }

    /// Makes an image from the tar of a root file system.
    pub async fn import(
        &self,
        (repo, tag): (&str, &str),
        labels: &BTreeMap<String, String>,
        root: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    ) -> Result<(), Failure> {
        let label = |(key, value): (&String, &String)| format!("LABEL {key}={}", quoted(value));
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            changes: labels.iter().map(label).chain(["CMD [\"/bin/sh\"]".to_owned()]).collect(),
            ..Default::default()
        };
        let what = format!("cannot import image {repo}:{tag}");
        let body = bollard::body_try_stream(root);
        let stream = self.client.create_image(Some(options), Some(body), None);
        limited(("docker import", IMPORT), &what, async {
            let mut stream = std::pin::pin!(stream);
            while let Some(line) = stream.next().await {
                line?;
            }
            Ok(())
        })
        .await
    }

    /// Builds an image from a context in a tar; `say` hears each line of the build.
    pub async fn build(&self, build: &Build, context: Vec<u8>, say: impl Fn(&str)) -> Result<(), Failure> {
        let options = BuildImageOptions {
            dockerfile: build.dockerfile.clone(),
            t: Some(build.tag.clone()),
            buildargs: Some(build.args.clone().into_iter().collect()),
            labels: Some(build.labels.clone().into_iter().collect()),
            target: build.target.clone().unwrap_or_default(),
            rm: true,
            forcerm: true,
            ..Default::default()
        };
        let what = format!("cannot build image {}", build.tag);
        let mut last = std::collections::VecDeque::new();
        let started = tokio::time::Instant::now();
        let stream = self.client.build_image(options, None, Some(bollard::body_full(context.into())));
        let mut stream = std::pin::pin!(stream);
        loop {
            let left = SILENCE.min(BUILD.saturating_sub(started.elapsed()));
            let failed = match tokio::time::timeout(left, stream.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(info))) => {
                    for line in info.stream.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty())
                    {
                        say(line);
                        last.push_back(line.to_owned());
                        if last.len() > 15 {
                            last.pop_front();
                        }
                    }
                    info.error_detail.map(|detail| {
                        Failure::new(what.clone()).because(detail.message.unwrap_or_else(|| "unknown error".to_owned()))
                    })
                }
                Ok(Some(Err(error))) => Some(failure(&what, &error)),
                Err(_) if left < SILENCE => Some(Failure::timeout("docker build", BUILD).within(what.clone())),
                Err(_) => Some(Failure::timeout("docker silence", SILENCE).within(what.clone())),
            };
            if let Some(mut failed) = failed {
                if !last.is_empty() {
                    failed = failed.because(format!("the last lines of the build:\n{}", Vec::from(last).join("\n")));
                }
                return Err(failed);
            }
        }
    }

    /// Gives an image another tag.
    pub async fn tag(&self, image: &str, (repo, tag): (&str, &str)) -> Result<(), Failure> {
        let options = TagImageOptions { repo: Some(repo.to_owned()), tag: Some(tag.to_owned()) };
        let request = self.client.tag_image(image, Some(options));
        limited(("docker answer", ANSWER), &format!("cannot tag image {repo}:{tag}"), request).await
    }

    /// Removes an image or a tag that nothing uses; one in use or gone already is left alone. Tells whether it went.
    pub async fn remove_image(&self, name: &str) -> Result<bool, Failure> {
        let request = async {
            match self.client.remove_image(name, None::<RemoveImageOptions>, None).await {
                Ok(_) => Ok(true),
                Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(false),
                Err(error) => Err(error),
            }
        };
        limited(("docker answer", ANSWER), &format!("cannot remove image {name}"), request).await
    }
}

/// A value for a `LABEL` instruction.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
}

/// A name as Docker takes it for a container.
pub fn container_name(name: &str) -> Result<(), String> {
    let rest = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let fits = name.len() > 1
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(rest);
    if fits {
        Ok(())
    } else {
        Err(format!("`{name}` is not a container name: 2 to 63 of A-Z a-z 0-9 _ . - with a letter or digit first"))
    }
}

/// `repo` and `tag` of an image's name; a missing tag is `latest`.
///
/// # Errors
/// When it is not a plain name: only these go into requests.
pub fn image_name(name: &str) -> Result<(&str, &str), String> {
    let (repo, tag) = match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, tag),
        _ => (name, "latest"),
    };
    let part = |part: &str| {
        !part.is_empty()
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase() || "_.-:".contains(c))
    };
    let tag_fits = tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if repo.len() <= 255 && repo.split('/').all(part) && tag_fits {
        Ok((repo, tag))
    } else {
        Err(format!("`{name}` is not an image name such as `team/web:1.2` (lower case, digits, `._-`, one tag)"))
    }
}
