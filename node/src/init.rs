//! `meridian init`: writes a cluster to a directory — a configuration, an identity and secrets for each node,
//! the CA, and `ready.json`, which tells clients where everything is.
//!
//! ```text
//! D/cluster.toml            what was asked for
//! D/ca/{ca.pem,ca.key}      the CA; its key is needed only to add nodes
//! D/ready.json              endpoints and the first access key
//! D/<dc>/<node>/node.toml   and secrets.toml, tls/{ca.pem,node.pem,node.key}, data/; with --tls client-tls/{cert.pem,key.pem}
//! ```
//!
//! Invariants: nothing that exists is overwritten; secrets and keys are readable by their owner only.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use meridian_topology::{Node, Policy, Tree};
use meridian_types::{DatacenterId, NodeId, ReplicaCode};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::client::UsageError;
use crate::config::{
    CONFIG_VERSION, ClientTlsSection, ClusterSection, DatacenterSection, EncryptionSection, LifecycleSection,
    LimitsSection, MemberSection, NodeFile, NodeSection, ReplicationSection, RestSection, S3Section, Secrets,
    TimingSection,
};
use crate::pki::Authority;

/// Ports of one datacenter: node j of datacenter i starts at `port_base + 100 * i + 10 * j`.
pub const DATACENTER_PORTS: u16 = 100;
pub const NODE_PORTS: u16 = 10;
/// Most nodes whose ports fit into a datacenter's hundred.
pub const NODES_MAX: u16 = DATACENTER_PORTS / NODE_PORTS;
pub const DATACENTERS_MAX: u16 = 26;

/// What a cluster is made from.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    pub directory: PathBuf,
    pub name: String,
    pub datacenters: u16,
    pub nodes: u16,
    pub racks: u16,
    pub port_base: u16,
    pub partitions: u16,
    /// None: every datacenter holds every byte.
    pub code: Option<ReplicaCode>,
    /// The host that nodes are reached at; `{node}` and `{datacenter}` stand for their names.
    pub address: String,
    /// The host that nodes of other datacenters reach them at, where it differs.
    pub wan_address: Option<String>,
    /// The host that `ready.json` names to clients, where it differs.
    pub public_address: Option<String>,
    pub limits: LimitsSection,
    pub rest: RestSection,
    /// Clients speak TLS.
    pub tls: bool,
}

/// `ready.json`: where a cluster's endpoints are. Field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadyFile {
    pub datacenters: Vec<ReadyDatacenter>,
    pub access_key: String,
    pub secret_key: String,
    /// The certificate of the CA that the endpoints' own are checked by, where these are `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadyDatacenter {
    pub name: String,
    pub region: String,
    pub s3: String,
    pub rest: String,
    pub nodes: Vec<ReadyNode>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadyNode {
    pub name: String,
    pub s3: String,
    pub rest: String,
}

/// The `node.toml` of every node of a cluster directory, in order of datacenter and node.
pub fn node_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let ready = read_ready(&directory.join("ready.json"))?;
    Ok(ready
        .datacenters
        .iter()
        .flat_map(|dc| dc.nodes.iter().map(|node| directory.join(&dc.name).join(&node.name).join("node.toml")))
        .collect())
}

pub fn read_ready(path: &Path) -> Result<ReadyFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a ready file", path.display()))
}

/// Writes a file whole or not at all.
pub fn write_atomically(path: &Path, content: &[u8], private: bool) -> Result<()> {
    // The parent of a bare file name is the empty path, which can't be opened.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let partial = path.with_extension("partial");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(if private { 0o600 } else { 0o644 })
        .open(&partial)
        .with_context(|| format!("create {}", partial.display()))?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(|| format!("write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("name {}", path.display()))?;
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", parent.display()))
}

impl ClusterPlan {
    fn check(&self) -> Result<ReplicaCode> {
        if self.datacenters == 0 || self.datacenters > DATACENTERS_MAX {
            bail!("--datacenters {}: choose 1 to {DATACENTERS_MAX}", self.datacenters);
        }
        if self.nodes == 0 || self.nodes > NODES_MAX {
            bail!("--nodes {}: choose 1 to {NODES_MAX}", self.nodes);
        }
        if self.racks == 0 || self.racks > self.nodes {
            bail!("--racks {}: choose 1 to the number of nodes ({})", self.racks, self.nodes);
        }
        if u32::from(self.port_base) + u32::from(DATACENTER_PORTS) * u32::from(self.datacenters) > 65_536 {
            bail!("--port-base {}: the ports of {} datacenters do not fit above it", self.port_base, self.datacenters);
        }
        for datacenter in 0..self.datacenters {
            self.members(datacenter, &self.address)?;
            self.members(datacenter, self.wan_address())?;
        }
        let code = self.code.unwrap_or_else(|| ReplicaCode::every_datacenter(self.datacenters as u8));
        let members: BTreeSet<DatacenterId> =
            (1..=self.datacenters).map(|id| DatacenterId::new(id as u8)).collect::<Result<_, _>>()?;
        for (index, datacenter) in members.iter().enumerate() {
            let mut tree = Tree::default();
            tree.add_datacenter(*datacenter, Self::datacenter_name(index as u16).parse()?);
            for node in self.members(index as u16, &self.address)? {
                tree.add_node(*datacenter, &node.rack, NodeId(node.id), Node { live: true, free_bytes: 0 })?;
            }
            let policy = Policy::new(code, 0);
            let local = policy.select_local(&tree, *datacenter, None).map(drop);
            local
                .and_then(|()| policy.select_mirrors(&members, *datacenter, 0).map(drop))
                .map_err(|error| anyhow!("--replication {error}"))?;
        }
        Ok(code)
    }

    fn wan_address(&self) -> &str {
        self.wan_address.as_deref().unwrap_or(&self.address)
    }

    fn datacenter_name(index: u16) -> String {
        format!("dc-{}", char::from(b'a' + index as u8))
    }

    fn datacenter(&self, index: u16, host: &str) -> Result<DatacenterSection> {
        let (name, nodes) = (Self::datacenter_name(index), self.members(index, host)?);
        Ok(DatacenterSection { id: index as u8 + 1, name, nodes })
    }

    /// The nodes of a datacenter as those see them that reach them at `host`.
    fn members(&self, datacenter: u16, host: &str) -> Result<Vec<MemberSection>> {
        (0..self.nodes)
            .map(|node| {
                let base = self.port_base + DATACENTER_PORTS * datacenter + NODE_PORTS * node;
                let name = format!("{}-{}", Self::datacenter_name(datacenter), node + 1);
                let host = host.replace("{node}", &name);
                let host = host.replace("{datacenter}", &Self::datacenter_name(datacenter));
                let address = |offset: u16| Address::new(&host, base + offset);
                Ok(MemberSection {
                    id: u32::from(node) + 1,
                    name,
                    rack: format!("rack-{}", node % self.racks + 1),
                    s3: address(0)?,
                    rest: address(1)?,
                    grpc: address(2)?,
                    bulk: address(3)?,
                    gossip: address(4)?,
                })
            })
            .collect()
    }

    /// Writes the cluster.
    ///
    /// # Errors
    /// When the plan can't be met, or the directory already holds a cluster.
    pub fn write(&self) -> Result<ReadyFile> {
        let code = self.check().map_err(|error| UsageError(format!("{error:#}")))?;
        let directory = &self.directory;
        if directory.join("ready.json").exists() {
            let directory = directory.display();
            bail!(UsageError(format!("{directory} already holds a cluster; choose another directory or remove it")));
        }
        std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let authority = Authority::create(&self.name)?;
        std::fs::create_dir_all(directory.join("ca"))?;
        write_atomically(&directory.join("ca/ca.pem"), authority.certificate_pem().as_bytes(), false)?;
        write_atomically(&directory.join("ca/ca.key"), authority.key_pem().as_bytes(), true)?;

        let cluster = ClusterSection {
            name: self.name.clone(),
            id: hex::encode(random::<16>()),
            partitions: self.partitions,
            replication: code.to_string(),
        };
        let secrets = Secrets {
            access_key: format!("MRDN{}", hex::encode_upper(random::<8>())),
            secret_key: hex::encode(random::<20>()),
            gossip_key: hex::encode(random::<32>()),
            cluster_key: hex::encode(random::<32>()),
        };
        let inside = (0..self.datacenters).map(|index| self.datacenter(index, &self.address));
        let inside: Vec<DatacenterSection> = inside.collect::<Result<_>>()?;
        let outside = (0..self.datacenters).map(|index| self.datacenter(index, self.wan_address()));
        let outside: Vec<DatacenterSection> = outside.collect::<Result<_>>()?;
        for (index, datacenter) in inside.iter().enumerate() {
            // As this datacenter's nodes see the cluster: themselves from inside, the others over the WAN.
            let mut seen = outside.clone();
            seen[index] = datacenter.clone();
            for node in &datacenter.nodes {
                self.write_node(&authority, &cluster, &secrets, &seen, datacenter, node)?;
            }
        }
        let ready = self.ready_file(&inside, &secrets, authority.certificate_pem())?;
        // Written last: its presence says that the cluster is whole.
        write_atomically(&directory.join("ready.json"), &serde_json::to_vec_pretty(&ready)?, true)?;
        Ok(ready)
    }

    fn write_node(
        &self,
        authority: &Authority,
        cluster: &ClusterSection,
        secrets: &Secrets,
        datacenters: &[DatacenterSection],
        datacenter: &DatacenterSection,
        node: &MemberSection,
    ) -> Result<()> {
        let home = self.directory.join(&datacenter.name).join(&node.name);
        let tls = home.join("tls");
        std::fs::create_dir_all(&tls).with_context(|| format!("create {}", tls.display()))?;
        let identity = authority.issue(&node.name.parse()?, &datacenter.name.parse()?)?;
        write_atomically(&tls.join("ca.pem"), authority.certificate_pem().as_bytes(), false)?;
        write_atomically(&tls.join("node.pem"), identity.certificate_pem.as_bytes(), false)?;
        write_atomically(&tls.join("node.key"), identity.key_pem.as_bytes(), true)?;
        write_atomically(&home.join("secrets.toml"), toml::to_string(secrets)?.as_bytes(), true)?;
        let file = NodeFile {
            version: CONFIG_VERSION,
            cluster: cluster.clone(),
            node: NodeSection {
                name: node.name.clone(),
                data: "data".into(),
                tls: "tls".into(),
                secrets: "secrets.toml".into(),
            },
            limits: self.limits,
            timing: TimingSection::default(),
            replication: ReplicationSection::default(),
            lifecycle: LifecycleSection::default(),
            rest: self.rest,
            encryption: EncryptionSection::default(),
            s3: S3Section::default(),
            client_tls: self.tls.then(|| self.write_client_tls(authority, &home, node, datacenter)).transpose()?,
            datacenters: datacenters.to_vec(),
        };
        write_atomically(&home.join("node.toml"), toml::to_string(&file)?.as_bytes(), false)
    }

    /// A certificate for the ports for clients, in every name that these may know the node by.
    fn write_client_tls(
        &self,
        authority: &Authority,
        home: &Path,
        node: &MemberSection,
        datacenter: &DatacenterSection,
    ) -> Result<ClientTlsSection> {
        let named = |host: &str| host.replace("{node}", &node.name).replace("{datacenter}", &datacenter.name);
        let hosts = [Some(self.address.as_str()), self.wan_address.as_deref(), self.public_address.as_deref()];
        let mut names: BTreeSet<String> = hosts.into_iter().flatten().map(named).collect();
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let made = authority.issue_for_clients(names.into_iter().collect())?;
        let section = ClientTlsSection { certificate: "client-tls/cert.pem".into(), key: "client-tls/key.pem".into() };
        std::fs::create_dir_all(home.join("client-tls")).context("create client-tls")?;
        write_atomically(&home.join(&section.certificate), made.certificate_pem.as_bytes(), false)?;
        write_atomically(&home.join(&section.key), made.key_pem.as_bytes(), true)?;
        Ok(section)
    }

    fn ready_file(&self, datacenters: &[DatacenterSection], secrets: &Secrets, ca_pem: &str) -> Result<ReadyFile> {
        let scheme = if self.tls { "https" } else { "http" };
        let endpoint = |address: &Address| -> Result<String> {
            Ok(match &self.public_address {
                Some(host) => format!("{scheme}://{}", Address::new(host, address.port())?),
                None => format!("{scheme}://{}", address.reachable()),
            })
        };
        let datacenter = |dc: &DatacenterSection| -> Result<ReadyDatacenter> {
            let node = |node: &MemberSection| -> Result<ReadyNode> {
                Ok(ReadyNode { name: node.name.clone(), s3: endpoint(&node.s3)?, rest: endpoint(&node.rest)? })
            };
            let nodes: Vec<ReadyNode> = dc.nodes.iter().map(node).collect::<Result<_>>()?;
            let (s3, rest) = (nodes[0].s3.clone(), nodes[0].rest.clone());
            Ok(ReadyDatacenter { name: dc.name.clone(), region: dc.name.clone(), s3, rest, nodes })
        };
        let datacenters = datacenters.iter().map(datacenter).collect::<Result<_>>()?;
        Ok(ReadyFile {
            datacenters,
            access_key: secrets.access_key.clone(),
            secret_key: secrets.secret_key.clone(),
            ca_pem: self.tls.then(|| ca_pem.to_owned()),
        })
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    meridian_env::entropy::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    fn plan(directory: &Path) -> ClusterPlan {
        ClusterPlan {
            directory: directory.to_owned(),
            name: "test".into(),
            datacenters: 3,
            nodes: 1,
            racks: 1,
            port_base: 9000,
            partitions: 4,
            code: None,
            address: "127.0.0.1".into(),
            wan_address: None,
            public_address: None,
            limits: LimitsSection::default(),
            rest: RestSection::default(),
            tls: false,
        }
    }

    #[test]
    fn nodes_may_be_reached_by_name_and_clients_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let named = |address: &str| ClusterPlan {
            address: address.into(),
            wan_address: Some("{node}.wan.example".into()),
            public_address: Some("127.0.0.1".into()),
            ..plan(dir.path())
        };
        assert!(named("no host").write().unwrap_err().to_string().contains("write host:port"));
        let ready = named("{node}.{datacenter}.example").write().unwrap();
        assert_eq!(ready.datacenters[1].s3, "http://127.0.0.1:9100");
        let config = NodeConfig::load(&node_files(dir.path()).unwrap()[1]).unwrap();
        assert_eq!(config.member.grpc.to_string(), "dc-b-1.dc-b.example:9102");
        assert_eq!(config.others[0].nodes[0].bulk.to_string(), "dc-a-1.wan.example:9003");
    }

    #[test]
    fn a_written_cluster_loads_and_its_ports_lie_as_documented() {
        let dir = tempfile::tempdir().unwrap();
        let ready = plan(dir.path()).write().unwrap();
        assert_eq!(ready.datacenters[1].s3, "http://127.0.0.1:9100");
        assert_eq!(ready.datacenters[2].nodes[0].rest, "http://127.0.0.1:9201");
        let files = node_files(dir.path()).unwrap();
        assert_eq!(files.len(), 3);
        let config = NodeConfig::load(&files[2]).unwrap();
        assert_eq!((config.datacenter.name.as_str(), config.code.to_string().as_str()), ("dc-c", "200"));
        assert_eq!(config.secrets.access_key, ready.access_key);
        assert!(plan(dir.path()).write().unwrap_err().to_string().contains("already holds"));
    }

    #[test]
    fn tls_for_clients_is_made_where_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let ready = ClusterPlan { tls: true, ..plan(dir.path()) }.write().unwrap();
        assert_eq!(ready.datacenters[1].nodes[0].rest, "https://127.0.0.1:9101");
        assert!(ready.ca_pem.unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        for path in node_files(dir.path()).unwrap() {
            let section = NodeConfig::load(&path).unwrap().client_tls.unwrap();
            assert!(section.certificate.starts_with(dir.path()));
            crate::client_ports::ClientPorts::open(Some(&section)).unwrap().tls.unwrap();
        }
    }

    #[test]
    fn a_code_that_can_not_be_met_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |code: &str| {
            let plan = ClusterPlan { code: Some(code.parse().unwrap()), ..plan(dir.path()) };
            plan.write().unwrap_err().to_string()
        };
        assert!(refusal("300").contains("300 needs three copies in other datacenters; the cluster has two"));
        assert!(refusal("010").contains("010 needs a second rack in dc-a; it has one"));
        assert!(refusal("001").contains("001 needs a second node in any one rack of dc-a; it has one"));
    }

    #[test]
    fn several_nodes_stand_in_turn_in_the_racks_and_ports_follow_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let plan = ClusterPlan { nodes: 5, racks: 2, code: Some("111".parse().unwrap()), ..plan(dir.path()) };
        let ready = plan.write().unwrap();
        assert_eq!(ready.datacenters[1].nodes[4].s3, "http://127.0.0.1:9140");
        let files = node_files(dir.path()).unwrap();
        assert_eq!(files.len(), 15);
        let config = NodeConfig::load(&files[9]).unwrap();
        assert_eq!((config.member.name.as_str(), config.member.id), ("dc-b-5", NodeId(5)));
        let racks: Vec<_> = config.datacenter.nodes.iter().map(|node| node.rack.as_str()).collect();
        assert_eq!(racks, ["rack-1", "rack-2", "rack-1", "rack-2", "rack-1"]);
    }
}
