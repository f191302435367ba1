//! What one node asks of another about a volume: a path and a query at the bulk port, see docs/formats/replica-calls.md.
//!
//! ```text
//! POST /v1/replica/VERB?cluster=HEX&datacenter=N&from=NODE&to=NODE&volume=N&generation=N&epoch=N&…
//! ```
//!
//! 200 with the answer, or 409 with a `Refusal` as JSON. Every call names the cluster, the datacenter, both nodes, and the
//! volume's generation and epoch; what differs from the served side's is refused by name.

use std::collections::BTreeMap;
use std::fmt::Write;

use meridian_types::{ClusterId, Cookie, DatacenterId, Epoch, FileGeneration, NeedleKey, NodeId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::protocol::Session;

/// The routes of this crate at the bulk port.
pub const PATH_PREFIX: &str = "/v1/replica/";

/// A call's envelope and what is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) cluster: ClusterId,
    pub(crate) datacenter: DatacenterId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) volume: VolumeId,
    pub(crate) generation: FileGeneration,
    pub(crate) epoch: Epoch,
    pub(crate) verb: Verb,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// The volume's file is to be made; it is still being created.
    Create,
    /// A life of the primary begins; answered with the durable end.
    Begin {
        session: Session,
    },
    /// The body is a batch for `offset`; answered with the durable end.
    Write {
        session: Session,
        offset: u64,
        committed: u64,
    },
    Tell {
        session: Session,
        committed: u64,
    },
    /// The body is a needle's data, to the primary; answered with `AppendedAnswer`.
    Append {
        key: NeedleKey,
        cookie: Cookie,
    },
    /// Answered with the bytes.
    Read {
        key: NeedleKey,
        cookie: Cookie,
        start: u32,
        end: u32,
    },
    /// Answered with the size.
    Size {
        key: NeedleKey,
        cookie: Cookie,
    },
    Delete {
        key: NeedleKey,
        cookie: Cookie,
    },
    /// Answered with committed bytes of the file, as they are.
    Range {
        offset: u64,
        length: u64,
    },
    /// Answered with `FenceReport`. The epoch of the call is the new one.
    Fence,
    /// The volume ends at `length` for ever.
    End {
        length: u64,
    },
}

/// An acknowledged append, as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AppendedAnswer {
    pub(crate) end_offset: u64,
    pub(crate) stamp: u64,
}

impl Call {
    pub(crate) fn path(&self) -> String {
        let (name, arguments): (&str, Vec<(&str, u64)>) = match self.verb {
            Verb::Create => ("create", vec![]),
            Verb::Begin { session } => ("begin", vec![("session", session.0)]),
            Verb::Write { session, offset, committed } => {
                ("write", vec![("session", session.0), ("offset", offset), ("committed", committed)])
            }
            Verb::Tell { session, committed } => ("tell", vec![("session", session.0), ("committed", committed)]),
            Verb::Append { key, cookie } => ("append", vec![("key", key.0), ("cookie", cookie.0.into())]),
            Verb::Read { key, cookie, start, end } => (
                "read",
                vec![("key", key.0), ("cookie", cookie.0.into()), ("start", start.into()), ("end", end.into())],
            ),
            Verb::Size { key, cookie } => ("size", vec![("key", key.0), ("cookie", cookie.0.into())]),
            Verb::Delete { key, cookie } => ("delete", vec![("key", key.0), ("cookie", cookie.0.into())]),
            Verb::Range { offset, length } => ("range", vec![("offset", offset), ("length", length)]),
            Verb::Fence => ("fence", vec![]),
            Verb::End { length } => ("end", vec![("length", length)]),
        };
        let mut path = format!(
            "{PATH_PREFIX}{name}?cluster={}&datacenter={}&from={}&to={}&volume={}&generation={}&epoch={}",
            self.cluster, self.datacenter, self.from.0, self.to.0, self.volume, self.generation.0, self.epoch.0
        );
        for (name, value) in arguments {
            let _ = write!(path, "&{name}={value}");
        }
        path
    }

    /// # Errors
    /// `Refusal::Call` that names the field.
    pub(crate) fn parse(path: &str, query: &str) -> Result<Self, Refusal> {
        let fields = Fields(query.split('&').filter_map(|pair| pair.split_once('=')).collect());
        let name = path.strip_prefix(PATH_PREFIX).ok_or_else(|| Refusal::Call("no such path".to_owned()))?;
        let session = || fields.number("session").map(Session);
        let needle = || {
            let cookie = u32::try_from(fields.number("cookie")?).map_err(|_| bad("cookie"))?;
            Ok::<_, Refusal>((NeedleKey(fields.number("key")?), Cookie(cookie)))
        };
        let verb = match name {
            "create" => Verb::Create,
            "begin" => Verb::Begin { session: session()? },
            "write" => Verb::Write {
                session: session()?,
                offset: fields.number("offset")?,
                committed: fields.number("committed")?,
            },
            "tell" => Verb::Tell { session: session()?, committed: fields.number("committed")? },
            "append" => needle().map(|(key, cookie)| Verb::Append { key, cookie })?,
            "read" => {
                let (key, cookie) = needle()?;
                let edge = |name| fields.number(name).and_then(|edge| u32::try_from(edge).map_err(|_| bad(name)));
                Verb::Read { key, cookie, start: edge("start")?, end: edge("end")? }
            }
            "size" => needle().map(|(key, cookie)| Verb::Size { key, cookie })?,
            "delete" => needle().map(|(key, cookie)| Verb::Delete { key, cookie })?,
            "range" => Verb::Range { offset: fields.number("offset")?, length: fields.number("length")? },
            "fence" => Verb::Fence,
            "end" => Verb::End { length: fields.number("length")? },
            _ => return Err(Refusal::Call("no such verb".to_owned())),
        };
        let small = |name| fields.number(name).and_then(|number| u32::try_from(number).map_err(|_| bad(name)));
        let datacenter = u8::try_from(fields.number("datacenter")?).map_err(|_| bad("datacenter"))?;
        Ok(Self {
            cluster: fields.text("cluster")?.parse().map_err(|_| bad("cluster"))?,
            datacenter: DatacenterId::new(datacenter).map_err(|_| bad("datacenter"))?,
            from: NodeId(small("from")?),
            to: NodeId(small("to")?),
            volume: VolumeId::from_raw(small("volume")?).map_err(|_| bad("volume"))?,
            generation: FileGeneration(small("generation")?),
            epoch: Epoch(fields.number("epoch")?.try_into().map_err(|_| bad("epoch"))?),
            verb,
        })
    }
}

struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl Fields<'_> {
    fn text(&self, name: &str) -> Result<&str, Refusal> {
        self.0.get(name).copied().ok_or_else(|| bad(name))
    }

    fn number(&self, name: &str) -> Result<u64, Refusal> {
        self.text(name)?.parse().map_err(|_| bad(name))
    }
}

fn bad(name: &str) -> Refusal {
    Refusal::Call(format!("its {name} is missing or none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: Verb) -> Call {
        Call {
            cluster: ClusterId([0xab; 16]),
            datacenter: DatacenterId::new(1).unwrap(),
            from: NodeId(1),
            to: NodeId(2),
            volume: VolumeId::from_raw(769).unwrap(),
            generation: FileGeneration(0),
            epoch: Epoch(3),
            verb,
        }
    }

    #[test]
    fn golden_path_and_round_trips() {
        let write = call(Verb::Write { session: Session(7), offset: 64, committed: 64 });
        assert_eq!(
            write.path(),
            format!(
                "/v1/replica/write?cluster={}&datacenter=1&from=1&to=2&volume=769&generation=0&epoch=3\
                 &session=7&offset=64&committed=64",
                ClusterId([0xab; 16])
            )
        );
        let (key, cookie, session) = (NeedleKey(u64::MAX), Cookie(9), Session(7));
        for verb in [
            write.verb,
            Verb::Create,
            Verb::Begin { session },
            Verb::Tell { session, committed: 9 },
            Verb::Append { key, cookie },
            Verb::Read { key, cookie, start: 1, end: u32::MAX },
            Verb::Size { key, cookie },
            Verb::Delete { key, cookie },
            Verb::Range { offset: 1, length: 2 },
            Verb::Fence,
            Verb::End { length: 5 },
        ] {
            let path = call(verb).path();
            let (path, query) = path.split_once('?').unwrap();
            assert_eq!(Call::parse(path, query), Ok(call(verb)));
            // Without any one of its fields it is refused by that field's name.
            for missing in query.split('&') {
                let rest: Vec<&str> = query.split('&').filter(|field| *field != missing).collect();
                let refusal = Call::parse(path, &rest.join("&")).unwrap_err();
                let name = missing.split_once('=').unwrap().0;
                assert_eq!(refusal, bad(name));
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        for (path, query) in [("/v1/replica/", ""), ("/v1/replica/write", "cluster=x"), ("/v2/replica/fence", "")] {
            assert!(matches!(Call::parse(path, query), Err(Refusal::Call(_))));
        }
    }
}
