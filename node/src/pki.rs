//! The cluster's own certificates: a CA made at `meridian init`, and one identity a node under it.
//!
//! A node's certificate names it as `NODE.DC.meridian`; peers check that name against the node they meant to
//! reach, so that an address may be a proxy's. The CA's key stays in the cluster directory, for later nodes.

use anyhow::{Context, Result};
use meridian_types::{DatacenterName, NodeName};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Years that certificates hold. Renewal is a matter of writing new files and restarting the node.
const VALID_YEARS: i32 = 10;

pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

pub struct NodeCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    /// A new CA for a cluster.
    pub fn create(cluster_name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("make the CA's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("meridian cluster {cluster_name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params);
        let certificate = params.self_signed(&key).context("sign the CA's certificate")?;
        Ok(Self { certificate_pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for the ports for clients, which knows them by `names`: addresses or DNS names. It is no node's: other
    /// nodes take it neither from a client nor from a server.
    pub fn issue_for_clients(&self, names: Vec<String>) -> Result<NodeCertificate> {
        let key = KeyPair::generate().context("make a key for the client ports")?;
        let mut params = CertificateParams::new(names).context("name the client ports")?;
        params.distinguished_name = name("meridian client ports");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true; // some clients demand it (RFC 5280, section 4.2.1.1)
        set_validity(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).context("sign the client ports' certificate")?;
        Ok(NodeCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The identity of one node, for both ends of a connection.
    pub fn issue(&self, node: &NodeName, datacenter: &DatacenterName) -> Result<NodeCertificate> {
        let key = KeyPair::generate().context("make a node's key")?;
        let server_name = meridian_wire::tls::server_name(node, datacenter);
        let mut params = CertificateParams::new(vec![server_name.clone()]).context("name a node")?;
        params.distinguished_name = name(&server_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).context("sign a node's certificate")?;
        Ok(NodeCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn set_validity(params: &mut CertificateParams) {
    let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    // A day of the past year, so that a node whose clock lags a little still accepts it.
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + VALID_YEARS, 1, 1);
}
