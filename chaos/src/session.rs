//! Clients that go from datacenter to datacenter and carry a token of what they have seen (rule 21): the shipped record,
//! its text, and a shell's wait for W_meta of the origins that it names.
//!
//! C5: in every datacenter that lets it in, a session sees of each key what it has seen, or something greater, through
//! whichever session it learnt of it; and what it writes beats what it has seen of the key.
//!
//! Invariants: the floors that are checked come from answers and never from the token; a disk that went back ends all
//! sessions, because what it forgot can't be shown again.

use std::collections::BTreeMap;

use meridian_index::queries;
use meridian_replicator::{OriginCursor, meta_watermark};
use meridian_types::{DatacenterId, Seen, Sequence, Stamp, Timestamp};

use crate::datacenter::id_of;
use crate::oracle::KeyIndex;
use crate::planted::ShellMistake;
use crate::proposer::unreadable;
use crate::workload::{Kind, State};
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, Violation};

/// Sessions of a run.
const SESSIONS: usize = 3;
/// How long a datacenter lets a session wait, and how often it looks.
const WAIT_MS_MAX: u64 = 5_000;
const LOOK_MS: u64 = 25;
/// Between a session's answer and its next request.
const PAUSE_MS: (u64, u64) = (5, 250);

/// What a session does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// It goes somewhere.
    Go,
    /// It asks to be let in.
    Ask { datacenter: usize, until_ms: u64 },
    /// It waits for its write's answer.
    Written { operation_index: usize },
}

#[derive(Debug, Default)]
pub struct Session {
    /// The last answer's token; none before the first.
    token: Option<String>,
    /// What it has seen of each key.
    floors: BTreeMap<KeyIndex, Stamp>,
    /// A request is under way: nobody else's token is taken over.
    is_busy: bool,
}

impl Session {
    fn raise(&mut self, key: KeyIndex, stamp: Stamp) {
        let floor = self.floors.entry(key).or_insert(stamp);
        *floor = (*floor).max(stamp);
    }
}

impl World {
    pub fn start_sessions(&mut self) {
        self.sessions = (0..SESSIONS).map(|_| Session::default()).collect();
        for session in 0..SESSIONS {
            self.schedule(400 + 50 * session as u64, Event::Session { session, step: Step::Go });
        }
    }

    /// What a restored disk has forgotten nobody can show any more.
    pub fn end_sessions(&mut self) {
        self.sessions.clear();
    }

    pub fn step_session(&mut self, session: usize, step: Step) -> Checked {
        if session >= self.sessions.len() {
            return Ok(());
        }
        match step {
            Step::Go => self.go(session),
            Step::Ask { datacenter, until_ms } => self.ask_session(session, datacenter, until_ms)?,
            Step::Written { operation_index } => match self.operations[operation_index].state {
                State::Running => {
                    self.schedule(LOOK_MS, Event::Session { session, step: Step::Written { operation_index } });
                }
                State::Acknowledged(stamp) => self.written(session, operation_index, stamp)?,
                State::Refused | State::Unknown => self.pause(session),
            },
        }
        Ok(())
    }

    fn pause(&mut self, session: usize) {
        self.sessions[session].is_busy = false;
        if self.healed_at_ms.is_none() {
            let after_ms = self.rng.between(PAUSE_MS.0, PAUSE_MS.1);
            self.schedule(after_ms, Event::Session { session, step: Step::Go });
        }
    }

    fn go(&mut self, session: usize) {
        let datacenter = self.rng.index(DATACENTERS);
        if !self.serves(datacenter) {
            return self.pause(session);
        }
        self.sessions[session].is_busy = true;
        let until_ms = self.now_ms + WAIT_MS_MAX;
        self.schedule(0, Event::Session { session, step: Step::Ask { datacenter, until_ms } });
    }

    fn ask_session(&mut self, session: usize, datacenter: usize, until_ms: u64) -> Checked {
        let wanted = match self.sessions[session].token.as_deref().map(Seen::from_text) {
            None => Seen::new(),
            Some(Ok(wanted)) => wanted,
            Some(Err(error)) => return Err(Violation::new("C5", format!("an own token is refused: {error}"))),
        };
        if !self.shows(datacenter, &wanted)? {
            if self.now_ms >= until_ms {
                self.tally.add("… sessions refused in time", 1);
                self.pause(session);
            } else {
                self.tally.add("… looks of waiting sessions", 1);
                self.schedule(LOOK_MS, Event::Session { session, step: Step::Ask { datacenter, until_ms } });
            }
            return Ok(());
        }
        // The answer's token holds what its request brought along, so that a client may keep the last one alone.
        let mut seen = Seen::new();
        seen.merge_planted(self.plant(), &wanted);
        match self.rng.below(100) {
            0..45 => {
                let key = (usize::from(self.rng.chance(150)), self.rng.index(self.keys.len()));
                self.see(session, datacenter, key, &mut seen)?;
            }
            45..60 => self.see_all(session, datacenter, &mut seen)?,
            60..70 => {
                self.sessions[session].token = Some(seen.to_text());
                self.hand_over(session)?;
                self.pause(session);
                return Ok(());
            }
            action => {
                let key = (usize::from(self.rng.chance(150)), self.rng.index(self.keys.len()));
                let none = meridian_index::Condition::None;
                let kind = if action < 92 { Kind::Put(none) } else { Kind::Delete(none) };
                self.tally.add("… operations", 1);
                let operation_index = self.start(datacenter, kind, key);
                self.sessions[session].token = Some(seen.to_text());
                self.schedule(LOOK_MS, Event::Session { session, step: Step::Written { operation_index } });
                return Ok(());
            }
        }
        self.sessions[session].token = Some(seen.to_text());
        self.pause(session);
        Ok(())
    }

    /// Whether a datacenter has all that a token names; of itself it always has.
    fn shows(&self, datacenter: usize, wanted: &Seen) -> Checked<bool> {
        for (origin, through) in wanted.iter().filter(|(origin, _)| *origin != id_of(datacenter)) {
            let mut applied = Vec::new();
            // Of the mistake: only where the key lies, as if a session had seen nothing but one partition.
            let catalog_too = !self.has_bug(ShellMistake::SessionWaitsForOnePartition);
            let groups = &self.datacenters[datacenter].groups;
            for group in groups.iter().take(if catalog_too { groups.len() } else { 1 }) {
                applied.push(queries::cursor(&group.kv, origin).map_err(unreadable)?.applied_through);
            }
            if meta_watermark(applied.into_iter()) < through {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A GET: the row's stamp is seen, or that of the delete that it shows.
    fn see(&mut self, session: usize, datacenter: usize, key: KeyIndex, seen: &mut Seen) -> Checked {
        self.tally.add("C5 a session sees what it has seen", 1);
        let row = self.row(datacenter, key)?.map(|row| row.stamp);
        row.into_iter().for_each(|stamp| seen.note(stamp));
        // All have seen a delete whose tombstone is gone.
        let shown = row.or_else(|| self.oracle.deleted(datacenter, key));
        let floor = self.sessions[session].floors.get(&key).copied();
        if shown < floor {
            let token = &self.sessions[session].token;
            let what = format!("session {session} saw {floor:?} of {key:?}, and {shown:?} in {datacenter} ({token:?})");
            return Err(Violation::new("C5", what));
        }
        if let Some(shown) = shown {
            self.sessions[session].raise(key, shown);
        }
        Ok(())
    }

    /// A LIST shows what is absent as well, so that all that its partitions have applied is seen.
    fn see_all(&mut self, session: usize, datacenter: usize, seen: &mut Seen) -> Checked {
        for group in 0..self.partitions {
            let kv = &self.datacenters[datacenter].groups[group].kv;
            let state = queries::state(kv).map_err(unreadable)?;
            let own: DatacenterId = self.datacenters[datacenter].id;
            let head = OriginCursor { incarnation: state.head_incarnation, sequence: Sequence(state.next.0 - 1) };
            for (origin, last) in state.cursors.iter().chain([(own, head)]) {
                queries::entry_stamp_at(kv, origin, last).map_err(unreadable)?.into_iter().for_each(|s| seen.note(s));
            }
        }
        for bucket in 0..2 {
            for key in 0..self.keys.len() {
                self.see(session, datacenter, (bucket, key), seen)?;
            }
        }
        Ok(())
    }

    /// One client tells another: what it was told is in its own token from now on.
    fn hand_over(&mut self, session: usize) -> Checked {
        let other = (session + 1 + self.rng.index(SESSIONS - 1)) % SESSIONS;
        if self.sessions[other].is_busy {
            return Ok(());
        }
        self.tally.add("… sessions told of another's", 1);
        let parse = |text: &Option<String>| match text {
            Some(text) => Seen::from_text(text).map_err(|error| Violation::new("C5", error.to_string())),
            None => Ok(Seen::new()),
        };
        let (own, told) = (parse(&self.sessions[other].token)?, parse(&self.sessions[session].token)?);
        let mut both = own;
        both.merge_planted(self.plant(), &told);
        let floors = self.sessions[session].floors.clone();
        let other = &mut self.sessions[other];
        other.token = Some(both.to_text());
        floors.into_iter().for_each(|(key, stamp)| other.raise(key, stamp));
        Ok(())
    }

    fn written(&mut self, session: usize, operation_index: usize, stamp: Stamp) -> Checked {
        self.tally.add("C5 a session's write beats what it has seen", 1);
        let key = self.operations[operation_index].key;
        let subject = &mut self.sessions[session];
        if let Some(floor) = subject.floors.get(&key).filter(|floor| **floor >= stamp) {
            let what = format!("session {session} saw {floor} of {key:?}, and its write there is {stamp}");
            return Err(Violation::new("C5", what));
        }
        subject.raise(key, stamp);
        let mut seen = match subject.token.as_deref().map(Seen::from_text) {
            Some(Ok(seen)) => seen,
            Some(Err(_)) | None => Seen::new(),
        };
        seen.note(stamp);
        subject.token = Some(seen.to_text());
        debug_assert!(stamp.timestamp > Timestamp::ZERO);
        self.pause(session);
        Ok(())
    }
}
