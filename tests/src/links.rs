//! A cluster whose datacenters reach each other through links that a test can cut, slow down and break.
//!
//! Each node's configuration names, in place of the addresses of other datacenters' nodes, those of proxies in the
//! test's own process. Every ordered pair of datacenters has its own, so that who asks whom can be told apart; an
//! answer travels backward on the link that it was asked over. Clients and the command line go past them.
//!
//! Invariants: nothing that crosses between datacenters passes beside a proxy, and nothing else passes through one.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use meridian_chaos::link_proxy::{Direction, Flow, LinkControl, LinkProxy};

use crate::cluster::{Cluster, ClusterOptions};

/// The addresses of a node that other datacenters connect to.
const CROSSING: [&str; 2] = ["grpc", "bulk"];

/// A running cluster and the links between its datacenters.
pub struct LinkedCluster {
    pub cluster: Cluster,
    /// By who asks and who is asked.
    links: BTreeMap<(String, String), Vec<LinkProxy>>,
}

impl LinkedCluster {
    /// Makes a cluster of nodes with links, starts it and waits until every datacenter serves.
    ///
    /// # Errors
    /// When a port can't be had or a node does not start.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        Self::start_prepared(options, |_| Ok(())).await
    }

    /// The same, once `prepare` has changed its files.
    ///
    /// # Errors
    /// When it fails, a port can't be had or a node does not start.
    pub async fn start_prepared(options: ClusterOptions, prepare: impl FnOnce(&Cluster) -> Result<()>) -> Result<Self> {
        let mut cluster = Cluster::create(options)?;
        prepare(&cluster)?;
        let mut links = BTreeMap::new();
        for asking in cluster.datacenters() {
            let path = cluster.node_directory(&asking).join("node.toml");
            let mut file = read_node_file(&path)?;
            for datacenter in tables(&mut file, "datacenter")? {
                let asked = text(datacenter, "name")?;
                if asked == asking {
                    continue;
                }
                let proxies: &mut Vec<LinkProxy> = links.entry((asking.clone(), asked)).or_default();
                for node in tables(datacenter, "node")? {
                    for plane in CROSSING {
                        let proxy = LinkProxy::start(text(node, plane)?.parse()?).await?;
                        node.insert(plane.to_owned(), proxy.address().to_string().into());
                        proxies.push(proxy);
                    }
                }
            }
            std::fs::write(&path, toml::to_string(&file)?)?;
        }
        cluster.run().await?;
        Ok(Self { cluster, links })
    }

    /// The links over which `asking` asks `asked`.
    pub fn asks(&self, asking: &str, asked: &str) -> impl Iterator<Item = &LinkControl> {
        let proxies = self.links.get(&(asking.to_owned(), asked.to_owned()));
        proxies.expect("two datacenters of this cluster").iter().map(LinkProxy::control)
    }

    /// All links between two datacenters, whoever asks.
    pub fn between(&self, one: &str, other: &str) -> impl Iterator<Item = &LinkControl> {
        self.asks(one, other).chain(self.asks(other, one))
    }

    /// All links that begin or end at a datacenter.
    pub fn around(&self, datacenter: &str) -> impl Iterator<Item = &LinkControl> {
        let touches = move |(asking, asked): &(String, String)| asking == datacenter || asked == datacenter;
        self.links
            .iter()
            .filter(move |(pair, _)| touches(pair))
            .flat_map(|(_, proxies)| proxies)
            .map(LinkProxy::control)
    }

    pub fn all_links(&self) -> impl Iterator<Item = &LinkControl> {
        self.links.values().flatten().map(LinkProxy::control)
    }

    /// Every byte that one datacenter sends another vanishes, its questions and its answers alike.
    pub fn lose(&self, from: &str, to: &str) {
        self.asks(from, to).for_each(|link| link.set_flow(Direction::Forward, Flow::Lost));
        self.asks(to, from).for_each(|link| link.set_flow(Direction::Backward, Flow::Lost));
    }

    pub fn heal(&self) {
        self.all_links().for_each(LinkControl::heal);
    }
}

/// Cuts links so that both sides notice at once: what runs is broken, and nothing new is established.
pub fn sever<'a>(links: impl Iterator<Item = &'a LinkControl>) {
    for link in links {
        link.cut();
        link.reset();
    }
}

/// Changes a `[timing]` value of a datacenter's node; it counts from the node's next start.
///
/// # Errors
/// When its file can't be read or written.
pub fn set_timing(cluster: &Cluster, datacenter: &str, name: &str, value: i64) -> Result<()> {
    let path = cluster.node_directory(datacenter).join("node.toml");
    let mut file = read_node_file(&path)?;
    let timing = file.get_mut("timing").and_then(toml::Value::as_table_mut).context("a node file has [timing]")?;
    timing.insert(name.to_owned(), value.into()).with_context(|| format!("a node file has timing.{name}"))?;
    Ok(std::fs::write(&path, toml::to_string(&file)?)?)
}

fn read_node_file(path: &Path) -> Result<toml::Table> {
    toml::from_str(&std::fs::read_to_string(path)?).with_context(|| path.display().to_string())
}

/// The tables of a `[[name]]`.
fn tables<'a>(table: &'a mut toml::Table, name: &str) -> Result<impl Iterator<Item = &'a mut toml::Table> + use<'a>> {
    let array = table.get_mut(name).and_then(toml::Value::as_array_mut).with_context(|| format!("no [[{name}]]"))?;
    Ok(array.iter_mut().filter_map(toml::Value::as_table_mut))
}

fn text(table: &toml::Table, name: &str) -> Result<String> {
    Ok(table.get(name).and_then(toml::Value::as_str).with_context(|| format!("{name} is no text"))?.to_owned())
}
