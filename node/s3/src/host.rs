//! Virtual-host style: which bucket a `Host` names. Only subdomains of configured domains name one; every other host
//! means path style, so that an address or an unknown alias never becomes a bucket by accident.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// The domains that this gateway answers for, lower case, without ports.
#[derive(Debug, Clone)]
pub(crate) struct Domains(Vec<String>);

impl Domains {
    pub fn new(domains: &[String]) -> Self {
        Self(domains.iter().map(|domain| domain.trim_matches('.').to_ascii_lowercase()).collect())
    }

    /// The bucket that `host` names, as it stands there.
    pub fn bucket<'a>(&self, host: &'a str) -> Option<&'a str> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.0.iter().find_map(|domain| {
            let at = name.len().checked_sub(domain.len() + 1)?;
            let (bucket, rest) = (name.get(..at)?, name.get(at..)?);
            let matches = rest.starts_with('.') && rest[1..].eq_ignore_ascii_case(domain);
            (matches && !bucket.is_empty()).then_some(bucket)
        })
    }
}

impl S3Host for Domains {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let parsed = VirtualHost::new(host);
        Ok(match self.bucket(host) {
            Some(bucket) => parsed.with_bucket(bucket.to_ascii_lowercase()), // host names have no case
            None => parsed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_subdomains_of_ours_name_buckets() {
        let domains = Domains::new(&["s3.example.com".to_owned(), "Other.org.".to_owned()]);
        for (host, bucket) in [
            ("photos.s3.example.com", Some("photos")),
            ("photos.s3.example.com:9000", Some("photos")),
            ("a.b.S3.Example.com", Some("a.b")),
            ("x.other.org", Some("x")),
            ("s3.example.com", None),
            (".s3.example.com", None),
            ("photoss3.example.com", None),
            ("example.com", None),
            ("localhost:9000", None),
            ("127.0.0.1:9000", None),
            ("é.other.org", Some("é")),
            ("", None),
        ] {
            assert_eq!(domains.bucket(host), bucket, "{host:?}");
        }
    }
}
