//! Messages on their way: sent over the links, and handed to whom they are for.
//!
//! Invariant: a message that arrives at a cut or at a datacenter without power is lost like any other.

use crate::Checked;
use crate::datacenter::Place;
use crate::network::Message;
use crate::world::{Event, World};

impl World {
    /// Sends a message between datacenters, if the link lets it.
    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        let fate = self.network.send(&mut self.rng, self.now_ms);
        self.tally.add("… messages reordered", u64::from(fate.reordered));
        match fate.arrivals_ms.len() {
            0 => self.tally.add("… messages lost", 1),
            1 => {}
            _ => self.tally.add("… messages doubled", 1),
        }
        for arrival_ms in fate.arrivals_ms {
            let message = Box::new(message.clone());
            self.schedule(arrival_ms - self.now_ms, Event::Deliver { from, to, message });
        }
    }

    /// A message arrives, if the link and the power there let it.
    pub fn deliver(&mut self, from: usize, to: usize, message: Message) -> Checked {
        if self.network.is_cut(from, to) {
            self.tally.add("… messages cut off", 1);
            return Ok(());
        }
        if self.datacenters[to].is_down() {
            return Ok(());
        }
        match message {
            Message::Pull { group, cursor, call } => self.serve_pull(to, group, from, cursor, call),
            Message::PullReply { group, call, answer, wall, sent_ms } => {
                self.take_pull_reply(Place { datacenter: to, group }, from, call, answer, (wall, sent_ms))
            }
            Message::Member(report) => {
                self.take_member_report(to, report);
                Ok(())
            }
            Message::Fence { call, bucket, attempt, raised } => {
                self.fence(to, bucket, attempt, raised, raised.then_some((from, call)));
                Ok(())
            }
            Message::FenceReply { call, report } => {
                self.take_fence_report(to, from, call, report);
                Ok(())
            }
            Message::Volumes { call } => {
                self.serve_volumes(to, from, call);
                Ok(())
            }
            Message::VolumesReply { call, report } => {
                self.take_volumes(to, from, call, report);
                Ok(())
            }
            Message::Range { volume, from: start, to: end, call } => {
                self.serve_range(to, from, volume, start..end, call);
                Ok(())
            }
            Message::RangeReply { volume, from: start, to: end, call, corrupt } => {
                self.take_range(to, from, volume, start..end, call, corrupt);
                Ok(())
            }
        }
    }
}
