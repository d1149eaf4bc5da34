//! What a container was made with, whole: enough to make it again just as it was, from the same image.

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::InspectContainerOptions;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::docker::{Docker, SPEC_LABEL, ask};
use crate::failure::{Context, Failure};

/// Docker's own networks: there is nothing to say about a container's place on them.
const PLAIN_NETWORKS: [&str; 4] = ["none", "host", "default", "bridge"];

/// A container as Docker was asked for it; its files are those of its image, and of what it mounts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What tells it from others of its name.
    #[serde(flatten)]
    pub identity: Identity,
    /// Whether it ran.
    pub running: bool,
    /// How long it may take to stop, in seconds.
    pub stop_timeout: u64,
    /// The request that makes it again.
    body: Value,
}

/// The image and the declaration that a container was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The image's ID.
    pub image_id: String,
    /// What was declared for it, as it stands on it; nothing on a container that fanli did not make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    id: String,
    image: String,
    state: RawState,
    config: Map<String, Value>,
    host_config: Map<String, Value>,
    #[serde(default)]
    network_settings: RawNetworks,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawState {
    running: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawNetworks {
    networks: Option<Map<String, Value>>,
}

impl Identity {
    /// The name that the image had when the container was declared; a container that was put back has only its ID from Docker.
    pub fn image(&self) -> String {
        let spec = self.spec.as_deref().and_then(|spec| serde_json::from_str::<Value>(spec).ok());
        let image = spec.as_ref().and_then(|spec| spec.get("image")).and_then(Value::as_str);
        image.map_or_else(|| "an image".to_owned(), str::to_owned)
    }
}

impl Snapshot {
    /// The request that makes it again.
    ///
    /// # Errors
    /// It was written by another fanli, and this one cannot read it.
    pub fn request(&self) -> Result<ContainerCreateBody, Failure> {
        ContainerCreateBody::deserialize(&self.body).context("this fanli cannot make that container again")
    }

    /// Sets when Docker starts it again by itself.
    pub fn set_restart(&mut self, policy: &str) {
        if let Some(host) = self.body.get_mut("HostConfig").and_then(Value::as_object_mut) {
            host.insert("RestartPolicy".to_owned(), json!({ "Name": policy }));
        }
    }

    fn of(raw: Raw) -> Result<Self, Failure> {
        let spec = raw.config.get("Labels").and_then(|labels| labels.get(SPEC_LABEL)).and_then(Value::as_str);
        let identity = Identity { image_id: raw.image.clone(), spec: spec.map(str::to_owned) };
        let stop_timeout = raw.config.get("StopTimeout").and_then(Value::as_u64);
        let mode = raw.host_config.get("NetworkMode").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut body = raw.config;
        body.insert("Image".to_owned(), Value::String(raw.image));
        if mode == "host" {
            // What stands there is the host's own, and Docker takes none.
            body.remove("Hostname");
            body.remove("Domainname");
        }
        if !PLAIN_NETWORKS.contains(&mode.as_str()) {
            let ends = raw.network_settings.networks.unwrap_or_default().into_iter();
            let ends: Map<String, Value> = ends.map(|(name, end)| (name, place(&end, &raw.id))).collect();
            body.insert("NetworkingConfig".to_owned(), json!({ "EndpointsConfig": ends }));
        }
        body.insert("HostConfig".to_owned(), Value::Object(raw.host_config));
        body.retain(|_, value| !value.is_null());
        let snapshot = Self {
            identity,
            running: raw.state.running,
            stop_timeout: stop_timeout.unwrap_or(10),
            body: Value::Object(body),
        };
        // Better now than when it is needed.
        snapshot.request().map(|_| snapshot)
    }
}

/// What was asked for of a place on a network, without what Docker made of it.
fn place(end: &Value, id: &str) -> Value {
    let mut asked = Map::new();
    for name in ["IPAMConfig", "Links", "DriverOpts"] {
        asked.extend(end.get(name).filter(|value| !value.is_null()).map(|value| (name.to_owned(), value.clone())));
    }
    let aliases = end.get("Aliases").and_then(Value::as_array).into_iter().flatten();
    // Docker adds the beginning of the ID, which will be another one.
    let own = |alias: &&Value| !alias.as_str().is_some_and(|alias| id.starts_with(alias));
    let aliases: Vec<Value> = aliases.filter(own).cloned().collect();
    if !aliases.is_empty() {
        asked.insert("Aliases".to_owned(), Value::Array(aliases));
    }
    Value::Object(asked)
}

impl Docker {
    /// What a container was made with, to make it again; `None` when there is none of that name.
    ///
    /// # Errors
    /// The daemon does not answer in time, or tells of something that could not be asked for again.
    pub async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, Failure> {
        let what = format!("cannot inspect container {name}");
        let raw: Option<Raw> = ask(&what, self.client.inspect_container(name, None::<InspectContainerOptions>)).await?;
        raw.map(|raw| Snapshot::of(raw).map_err(|failure| failure.within(what))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_tells_can_be_asked_for_again() {
        let raw = json!({
            "Id": "aabbccddeeff00112233",
            "Image": "sha256:1234",
            "State": { "Running": true },
            "Config": {
                "Hostname": "web1", "Domainname": "", "Image": "team/web:1", "Cmd": ["sleep", "1"], "Env": ["A=b"],
                "ExposedPorts": { "80/tcp": {} }, "Entrypoint": null, "OnBuild": null, "StopTimeout": 3,
                "Labels": { "fanli.spec": "{\"image\":\"team/web:1\"}", "team": "web" },
            },
            "HostConfig": {
                "NetworkMode": "lan", "Memory": 67_108_864, "RestartPolicy": { "Name": "unless-stopped", "MaximumRetryCount": 0 },
                "Mounts": [{ "Type": "bind", "Source": "/data", "Target": "/conf", "ReadOnly": true }],
                "ConsoleSize": [0, 0], "Isolation": "", "Binds": null,
            },
            "NetworkSettings": { "Networks": { "lan": {
                "IPAMConfig": { "IPv4Address": "10.0.0.5" }, "Links": null, "Aliases": ["web", "aabbccddeeff"],
                "MacAddress": "02:42:0a:00:00:05", "IPAddress": "10.0.0.5",
            } } },
        });
        let snapshot = Snapshot::of(serde_json::from_value(raw).unwrap()).unwrap();
        assert_eq!((snapshot.running, snapshot.stop_timeout), (true, 3));
        let spec = r#"{"image":"team/web:1"}"#;
        assert_eq!(snapshot.identity, Identity { image_id: "sha256:1234".to_owned(), spec: Some(spec.to_owned()) });
        assert_eq!(snapshot.identity.image(), "team/web:1");
        // Also after it was written down.
        let text = serde_json::to_string(&snapshot).unwrap();
        let again: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(again, snapshot);
        let body = serde_json::to_value(again.request().unwrap()).unwrap();
        assert_eq!(body.get("Image"), Some(&json!("sha256:1234")));
        assert_eq!(body.pointer("/HostConfig/Mounts/0/Source"), Some(&json!("/data")));
        assert_eq!(body.pointer("/ExposedPorts"), Some(&json!({ "80/tcp": {} })));
        let end = body.pointer("/NetworkingConfig/EndpointsConfig/lan").unwrap();
        assert_eq!(end.pointer("/IPAMConfig/IPv4Address"), Some(&json!("10.0.0.5")));
        assert_eq!(end.get("Aliases"), Some(&json!(["web"])));
        assert_eq!(end.get("MacAddress"), None);
    }
}
