//! The primary of a volume: which batch goes where, and what is committed.
//!
//! It starts by asking each secondary to begin the session: only if all of them, and the primary's own file, end at the same
//! offset does the volume take appends; everything before that offset is then on all replicas, and so committed. Otherwise
//! something was in flight when the earlier life ended, and the volume is to be sealed.
//!
//! Invariants:
//! - `committed` ≤ what is durable here and on each secondary, ends at a batch's end, and never goes back.
//! - Nothing is committed after the primary was fenced or has failed: a fenced primary never acknowledges late (rule 1).
//! - Batches are sent, written and committed in their order; at most `WINDOW_BATCHES_MAX` and about `WINDOW_BYTES_MAX` bytes
//!   of them wait at once.

use std::collections::{BTreeMap, VecDeque};

use meridian_types::NodeId;

use super::{BEGIN_ATTEMPTS_MAX, WINDOW_BATCHES_MAX, WINDOW_BYTES_MAX};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The volume is to take appends.
    Start,
    /// The secondary has taken the session; so much is durable there. `attempt` is that of the `Begin`.
    Begun { node: NodeId, attempt: u32, end: u64 },
    /// The shell has placed a batch behind the last one, up to `end`.
    Placed { end: u64 },
    /// The batch that ends here is durable on the primary.
    Synced { end: u64 },
    /// The batch that ends here is durable on the secondary, with all before it.
    Acknowledged { node: NodeId, end: u64 },
    /// The secondary does not know the session: it was restarted.
    SessionLost { node: NodeId, attempt: u32 },
    /// The secondary could not be reached, took too long, or refused.
    LinkFailed { node: NodeId, reason: String },
    /// A write or sync failed here.
    LocalFailed { reason: String },
    /// Secondaries that were last sent something a while ago are to hear what is committed.
    TellDue,
    /// A seal's new epoch is durable here, and no write is in progress.
    Fenced,
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Begin {
        node: NodeId,
        attempt: u32,
    },
    /// Send the batch that ends at `to`, naming the committed length.
    Send {
        node: NodeId,
        attempt: u32,
        to: u64,
        committed: u64,
    },
    /// Write and sync the batch that ends at `to`.
    Write {
        to: u64,
    },
    /// Make the bytes up to `to` readable, and answer their appends.
    Commit {
        to: u64,
    },
    Tell {
        node: NodeId,
        committed: u64,
    },
    /// Answer every waiting append with this; report the volume as failed.
    Fail {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Beginning,
    Open,
    Ended,
}

#[derive(Debug, Clone)]
struct Link {
    begun: bool,
    attempt: u32,
    acknowledged: u64,
    told: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Primary {
    phase: Phase,
    links: BTreeMap<NodeId, Link>,
    durable: u64,
    committed: u64,
    /// Where each batch ends that is not committed.
    in_flight: VecDeque<u64>,
}

impl Primary {
    /// `durable` bytes are in the file here, of which `committed` are known to be on all replicas.
    pub fn new(secondaries: impl IntoIterator<Item = NodeId>, durable: u64, committed: u64) -> Self {
        assert!(committed <= durable, "what is committed is durable");
        let link = |node| (node, Link { begun: false, attempt: 0, acknowledged: 0, told: 0 });
        let links = secondaries.into_iter().map(link).collect();
        Self { phase: Phase::Beginning, links, durable, committed, in_flight: VecDeque::new() }
    }

    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Whether a further batch may be placed now.
    pub fn has_room(&self) -> bool {
        let waiting = self.in_flight.back().map_or(0, |last| last - self.committed);
        self.phase == Phase::Open && self.in_flight.len() < WINDOW_BATCHES_MAX && waiting < WINDOW_BYTES_MAX
    }

    /// Whether appends will never be taken again.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether some secondary does not know yet what is committed.
    pub fn has_news(&self) -> bool {
        self.phase == Phase::Open && self.links.values().any(|link| link.told < self.committed)
    }

    pub fn step(&mut self, event: Event, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::Start => {
                for (node, link) in &mut self.links {
                    link.attempt = 1;
                    effects.push(Effect::Begin { node: *node, attempt: 1 });
                }
                self.open_when_all_begun(effects);
            }
            Event::Begun { node, attempt, end } => self.begun(node, attempt, end, effects),
            Event::Placed { end } => {
                assert!(self.phase == Phase::Open, "batches are placed while there is room");
                assert!(end > self.in_flight.back().copied().unwrap_or(self.durable), "batches follow one another");
                self.in_flight.push_back(end);
                // To the others first, so that all replicas write at the same time.
                let committed = self.committed;
                for (node, link) in self.links.iter_mut().filter(|(_, link)| link.begun) {
                    link.told = committed;
                    effects.push(Effect::Send { node: *node, attempt: link.attempt, to: end, committed });
                }
                effects.push(Effect::Write { to: end });
            }
            Event::Synced { end } => {
                assert!(end > self.durable, "the end of a file moves forward");
                self.durable = end;
                self.commit(effects);
            }
            Event::Acknowledged { node, end } => {
                if let Some(link) = self.links.get_mut(&node) {
                    link.acknowledged = link.acknowledged.max(end);
                    self.commit(effects);
                }
            }
            Event::SessionLost { node, attempt } => {
                let Some(link) = self.links.get_mut(&node).filter(|link| link.attempt == attempt) else { return };
                if attempt == BEGIN_ATTEMPTS_MAX {
                    return self.fail(format!("node {} loses the session again and again", node.0), effects);
                }
                (link.begun, link.attempt) = (false, attempt + 1);
                effects.push(Effect::Begin { node, attempt: attempt + 1 });
            }
            Event::LinkFailed { node, reason } => {
                self.fail(format!("node {} does not append: {reason}", node.0), effects);
            }
            Event::LocalFailed { reason } => self.fail(reason, effects),
            Event::TellDue => {
                let committed = self.committed;
                for (node, link) in self.links.iter_mut().filter(|(_, link)| link.begun && link.told < committed) {
                    link.told = committed;
                    effects.push(Effect::Tell { node: *node, committed });
                }
            }
            Event::Fenced => self.fail("it is being sealed".to_owned(), effects),
        }
    }

    fn begun(&mut self, node: NodeId, attempt: u32, end: u64, effects: &mut Vec<Effect>) {
        let opening = self.phase == Phase::Beginning;
        let Some(link) = self.links.get_mut(&node).filter(|link| link.attempt == attempt && !link.begun) else {
            return;
        };
        let known = if opening {
            end == self.durable
        } else {
            // Restarted in the middle: it goes on at the end of a batch, and what was acknowledged is there.
            end >= link.acknowledged && (end == link.acknowledged || self.in_flight.contains(&end))
        };
        if !known {
            let expected = if opening { self.durable } else { link.acknowledged };
            let reason = format!("node {} has {end} bytes where {expected} are expected", node.0);
            return self.fail(reason, effects);
        }
        (link.begun, link.acknowledged) = (true, end);
        for to in self.in_flight.iter().copied().filter(|to| *to > end) {
            effects.push(Effect::Send { node, attempt, to, committed: self.committed });
        }
        link.told = self.committed;
        if opening {
            self.open_when_all_begun(effects);
        } else {
            self.commit(effects);
        }
    }

    fn open_when_all_begun(&mut self, effects: &mut Vec<Effect>) {
        if self.links.values().all(|link| link.begun) {
            self.phase = Phase::Open;
            self.commit(effects);
        }
    }

    fn commit(&mut self, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Open {
            return;
        }
        let everywhere = self.links.values().map(|link| link.acknowledged).min().unwrap_or(u64::MAX).min(self.durable);
        while self.in_flight.front().is_some_and(|end| *end <= everywhere) {
            self.in_flight.pop_front();
        }
        if everywhere > self.committed {
            self.committed = everywhere;
            effects.push(Effect::Commit { to: everywhere });
        }
    }

    fn fail(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        effects.push(Effect::Fail { reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(2);
    const B: NodeId = NodeId(3);

    fn open(end: u64) -> Primary {
        let mut primary = Primary::new([A, B], end, end);
        run(&mut primary, Event::Start);
        for node in [A, B] {
            run(&mut primary, Event::Begun { node, attempt: 1, end });
        }
        assert!(primary.has_room());
        primary
    }

    fn run(primary: &mut Primary, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        primary.step(event, &mut effects);
        effects
    }

    fn commits(effects: &[Effect]) -> Vec<u64> {
        effects.iter().filter_map(|effect| if let Effect::Commit { to } = effect { Some(*to) } else { None }).collect()
    }

    #[test]
    fn a_batch_is_committed_when_all_replicas_have_it_and_in_order() {
        let mut primary = open(64);
        let sent = run(&mut primary, Event::Placed { end: 100 });
        assert!(matches!(sent[..], [Effect::Send { node: A, .. }, Effect::Send { node: B, .. }, Effect::Write { .. }]));
        run(&mut primary, Event::Placed { end: 200 }); // the next goes out before the first is acknowledged
        run(&mut primary, Event::Synced { end: 100 });
        run(&mut primary, Event::Synced { end: 200 });
        assert_eq!(commits(&run(&mut primary, Event::Acknowledged { node: A, end: 200 })), [0; 0]);
        assert_eq!(commits(&run(&mut primary, Event::Acknowledged { node: B, end: 100 })), [100]);
        assert_eq!(commits(&run(&mut primary, Event::Acknowledged { node: B, end: 200 })), [200]);
        assert_eq!(run(&mut primary, Event::TellDue).len(), 2);
        assert_eq!(run(&mut primary, Event::TellDue), []);
    }

    #[test]
    fn the_window_is_bounded() {
        let mut primary = open(64);
        for batch in 1..=WINDOW_BATCHES_MAX as u64 {
            assert!(primary.has_room());
            run(&mut primary, Event::Placed { end: 64 + batch * 8 });
        }
        assert!(!primary.has_room());
        let mut primary = open(64);
        run(&mut primary, Event::Placed { end: 64 + WINDOW_BYTES_MAX });
        assert!(!primary.has_room());
    }

    #[test]
    fn a_fenced_primary_commits_nothing_late() {
        let mut primary = open(64);
        run(&mut primary, Event::Placed { end: 100 });
        run(&mut primary, Event::Synced { end: 100 });
        run(&mut primary, Event::Acknowledged { node: A, end: 100 });
        assert!(matches!(run(&mut primary, Event::Fenced)[..], [Effect::Fail { .. }]));
        assert_eq!(run(&mut primary, Event::Acknowledged { node: B, end: 100 }), []);
        assert!(!primary.has_room() && primary.is_ended());
        assert_eq!(run(&mut primary, Event::Fenced), []);
    }

    #[test]
    fn any_failure_ends_the_volume_for_good() {
        for event in
            [Event::LinkFailed { node: A, reason: "cut".to_owned() }, Event::LocalFailed { reason: "EIO".to_owned() }]
        {
            let mut primary = open(64);
            run(&mut primary, Event::Placed { end: 100 });
            assert!(matches!(run(&mut primary, event)[..], [Effect::Fail { .. }]));
            run(&mut primary, Event::Acknowledged { node: A, end: 100 });
            assert_eq!(run(&mut primary, Event::Acknowledged { node: B, end: 100 }), []);
            assert_eq!(run(&mut primary, Event::Synced { end: 100 }), []);
        }
    }

    #[test]
    fn a_volume_opens_only_when_all_replicas_end_alike() {
        let mut primary = Primary::new([A, B], 100, 64);
        run(&mut primary, Event::Start);
        assert_eq!(run(&mut primary, Event::Begun { node: A, attempt: 1, end: 100 }), []);
        let mut longer = primary.clone();
        assert_eq!(commits(&run(&mut primary, Event::Begun { node: B, attempt: 1, end: 100 })), [100]);
        let effects = run(&mut longer, Event::Begun { node: B, attempt: 1, end: 164 });
        assert!(matches!(&effects[..], [Effect::Fail { .. }]));
    }

    #[test]
    fn a_secondary_that_was_restarted_goes_on_where_it_is() {
        let mut primary = open(64);
        run(&mut primary, Event::Placed { end: 100 });
        run(&mut primary, Event::Placed { end: 200 });
        let lost = Event::SessionLost { node: A, attempt: 1 };
        assert_eq!(run(&mut primary, lost.clone()), [Effect::Begin { node: A, attempt: 2 }]);
        assert_eq!(run(&mut primary, lost), [], "the other batch's refusal says nothing new");
        let effects = run(&mut primary, Event::Begun { node: A, attempt: 2, end: 100 });
        assert_eq!(effects, [Effect::Send { node: A, attempt: 2, to: 200, committed: 64 }]);
        run(&mut primary, Event::SessionLost { node: A, attempt: 2 });
        let effects = run(&mut primary, Event::Begun { node: A, attempt: 3, end: 64 });
        assert!(matches!(&effects[..], [Effect::Fail { .. }]), "acknowledged bytes are gone there");
    }
}
