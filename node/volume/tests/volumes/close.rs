//! Closed timestamps of volumes (rule 13).

use meridian_env::disk::{Fault, FaultDisk, SimulatedDisk};

use crate::setup::{append, clock, header, open, volume};

#[tokio::test]
async fn no_append_after_a_close_is_stamped_at_or_below_it() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    let mut changed = set.changed();
    for key in 0..50 {
        changed.borrow_and_update();
        let closed = clock.wall().plus_ms(key % 3 * 40); // also ahead of the wall clock
        set.close_through(closed);
        assert!(set.state(volume(1)).unwrap().closed >= closed);
        let appended = append(&set, 1, key, 10).await.unwrap();
        assert!(appended.stamp > closed);
        assert!(changed.has_changed().unwrap());
        assert!(set.state(volume(1)).unwrap().closed >= appended.stamp);
    }
}

#[tokio::test]
async fn what_is_in_flight_holds_the_close_back() {
    let (disk, clock) = (FaultDisk::new(SimulatedDisk::new()), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    set.create(header(2)).unwrap();
    disk.stall(&format!("{}-0.data", volume(1)));
    let appending = {
        let set = set.clone();
        tokio::spawn(async move { append(&set, 1, 1, 10).await })
    };
    let stalled = disk.clone();
    tokio::task::spawn_blocking(move || stalled.wait_for_stalled()).await.unwrap();
    let t = clock.next_waiting().await.unwrap();
    set.close_through(t);
    let status = set.state(volume(1)).unwrap();
    assert!(status.closed < t && status.committed == 64, "closed over an append in flight");
    assert!(set.state(volume(2)).unwrap().closed >= t);
    disk.resume();
    let appended = appending.await.unwrap().unwrap();
    assert!(appended.stamp < t);
    let mut changed = set.changed();
    while set.state(volume(1)).unwrap().closed < t {
        changed.changed().await.unwrap();
    }
    assert_eq!(set.state(volume(1)).unwrap().committed, appended.end_offset);
}

#[tokio::test]
async fn a_failed_volume_is_not_closed_until_it_is_sealed() {
    let (disk, clock) = (FaultDisk::new(SimulatedDisk::new()), clock());
    let set = open(&disk, &clock);
    set.create(header(1)).unwrap();
    let before = append(&set, 1, 1, 10).await.unwrap();
    disk.plan(Fault::Sync, ".data", 0);
    append(&set, 1, 2, 10).await.unwrap_err();
    let t = clock.next_waiting().await.unwrap();
    set.close_through(t);
    assert_eq!(set.state(volume(1)).unwrap().closed, before.stamp);
}
