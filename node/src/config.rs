//! A node's configuration: `node.toml`, read once at start, and the secrets beside it.
//!
//! Invariants: unknown keys are refused; every id, name and code is parsed into its type here, so that the rest
//! of the node only sees valid values; secrets that others can read are refused. Each error is one line that
//! names the field and the mend, and the process exits with 2.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use meridian_sigv4::ClusterKey;
use meridian_types::{ClusterId, DatacenterId, DatacenterName, NodeId, NodeName, ReplicaCode, limits};
use serde::{Deserialize, Serialize};

use crate::address::Address;

pub const CONFIG_VERSION: u32 = 1;
/// A real day.
const DAY_SECONDS: u64 = 24 * 3600;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Parse { path: PathBuf, message: String },
    #[error("{field}: {problem}; {mend}")]
    Field { field: String, problem: String, mend: String },
}

pub(crate) fn field(field: impl Into<String>, problem: impl Into<String>, mend: impl Into<String>) -> ConfigError {
    ConfigError::Field { field: field.into(), problem: problem.into(), mend: mend.into() }
}

/// `node.toml` as it stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// The format of this file.
    pub version: u32,
    pub cluster: ClusterSection,
    pub node: NodeSection,
    #[serde(default)]
    pub limits: LimitsSection,
    #[serde(default)]
    pub timing: TimingSection,
    #[serde(default)]
    pub replication: ReplicationSection,
    #[serde(default)]
    pub lifecycle: LifecycleSection,
    #[serde(default)]
    pub rest: RestSection,
    #[serde(default)]
    pub encryption: EncryptionSection,
    #[serde(default)]
    pub s3: S3Section,
    /// TLS at the ports for clients (S3 and REST); without it they speak plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tls: Option<ClientTlsSection>,
    /// All datacenters with their nodes, this one included. Addresses of other datacenters' nodes may be those
    /// of a proxy that stands between.
    #[serde(rename = "datacenter")]
    pub datacenters: Vec<DatacenterSection>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    pub name: String,
    pub id: String,
    /// P: fixed for the life of the cluster, the same in every datacenter.
    pub partitions: u16,
    /// The replica code of volumes for buckets that have none of their own.
    pub replication: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    pub name: String,
    /// Where volumes and the metadata store live; relative to this file.
    pub data: PathBuf,
    /// A directory with `ca.pem`, `node.pem` and `node.key`; relative to this file.
    pub tls: PathBuf,
    /// Access keys and the gossip key; readable by its owner only; relative to this file.
    pub secrets: PathBuf,
}

/// Limits of one node, in MiB or in pieces.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Block cache of the metadata store; shared by all nodes of one process.
    pub cache_mib: usize,
    /// Write buffers of the metadata store; shared by all nodes of one process.
    pub write_buffers_mib: usize,
    /// Object bytes in flight between clients and volumes.
    pub chunk_budget_mib: usize,
    /// Connections at the S3 port.
    pub s3_connections_max: usize,
    /// TLS handshakes in progress at each port for clients.
    pub handshakes_max: usize,
    /// Size at which a volume is sealed and another one taken.
    pub volume_size_mib: u64,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            cache_mib: 64,
            write_buffers_mib: 64,
            chunk_budget_mib: 96,
            s3_connections_max: 4096,
            handshakes_max: 256,
            volume_size_mib: limits::VOLUME_SIZE_MAX >> 20,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimingSection {
    /// A remote stamp further ahead is held, and a local clock further off refuses writes.
    pub clock_skew_ms_max: u64,
    pub raft_heartbeat_ms: u64,
    pub raft_election_ms_min: u64,
    pub raft_election_ms_max: u64,
    pub gossip_interval_ms: u64,
    /// A datacenter further behind than this is shown with a warning, further than the second as critical.
    pub lag_warn_ms: u64,
    pub lag_critical_ms: u64,
    /// A node that is silent for so long has its mirrors given to others, which fetch them anew.
    pub repair_after_ms: u64,
    /// How long a request with `x-meridian-after` waits for what its session has seen elsewhere.
    pub session_wait_ms: u64,
    /// How long an answer to `x-meridian-ack: remote` waits for the word of other datacenters.
    pub remote_ack_wait_ms: u64,
    /// Added to this node's wall clock; for tests of skewed clocks.
    pub clock_offset_ms: i64,
}

impl Default for TimingSection {
    fn default() -> Self {
        Self {
            clock_skew_ms_max: limits::CLOCK_SKEW_MS_MAX_DEFAULT,
            // A leader that is gone is missed after at most 1100 + 1100 ms: writes go on within 3 s.
            raft_heartbeat_ms: 300,
            raft_election_ms_min: 700,
            raft_election_ms_max: 1100,
            gossip_interval_ms: 1000,
            lag_warn_ms: 10_000,
            lag_critical_ms: 60_000,
            repair_after_ms: 60_000,
            session_wait_ms: 5_000,
            remote_ack_wait_ms: 10_000,
            clock_offset_ms: 0,
        }
    }
}

/// What this node takes from each other datacenter.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicationSection {
    /// Bytes a second of both lanes from each other datacenter; none for as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_bytes_per_second_max: Option<u64>,
}

/// How lifecycle rules are carried out.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LifecycleSection {
    /// How long a day of a rule is; shorter ones are for tests.
    pub day_seconds: u64,
}

impl Default for LifecycleSection {
    fn default() -> Self {
        Self { day_seconds: DAY_SECONDS }
    }
}

/// The S3 port.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Section {
    /// Domains whose subdomains are bucket names (virtual-host style), without ports.
    pub domains: Vec<String>,
}

/// The REST port.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestSection {
    /// Who may write blobs.
    pub blob_auth: BlobAuthSetting,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobAuthSetting {
    /// Whoever has a signature or the token of the assignment.
    #[default]
    Token,
    /// Whoever reaches the port.
    Open,
}

/// TLS at the ports for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTlsSection {
    /// The server's certificate and those between it and its CA, in PEM form; relative to this file.
    pub certificate: PathBuf,
    /// Its private key in PEM form, readable by its owner only; relative to this file.
    pub key: PathBuf,
}

/// Server-side encryption of objects.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncryptionSection {
    /// The list of named keys that `meridian kms` keeps; relative to this file. Without one there is the store's own key.
    pub keys: PathBuf,
    /// Take keys of customers (SSE-C) over plain HTTP: only where nothing listens between clients and this node.
    pub customer_keys_over_http: bool,
    /// Add a key to the list when it is first named; `meridian dev` does.
    #[serde(skip)]
    pub make_keys: bool,
}

impl Default for EncryptionSection {
    fn default() -> Self {
        Self { keys: "kms.toml".into(), customer_keys_over_http: false, make_keys: false }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatacenterSection {
    pub id: u8,
    pub name: String,
    #[serde(rename = "node")]
    pub nodes: Vec<MemberSection>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSection {
    pub id: u32,
    pub name: String,
    pub rack: String,
    pub s3: Address,
    pub rest: Address,
    pub grpc: Address,
    pub bulk: Address,
    pub gossip: Address,
}

/// One node of the cluster, checked.
#[derive(Debug, Clone)]
pub struct Member {
    pub id: NodeId,
    pub name: NodeName,
    pub rack: String,
    pub s3: Address,
    pub rest: Address,
    pub grpc: Address,
    pub bulk: Address,
    pub gossip: Address,
}

/// One datacenter, checked.
#[derive(Debug, Clone)]
pub struct Datacenter {
    pub id: DatacenterId,
    pub name: DatacenterName,
    pub nodes: Vec<Member>,
}

impl Datacenter {
    /// Its nodes as placement sees them.
    pub fn members(&self) -> Vec<meridian_topology::Member> {
        let member = |node: &Member| meridian_topology::Member { node: node.id, rack: node.rack.clone() };
        self.nodes.iter().map(member).collect()
    }
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub partitions: u16,
    pub code: ReplicaCode,
    pub datacenter: Datacenter,
    pub member: Member,
    pub others: Vec<Datacenter>,
    pub data: PathBuf,
    pub tls: PathBuf,
    pub limits: LimitsSection,
    pub timing: TimingSection,
    pub replication: ReplicationSection,
    pub lifecycle: LifecycleSection,
    pub rest: RestSection,
    pub encryption: EncryptionSection,
    pub s3: S3Section,
    pub client_tls: Option<ClientTlsSection>,
    pub secrets: Secrets,
}

/// `secrets.toml`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    pub access_key: String,
    pub secret_key: String,
    /// 64 hex digits: seals gossip datagrams.
    pub gossip_key: String,
    /// 64 hex digits, the same in every datacenter: seals the users' secret keys and session tokens.
    pub cluster_key: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    pub fn gossip_key_bytes(&self) -> Result<[u8; 32], ConfigError> {
        let mut key = [0; 32];
        hex::decode_to_slice(self.gossip_key.as_bytes(), &mut key)
            .map_err(|_| field("gossip_key", "is not 64 hex digits", "take it from another node of the cluster"))?;
        Ok(key)
    }

    /// What seals secret keys and tokens.
    ///
    /// # Errors
    /// When it is no key.
    pub fn cluster_key_sealer(&self) -> Result<ClusterKey, ConfigError> {
        ClusterKey::from_hex(&self.cluster_key)
            .map_err(|_| field("cluster_key", "is not 64 hex digits", "take it from another node of the cluster"))
    }
}

impl NodeConfig {
    /// Reads and checks `node.toml` and its secrets.
    ///
    /// # Errors
    /// One line that names the field and the mend.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let file: NodeFile = parse(path, &text)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let secrets_path = base.join(&file.node.secrets);
        check_private(&secrets_path)?;
        let secrets: Secrets = parse(&secrets_path, &read(&secrets_path)?)?;
        Self::check(file, base, secrets)
    }

    /// Checks a configuration whose paths are relative to `base`.
    pub fn check(file: NodeFile, base: &Path, secrets: Secrets) -> Result<Self, ConfigError> {
        if file.version != CONFIG_VERSION {
            return Err(field(
                "version",
                format!("is {}, this program knows {CONFIG_VERSION}", file.version),
                "run the version of meridian that wrote it, or write it anew with `meridian init`",
            ));
        }
        let cluster =
            file.cluster.id.parse().map_err(|e| field("cluster.id", format!("{e}"), "copy it from another node"))?;
        if file.replication.rate_bytes_per_second_max == Some(0) {
            return Err(field(
                "replication.rate_bytes_per_second_max",
                "is 0, so nothing would ever come",
                "write at least 1, or leave it out for no cap",
            ));
        }
        if file.lifecycle.day_seconds == 0 || file.lifecycle.day_seconds > DAY_SECONDS {
            return Err(field(
                "lifecycle.day_seconds",
                format!("{} is outside 1..={DAY_SECONDS}", file.lifecycle.day_seconds),
                "leave it out for real days",
            ));
        }
        if file.cluster.partitions == 0 || file.cluster.partitions > limits::PARTITIONS_MAX {
            return Err(field(
                "cluster.partitions",
                format!("{} is outside 1..={}", file.cluster.partitions, limits::PARTITIONS_MAX),
                "use the number the cluster was created with",
            ));
        }
        let code: ReplicaCode = file
            .cluster
            .replication
            .parse()
            .map_err(|e| field("cluster.replication", format!("{e}"), "write one such as 000, 100 or 200"))?;
        if file.timing.lag_warn_ms > file.timing.lag_critical_ms {
            return Err(field(
                "timing.lag_warn_ms",
                format!("{} is above timing.lag_critical_ms", file.timing.lag_warn_ms),
                "warn before it is critical",
            ));
        }
        let datacenters = check_datacenters(&file.datacenters)?;
        if usize::from(code.other_datacenters()) >= datacenters.len() {
            return Err(field(
                "cluster.replication",
                format!(
                    "{code} needs {} other datacenters; there are {}",
                    code.other_datacenters(),
                    datacenters.len() - 1
                ),
                "lower its first digit or add datacenters",
            ));
        }
        let (datacenter, member) = datacenters
            .iter()
            .find_map(|dc| dc.nodes.iter().find(|n| n.name.as_str() == file.node.name).map(|n| (dc.clone(), n.clone())))
            .ok_or_else(|| {
                field(
                    "node.name",
                    format!("{:?} is in no [[datacenter.node]]", file.node.name),
                    "add the node to its datacenter",
                )
            })?;
        let others = datacenters.into_iter().filter(|dc| dc.id != datacenter.id).collect();
        secrets.gossip_key_bytes()?;
        secrets.cluster_key_sealer()?;
        Ok(Self {
            cluster,
            cluster_name: file.cluster.name,
            partitions: file.cluster.partitions,
            code,
            datacenter,
            member,
            others,
            data: base.join(&file.node.data),
            tls: base.join(&file.node.tls),
            limits: file.limits,
            replication: file.replication,
            lifecycle: file.lifecycle,
            rest: file.rest,
            s3: file.s3,
            encryption: EncryptionSection { keys: base.join(&file.encryption.keys), ..file.encryption },
            client_tls: file
                .client_tls
                .map(|tls| ClientTlsSection { certificate: base.join(tls.certificate), key: base.join(tls.key) }),
            timing: file.timing,
            secrets,
        })
    }
}

fn check_datacenters(sections: &[DatacenterSection]) -> Result<Vec<Datacenter>, ConfigError> {
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut sockets: BTreeMap<Address, String> = BTreeMap::new();
    let mut datacenters = Vec::new();
    for section in sections {
        let at = format!("datacenter {:?}", section.name);
        let id = DatacenterId::new(section.id).map_err(|e| field(&at, format!("{e}"), "give it an id in 1..=254"))?;
        let name: DatacenterName = section.name.parse().map_err(|e| field(&at, format!("{e}"), "rename it"))?;
        if !ids.insert(id) || !names.insert(section.name.clone()) {
            return Err(field(&at, "its id or name stands twice", "give each datacenter its own"));
        }
        if section.nodes.is_empty() {
            return Err(field(&at, "has no node", "add a [[datacenter.node]]"));
        }
        let mut node_ids = BTreeSet::new();
        let mut nodes = Vec::new();
        for node in &section.nodes {
            let at = format!("node {:?}", node.name);
            let name: NodeName = node.name.parse().map_err(|e| field(&at, format!("{e}"), "rename it"))?;
            if node.id == 0 || !node_ids.insert(node.id) || !names.insert(node.name.clone()) {
                return Err(field(&at, "its id or name stands twice, or its id is 0", "give each node its own"));
            }
            for address in [&node.s3, &node.rest, &node.grpc, &node.bulk] {
                if let Some(other) = sockets.insert(address.clone(), node.name.clone()) {
                    return Err(field(&at, format!("{address} is also used by node {other:?}"), "choose a free port"));
                }
            }
            nodes.push(Member {
                id: NodeId(node.id),
                name,
                rack: node.rack.clone(),
                s3: node.s3.clone(),
                rest: node.rest.clone(),
                grpc: node.grpc.clone(),
                bulk: node.bulk.clone(),
                gossip: node.gossip.clone(),
            });
        }
        datacenters.push(Datacenter { id, name, nodes });
    }
    Ok(datacenters)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        let message = format!("line {line}: {}; mend the file or write it anew with `meridian init`", error.message());
        ConfigError::Parse { path: path.to_owned(), message }
    })
}

fn check_private(path: &Path) -> Result<(), ConfigError> {
    let metadata = std::fs::metadata(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(field("node.secrets", format!("{} can be read by others", path.display()), "chmod 600 it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32, name: &str, port: u16) -> MemberSection {
        let address = |n| Address::new("127.0.0.1", port + n).unwrap();
        MemberSection {
            id,
            name: name.into(),
            rack: "r1".into(),
            s3: address(0),
            rest: address(1),
            grpc: address(2),
            bulk: address(3),
            gossip: address(4),
        }
    }

    fn file() -> NodeFile {
        NodeFile {
            version: 1,
            cluster: ClusterSection { name: "t".into(), id: "0".repeat(32), partitions: 4, replication: "100".into() },
            node: NodeSection {
                name: "dc-a-1".into(),
                data: "data".into(),
                tls: "tls".into(),
                secrets: "secrets.toml".into(),
            },
            limits: LimitsSection::default(),
            replication: ReplicationSection::default(),
            lifecycle: LifecycleSection::default(),
            rest: RestSection::default(),
            encryption: EncryptionSection::default(),
            s3: S3Section::default(),
            client_tls: None,
            timing: TimingSection::default(),
            datacenters: vec![
                DatacenterSection { id: 1, name: "dc-a".into(), nodes: vec![member(1, "dc-a-1", 9000)] },
                DatacenterSection { id: 2, name: "dc-b".into(), nodes: vec![member(1, "dc-b-1", 9100)] },
            ],
        }
    }

    fn secrets() -> Secrets {
        Secrets {
            access_key: "a".into(),
            secret_key: "s".into(),
            gossip_key: "00".repeat(32),
            cluster_key: "01".repeat(32),
        }
    }

    fn refusal(change: impl FnOnce(&mut NodeFile)) -> String {
        let mut file = file();
        change(&mut file);
        NodeConfig::check(file, Path::new("/x"), secrets()).unwrap_err().to_string()
    }

    #[test]
    fn a_good_file_is_taken_and_survives_a_round_trip() {
        let text = toml::to_string(&file()).unwrap();
        let config = NodeConfig::check(toml::from_str(&text).unwrap(), Path::new("/x"), secrets()).unwrap();
        assert_eq!((config.datacenter.id.get(), config.others.len()), (1, 1));
        assert_eq!(config.data, Path::new("/x/data"));
    }

    #[test]
    fn each_mistake_is_named_with_its_mend() {
        assert!(refusal(|f| f.version = 9).contains("version"));
        assert!(refusal(|f| f.cluster.replication = "200".into()).contains("needs 2 other datacenters"));
        assert!(refusal(|f| f.timing.lag_warn_ms = 60_001).contains("timing.lag_warn_ms"));
        assert!(refusal(|f| f.cluster.replication = "x".into()).contains("cluster.replication"));
        assert!(refusal(|f| f.lifecycle.day_seconds = 0).contains("lifecycle.day_seconds"));
        assert!(refusal(|f| f.cluster.partitions = 0).contains("cluster.partitions"));
        assert!(refusal(|f| f.datacenters[1].id = 1).contains("dc-b"));
        assert!(refusal(|f| f.datacenters[1].id = 0).contains("1..=254"));
        assert!(refusal(|f| f.datacenters[1].nodes[0].s3 = f.datacenters[0].nodes[0].s3.clone()).contains("also used"));
        assert!(refusal(|f| f.node.name = "nobody".into()).contains("node.name"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = toml::to_string(&file()).unwrap().replace("[cluster]", "[cluster]\nshards = 3");
        let error = parse::<NodeFile>(Path::new("node.toml"), &text).unwrap_err().to_string();
        assert!(error.contains("shards") && error.contains("line"), "{error}");
    }

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.toml");
        std::fs::write(&path, toml::to_string(&secrets()).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(check_private(&path).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        check_private(&path).unwrap();
    }
}
