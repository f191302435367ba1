//! Closes the partitions of this node while little or nothing is written, so that silence is not lag.
//!
//! What it is for: one closed timestamp for all partitions at the same tick, so that one sync serves them all. What it
//! does not do: close on demand (`Meta::close`), or bytes (`volume`) or the volume registry (`control`).
//!
//! Invariants: at most one tick in `closed_interval_ms`; with activity a tick follows within that interval, without any
//! within `closed_interval_idle_ms`.

use std::sync::Arc;
use std::time::Duration;

use meridian_env::HybridClock;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::slot::Slot;

pub(crate) struct Closing {
    pub(crate) slots: Vec<Slot>,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) activity: Arc<Notify>,
    pub(crate) interval: Duration,
    pub(crate) interval_idle: Duration,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Closing {
    /// Runs until `stop` is set or its sender is gone.
    pub(crate) async fn run(self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = self.tick_for_ever() => {}
        }
    }

    async fn tick_for_ever(&self) {
        loop {
            let last = Instant::now();
            tokio::select! {
                () = self.activity.notified() => tokio::time::sleep_until(last + self.interval).await,
                () = tokio::time::sleep_until(last + self.interval_idle) => {}
            }
            self.tick().await;
        }
    }

    async fn tick(&self) {
        let serving: Vec<_> = self.slots.iter().filter(|slot| slot.is_serving()).collect();
        if serving.is_empty() {
            return;
        }
        match self.clock.next_waiting().await {
            // A partition that can't be closed now is at the next tick; meanwhile its watermark stands, as it should.
            Ok(at) => {
                let closes = serving.into_iter().map(|slot| slot.close_here(at));
                for error in futures::future::join_all(closes).await.into_iter().filter_map(Result::err) {
                    tracing::debug!(%error, "a partition was not closed");
                }
            }
            Err(error) => tracing::debug!(%error, "no stamp to close the partitions at"),
        }
    }
}

/// Returns once `stop` is set or its sender is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}
