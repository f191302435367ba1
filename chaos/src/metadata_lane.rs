//! The metadata lane: pulls logs, serves them, and performs the effects of the shipped streams; the simulation's
//! counterpart of the lane in `node/replication`.
//!
//! It feeds late and doubled answers to the streams as well, which a shell need not do: the streams must bear it.
//! Invariant: each pull of a stream ends in an answer or in a timeout.

use meridian_index::queries;
use meridian_replicator::{
    Batch, Cursor, Effect, Event as StreamEvent, LogHead, PullDecision, PullRefusal, StreamState, decide_pull_planted,
};
use meridian_types::Timestamp;
use meridian_types::limits::{LOG_BATCH_ENTRIES_MAX, LOG_BATCH_SIZE_MAX};

use crate::Checked;
use crate::datacenter::{Lane, Place};
use crate::group::ParkedPull;
use crate::network::{Message, PullAnswer};
use crate::planted::ShellMistake;
use crate::proposer::unreadable;
use crate::world::{Event, World};

/// How long a source keeps a pull without news.
const LONG_POLL_MS: u64 = 2_000;
/// When a pull is given up.
const PULL_DEADLINE_MS: u64 = 3_000;
/// The oldest clock reading that a node takes for its peer's clock.
const CLOCK_READING_MS_MAX: u64 = 150;
/// How often a source sends fewer entries than it could, in a thousand.
const SHORT_BATCH_PER_MILLE: u64 = 300;

impl World {
    fn lane(&mut self, place: Place, source: usize) -> &mut Lane {
        &mut self.datacenters[place.datacenter].sources[source].lanes[place.group]
    }

    pub fn step_stream(&mut self, place: Place, source: usize, event: StreamEvent) -> Checked {
        let (mut effects, now_ms) = (Vec::new(), self.now_ms);
        self.lane(place, source).stream.step(now_ms, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Pull { cursor } => self.pull(place, source, cursor),
                Effect::Propose { number, batch } => self.propose_remote(place, source, number, batch)?,
                Effect::Retry { after_ms } => self.schedule(after_ms, Event::StreamTick { place, source }),
                Effect::Report(state) => self.note(17, u64::from(matches!(state, StreamState::Held { .. }))),
            }
        }
        Ok(())
    }

    fn pull(&mut self, place: Place, source: usize, cursor: Cursor) {
        let call = self.name();
        self.lane(place, source).call = Some(call);
        self.schedule(PULL_DEADLINE_MS, Event::PullTimedOut { place, source, call });
        self.send(place.datacenter, source, Message::Pull { group: place.group, cursor, call });
    }

    pub fn pull_timed_out(&mut self, place: Place, source: usize, call: u64) -> Checked {
        if self.lane(place, source).call != Some(call) {
            return Ok(());
        }
        self.lane(place, source).call = None;
        self.step_stream(place, source, StreamEvent::PullFailed { reason: "its deadline passed".to_owned() })
    }

    /// A pull has arrived at its source.
    pub fn serve_pull(&mut self, source: usize, group: usize, from: usize, cursor: Cursor, call: u64) -> Checked {
        let place = Place { datacenter: source, group };
        if self.group(place).leader.is_none() {
            self.reply(place, from, call, PullAnswer::NotServing);
            return Ok(());
        }
        match self.look(place, &cursor)? {
            Some(answer) => self.reply(place, from, call, answer),
            None => {
                let id = self.name();
                self.group(place).parked.push(ParkedPull { from, cursor, call, id });
                self.schedule(LONG_POLL_MS, Event::LongPollEnded { place, id });
            }
        }
        Ok(())
    }

    /// What a source has for a cursor; nothing when there is no news.
    fn look(&mut self, place: Place, cursor: &Cursor) -> Checked<Option<PullAnswer>> {
        let entries_max =
            if self.rng.chance(SHORT_BATCH_PER_MILLE) { 1 + self.rng.index(3) } else { LOG_BATCH_ENTRIES_MAX };
        let mut head = self.head(place)?;
        let (own, position) = (head.position.origin, cursor.position);
        if self.has_bug(ShellMistake::UncommittedClosedTold)
            && let Some(leader) = self.group(place).leader
        {
            head.closed = head.closed.max(self.datacenters[place.datacenter].nodes[leader].guard.last());
        }
        if head.position == position && head.closed <= cursor.applied_through {
            return Ok(None);
        }
        let kv = &self.datacenters[place.datacenter].groups[place.group].kv;
        let oldest = queries::oldest_kept(kv, own).map_err(unreadable)?;
        let hash = queries::entry_hash_at(kv, own, position.incarnation, position.sequence).map_err(unreadable)?;
        let entries = match decide_pull_planted(self.plant(), &head, oldest, &position, hash) {
            PullDecision::Serve { from } => {
                let incarnation = position.incarnation;
                queries::log_entries(kv, own, incarnation, from, entries_max, LOG_BATCH_SIZE_MAX).map_err(unreadable)?
            }
            PullDecision::UpToDate if head.closed > cursor.applied_through => Vec::new(),
            PullDecision::UpToDate => return Ok(None),
            PullDecision::NeedsFullSync => return Ok(Some(PullAnswer::NeedsFullSync)),
            PullDecision::Refuse(refusal) => return Ok(Some(PullAnswer::Refused(self.refusal(place, &refusal)))),
        };
        let batch = Batch::new(own, position, entries, &head)
            .map_err(|error| crate::Violation::new("C3", format!("a log entry does not decode: {error}")))?;
        Ok(Some(PullAnswer::News(batch)))
    }

    fn refusal(&mut self, place: Place, refusal: &PullRefusal) -> String {
        let restored = self.datacenters[place.datacenter].restored;
        self.tally.add("… pulls refused after a restore", u64::from(restored));
        refusal.to_string()
    }

    pub fn head(&self, place: Place) -> Checked<LogHead> {
        let datacenter = &self.datacenters[place.datacenter];
        queries::log_head(&datacenter.groups[place.group].kv, datacenter.id).map_err(unreadable)
    }

    fn reply(&mut self, place: Place, to: usize, call: u64, answer: PullAnswer) {
        let (now_ms, datacenter) = (self.now_ms, &self.datacenters[place.datacenter]);
        let node = datacenter.groups[place.group].leader.unwrap_or(0);
        let wall = datacenter.nodes[node].wall(now_ms);
        let message = Message::PullReply { group: place.group, call, answer, wall, sent_ms: now_ms };
        self.send(place.datacenter, to, message);
    }

    /// A commit may be news for those who wait.
    pub fn answer_parked_pulls(&mut self, place: Place) -> Checked {
        for parked in std::mem::take(&mut self.group(place).parked) {
            match self.look(place, &parked.cursor)? {
                Some(answer) => self.reply(place, parked.from, parked.call, answer),
                None => self.group(place).parked.push(parked),
            }
        }
        Ok(())
    }

    pub fn long_poll_ended(&mut self, place: Place, id: u64) {
        let parked = &mut self.group(place).parked;
        if let Some(found) = parked.iter().position(|parked| parked.id == id) {
            let ParkedPull { from, call, .. } = parked.remove(found);
            self.reply(place, from, call, PullAnswer::NoNews);
        }
    }

    /// An answer has arrived. `reading` is the source's wall clock and when it was read.
    pub fn take_pull_reply(
        &mut self,
        place: Place,
        source: usize,
        call: u64,
        answer: PullAnswer,
        reading: (Timestamp, u64),
    ) -> Checked {
        let now_ms = self.now_ms;
        let datacenter = &mut self.datacenters[place.datacenter];
        if datacenter.groups[place.group].leader.is_none() {
            return Ok(());
        }
        if now_ms - reading.1 <= CLOCK_READING_MS_MAX {
            for node in datacenter.nodes.iter_mut().filter(|node| node.alive) {
                node.heard_clock(source, reading.0, now_ms);
            }
        }
        let lane = self.lane(place, source);
        if lane.call != Some(call) {
            let PullAnswer::News(batch) = answer else { return Ok(()) };
            self.tally.add("… late answers fed to a stream", 1);
            return self.step_stream(place, source, StreamEvent::Pulled(batch));
        }
        lane.call = None;
        let event = match answer {
            PullAnswer::News(batch) => StreamEvent::Pulled(batch),
            PullAnswer::NotServing => StreamEvent::PullFailed { reason: "no leader there".to_owned() },
            PullAnswer::Refused(reason) => StreamEvent::Refused { reason },
            PullAnswer::NeedsFullSync => StreamEvent::NeedsFullSync,
            PullAnswer::NoNews => {
                let cursor = self.lane(place, source).stream.pulling().copied();
                if let Some(cursor) = cursor {
                    self.pull(place, source, cursor); // asked again; to the stream it is the same pull
                }
                return Ok(());
            }
        };
        self.step_stream(place, source, event)
    }
}
