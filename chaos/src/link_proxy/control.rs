//! What a link does at the moment, and the handle that changes it while connections run.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::Link;
use super::counters::LinkCounters;

/// Which way bytes travel through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From who has connected to the target.
    Forward,
    /// From the target to who has connected.
    Backward,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Backward];
}

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flow {
    #[default]
    Open,
    /// Nothing comes through; what was sent waits, as TCP sends it again after a cut that it has survived.
    Held,
    /// What is sent vanishes, ends of connections included. TCP can't go on behind a hole, so a connection that has
    /// lost a byte stays silent in that direction, also after the link is healed, until one of its ends gives up.
    Lost,
}

/// One direction of a link.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    pub flow: Flow,
    pub delay: Duration,
    pub bytes_per_s_max: Option<NonZeroU64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    pub forward: Way,
    pub backward: Way,
    /// New connections are accepted and never answered.
    pub is_blackhole: bool,
    /// Counts the resets so far: a connection ends when it grows.
    pub resets: u64,
}

impl Settings {
    pub fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    fn way_mut(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        }
    }

    /// Whether a connection can be established.
    pub fn is_open(&self) -> bool {
        Direction::BOTH.iter().all(|direction| self.way(*direction).flow == Flow::Open)
    }
}

/// Changes a link at run time; each change counts for running connections at once.
#[derive(Clone)]
pub struct LinkControl {
    link: Arc<Link>,
}

impl LinkControl {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        self.link.settings.send_modify(change);
    }

    /// Holds both directions.
    pub fn cut(&self) {
        self.change(|now| Direction::BOTH.into_iter().for_each(|direction| now.way_mut(direction).flow = Flow::Held));
    }

    /// What one direction does with its bytes, the other left as it is.
    pub fn set_flow(&self, direction: Direction, flow: Flow) {
        self.change(|now| now.way_mut(direction).flow = flow);
    }

    /// Opens both directions, and new connections are answered again. Delay and rate stay.
    pub fn heal(&self) {
        self.change(|now| {
            Direction::BOTH.into_iter().for_each(|direction| now.way_mut(direction).flow = Flow::Open);
            now.is_blackhole = false;
        });
    }

    /// How long each byte that is sent from now on travels in one direction. Milliseconds are what timers can do.
    pub fn set_delay(&self, direction: Direction, delay: Duration) {
        self.change(|now| now.way_mut(direction).delay = delay);
    }

    /// What all connections together get through in one direction; `None` for as much as there is.
    pub fn set_rate(&self, direction: Direction, bytes_per_s_max: Option<NonZeroU64>) {
        self.change(|now| now.way_mut(direction).bytes_per_s_max = bytes_per_s_max);
        match direction {
            Direction::Forward => self.link.forward.forget(),
            Direction::Backward => self.link.backward.forget(),
        }
    }

    /// New connections are accepted, and then nobody says a word. Running ones go on, and those that were swallowed
    /// stay so after a heal.
    pub fn blackhole(&self) {
        self.change(|now| now.is_blackhole = true);
    }

    /// Breaks every running connection with RST at both ends, whatever is on its way; new ones are as good as ever.
    pub fn reset(&self) {
        self.change(|now| now.resets += 1);
    }

    pub fn counters(&self) -> LinkCounters {
        self.link.tally.read()
    }
}
