//! The daemon's answers, as far as they are read.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawContainer {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) image: String,
    #[serde(default)]
    pub(super) restart_count: u64,
    pub(super) state: RawState,
    pub(super) config: RawConfig,
    pub(super) host_config: RawHost,
    #[serde(default)]
    pub(super) network_settings: RawNetwork,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub(super) struct RawState {
    pub(super) status: String,
    pub(super) pid: u32,
    pub(super) started_at: String,
    pub(super) exit_code: i64,
    pub(super) error: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawConfig {
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawHost {
    pub(super) network_mode: String,
    pub(super) memory: i64,
    pub(super) nano_cpus: i64,
    pub(super) restart_policy: RawRestart,
    pub(super) memory_swap: i64,
    pub(super) memory_reservation: i64,
    pub(super) cpu_shares: i64,
    pub(super) cpu_period: i64,
    pub(super) cpu_quota: i64,
    pub(super) cpuset_cpus: String,
    pub(super) cpuset_mems: String,
    pub(super) pids_limit: Option<i64>,
    pub(super) blkio_weight: i64,
    pub(super) mounts: Option<Vec<RawMount>>,
}

impl RawHost {
    /// The limits beside `memory`, `cpus` and `restart` that are not as fanli makes a container.
    pub(super) fn other_limits(&self) -> Vec<String> {
        let number = |name: &str, value: i64| (value != 0).then(|| format!("{name} {value}"));
        let text = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name} {value}"));
        // No swap on top of the memory. A kernel that does not count swap makes it -1.
        let swap = Some(self.memory_swap).filter(|swap| *swap > 0 && *swap != self.memory);
        let pids = self.pids_limit.filter(|most| *most > 0);
        let all = [
            swap.map(|swap| format!("memory-swap {swap}")),
            number("memory-reservation", self.memory_reservation),
            number("cpu-shares", self.cpu_shares),
            number("cpu-period", self.cpu_period),
            number("cpu-quota", self.cpu_quota),
            text("cpuset-cpus", &self.cpuset_cpus),
            text("cpuset-mems", &self.cpuset_mems),
            pids.map(|most| format!("pids-limit {most}")),
            number("blkio-weight", self.blkio_weight),
            number("restart-retries", self.restart_policy.maximum_retry_count),
        ];
        all.into_iter().flatten().collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawMount {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) target: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawRestart {
    pub(super) name: String,
    pub(super) maximum_retry_count: i64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawNetwork {
    pub(super) sandbox_key: String,
    pub(super) ports: Option<BTreeMap<String, Option<Vec<RawBinding>>>>,
    pub(super) networks: Option<BTreeMap<String, RawEndpoint>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawBinding {
    pub(super) host_port: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawEndpoint {
    #[serde(rename = "IPAddress")]
    pub(super) address: String,
}

/// `80/tcp` bound to 8080 as a pair; once, though a binding stands there for IPv4 and IPv6.
pub(super) fn published(ports: &BTreeMap<String, Option<Vec<RawBinding>>>) -> Vec<(u16, u16)> {
    let number = |text: &str| text.split('/').next().unwrap_or_default().parse::<u16>().ok();
    let mut found: Vec<(u16, u16)> = ports
        .iter()
        .flat_map(|(inside, bindings)| bindings.iter().flatten().map(move |binding| (inside, binding)))
        .filter_map(|(inside, binding)| Some((number(&binding.host_port)?, number(inside)?)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawImage {
    pub(super) id: String,
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) config: Option<RawConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawImageSummary {
    pub(super) id: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) created: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawContainerSummary {
    #[serde(rename = "ImageID")]
    pub(super) image_id: String,
    pub(super) names: Option<Vec<String>>,
    #[serde(default)]
    pub(super) mounts: Option<Vec<RawMountPoint>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RawMountPoint {
    pub(super) source: String,
    #[serde(rename = "RW")]
    pub(super) writable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawDockerNetwork {
    pub(super) name: String,
    #[serde(default)]
    pub(super) driver: String,
    #[serde(rename = "IPAM", default)]
    pub(super) ipam: Option<RawIpam>,
    #[serde(default)]
    pub(super) options: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawIpam {
    #[serde(default)]
    pub(super) config: Option<Vec<RawIpamConfig>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawIpamConfig {
    #[serde(default)]
    pub(super) subnet: Option<String>,
}
