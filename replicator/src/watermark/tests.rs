//! Tests of `watermark`.

use meridian_types::DatacenterId;
use proptest::prelude::*;

use super::mirror::CHECKPOINTS_MAX;
use super::*;

const GENERATION: FileGeneration = FileGeneration(0);

fn at(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

fn volume(counter: u32) -> VolumeId {
    VolumeId::new(counter, DatacenterId::new(1).unwrap()).unwrap()
}

fn open(counter: u32, committed: u64, closed: u64) -> VolumeReport {
    VolumeReport {
        volume: volume(counter),
        generation: GENERATION,
        committed,
        closed: at(closed),
        sealed: false,
        mirrored_here: true,
    }
}

fn report(registry_closed: u64, volumes: &[VolumeReport]) -> RegistryReport {
    RegistryReport { registry_closed: at(registry_closed), volumes: volumes.to_vec() }
}

/// A watermark that only `volumes` bound.
fn bounded_by(volumes: &[VolumeReport]) -> DataWatermark {
    let mut watermark = DataWatermark::new(Timestamp::ZERO);
    watermark.set_meta(at(1_000_000));
    watermark.report(&report(1_000_000, volumes));
    watermark
}

#[test]
fn meta_is_the_minimum_and_zero_of_none() {
    assert_eq!(meta_watermark([at(7), at(3), at(9)].into_iter()), at(3));
    assert_eq!(meta_watermark(std::iter::empty()), Timestamp::ZERO);
}

#[test]
fn nothing_is_known_before_the_first_report() {
    let mut watermark = DataWatermark::new(Timestamp::ZERO);
    watermark.set_meta(at(50));
    assert_eq!((watermark.value(), watermark.held_by()), (Timestamp::ZERO, WatermarkHold::Registry));
    watermark.report(&report(40, &[]));
    assert_eq!((watermark.value(), watermark.held_by()), (at(40), WatermarkHold::Registry));
    watermark.report(&report(60, &[]));
    assert_eq!((watermark.value(), watermark.held_by()), (at(50), WatermarkHold::Meta));
}

#[test]
fn it_starts_at_the_committed_value_and_only_moves_forward() {
    let mut watermark = DataWatermark::new(at(30));
    watermark.set_meta(at(20));
    watermark.report(&report(20, &[open(1, 500, 10)]));
    assert_eq!(watermark.value(), at(30));
    watermark.have(volume(1), GENERATION, 500);
    assert_eq!(watermark.value(), at(30));
    watermark.set_meta(at(40));
    watermark.report(&report(45, &[open(1, 500, 35)]));
    assert_eq!(watermark.value(), at(35));
    watermark.set_meta(at(1));
    watermark.report(&report(1, &[]));
    assert_eq!(watermark.value(), at(35));
}

#[test]
fn bytes_that_are_not_here_hold_it_back() {
    let mut watermark = bounded_by(&[open(1, 100, 10)]);
    assert_eq!((watermark.value(), watermark.held_by()), (at(0), WatermarkHold::Volume(volume(1))));
    watermark.have(volume(1), GENERATION, 99);
    assert_eq!((watermark.value(), watermark.pending_bytes()), (at(0), 1));
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!((watermark.value(), watermark.pending_bytes()), (at(10), 0));
}

#[test]
fn a_mirror_that_follows_a_growing_volume_moves_it_report_by_report() {
    let mut watermark = bounded_by(&[open(1, 100, 10)]);
    watermark.report(&report(1_000_000, &[open(1, 200, 20)]));
    watermark.report(&report(1_000_000, &[open(1, 300, 30)]));
    watermark.have(volume(1), GENERATION, 250);
    assert_eq!(watermark.value(), at(20), "the last report's bytes are not all here, the one before is complete");
    watermark.report(&report(1_000_000, &[open(1, 300, 40)]));
    watermark.have(volume(1), GENERATION, 300);
    assert_eq!(watermark.value(), at(40));
}

#[test]
fn a_new_volume_that_is_unknown_here_holds_it_back() {
    // The source registered volume 2 at 20 and put bytes into it: until a report names it, the registry bounds.
    let mut watermark = DataWatermark::new(Timestamp::ZERO);
    watermark.set_meta(at(100));
    watermark.report(&report(20, &[open(1, 100, 90)]));
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!((watermark.value(), watermark.held_by()), (at(20), WatermarkHold::Registry));
    // Named, and not one byte of it is here.
    watermark.report(&report(80, &[open(1, 100, 90), open(2, 50, 80)]));
    assert_eq!((watermark.value(), watermark.held_by()), (at(20), WatermarkHold::Volume(volume(2))));
    watermark.have(volume(2), GENERATION, 50);
    assert_eq!(watermark.value(), at(80));
}

#[test]
fn a_report_counts_its_volumes_before_its_registry() {
    let mut watermark = DataWatermark::new(Timestamp::ZERO);
    watermark.set_meta(at(100));
    watermark.report(&report(70, &[open(1, 10, 70)]));
    assert_eq!(watermark.value(), Timestamp::ZERO);
}

#[test]
fn an_empty_volume_and_a_volume_whose_primary_is_dead() {
    let mut watermark = bounded_by(&[open(1, 0, 10)]);
    assert_eq!(watermark.value(), at(10), "nothing at or below 10 is in it");
    for _ in 0..3 {
        watermark.report(&report(1_000_000, &[open(1, 0, 10)]));
    }
    assert_eq!(watermark.held_by(), WatermarkHold::Volume(volume(1)), "nobody closes it further");
}

#[test]
fn a_sealed_volume_bounds_until_all_of_it_is_here_and_then_no_longer() {
    let sealed = VolumeReport { sealed: true, ..open(1, 100, 10) };
    let mut watermark = bounded_by(&[open(1, 60, 5), open(2, 0, 500)]);
    watermark.have(volume(1), GENERATION, 60);
    watermark.report(&report(1_000_000, &[sealed]));
    watermark.have(volume(1), GENERATION, 99);
    assert_eq!(watermark.value(), at(5));
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!((watermark.value(), watermark.held_by()), (at(500), WatermarkHold::Volume(volume(2))));
}

#[test]
fn a_volume_without_a_mirror_here_does_not_count() {
    let elsewhere = VolumeReport { mirrored_here: false, ..open(1, 100, 1) };
    let mut watermark = bounded_by(&[elsewhere, open(2, 0, 30)]);
    assert_eq!((watermark.value(), watermark.pending_bytes()), (at(30), 0));
    watermark.park(volume(1), GENERATION, 0..5);
    watermark.report(&report(1_000_000, &[open(2, 0, 40)]));
    assert_eq!(watermark.value(), at(40));
}

#[test]
fn a_changed_mirror_set_counts_the_new_mirror_from_zero() {
    let elsewhere = VolumeReport { mirrored_here: false, ..open(1, 100, 10) };
    let mut watermark = bounded_by(&[open(1, 100, 10), open(2, 0, 30)]);
    watermark.have(volume(1), GENERATION, 100);
    watermark.report(&report(1_000_000, &[elsewhere]));
    assert_eq!(watermark.value(), at(30));
    watermark.report(&report(1_000_000, &[open(1, 100, 50), open(2, 0, 60)]));
    assert_eq!((watermark.value(), watermark.held_by()), (at(30), WatermarkHold::Volume(volume(1))));
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!(watermark.value(), at(50));
}

#[test]
fn a_mirror_that_is_moved_here_starts_the_watermark_from_what_is_committed() {
    let elsewhere = VolumeReport { mirrored_here: false, ..open(1, 100, 10) };
    let mut watermark = bounded_by(&[elsewhere, open(2, 0, 70)]);
    assert_eq!(watermark.value(), at(70), "volume 1 is another node's");
    let moved = report(1_000_000, &[open(1, 100, 50), open(2, 0, 80)]);
    assert!(watermark.begins_mirrors(&moved));
    watermark.restart(at(40));
    watermark.report(&moved);
    assert_eq!((watermark.value(), watermark.held_by()), (at(40), WatermarkHold::Volume(volume(1))));
    assert!(!watermark.begins_mirrors(&moved), "it counts now");
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!(watermark.value(), at(50));
    watermark.restart(at(60));
    assert_eq!(watermark.value(), at(50), "never ahead by it");
}

#[test]
fn what_is_here_may_be_told_before_the_first_report() {
    let mut watermark = DataWatermark::new(at(5)); // after a restart
    watermark.have(volume(1), GENERATION, 100);
    watermark.set_meta(at(90));
    assert_eq!(watermark.value(), at(5));
    watermark.report(&report(80, &[open(1, 100, 70)]));
    assert_eq!(watermark.value(), at(70));
}

#[test]
fn a_volume_that_a_report_no_longer_names_stays_counted() {
    let mut watermark = bounded_by(&[open(1, 100, 10)]);
    watermark.report(&report(2_000_000, &[]));
    assert_eq!((watermark.value(), watermark.held_by()), (at(0), WatermarkHold::Volume(volume(1))));
}

#[test]
fn a_parked_range_holds_it_back_until_it_is_unparked() {
    let mut watermark = bounded_by(&[open(1, 40, 10)]);
    watermark.report(&report(1_000_000, &[open(1, 100, 20)]));
    watermark.park(volume(1), GENERATION, 40..56);
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!(watermark.value(), at(10), "up to the hole it is complete");
    assert_eq!(watermark.held_by(), WatermarkHold::Volume(volume(1)));
    assert_eq!(watermark.pending_bytes(), 16);
    watermark.unpark(volume(1), GENERATION, 40..48);
    assert_eq!((watermark.value(), watermark.pending_bytes()), (at(10), 8));
    assert_eq!(watermark.parked().collect::<Vec<_>>(), [(volume(1), GENERATION, 48..56)]);
    watermark.unpark(volume(1), GENERATION, 48..56);
    assert_eq!((watermark.value(), watermark.parked().count()), (at(20), 0));
}

#[test]
fn a_range_parked_after_it_was_counted_stops_it_where_it_stands() {
    let sealed = VolumeReport { sealed: true, ..open(1, 100, 10) };
    let mut watermark = bounded_by(&[sealed, open(2, 0, 30)]);
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!(watermark.value(), at(30));
    watermark.park(volume(1), GENERATION, 8..16);
    watermark.report(&report(1_000_000, &[open(2, 0, 50)]));
    assert_eq!((watermark.value(), watermark.held_by()), (at(30), WatermarkHold::Volume(volume(1))));
    watermark.unpark(volume(1), GENERATION, 0..100);
    assert_eq!(watermark.value(), at(50));
}

#[test]
fn a_mirror_that_lost_counted_bytes_stops_it_where_it_stands() {
    let mut watermark = bounded_by(&[VolumeReport { sealed: true, ..open(1, 100, 10) }, open(2, 0, 30)]);
    watermark.have(volume(1), GENERATION, 100);
    watermark.have(volume(1), GENERATION, 0);
    watermark.report(&report(1_000_000, &[open(2, 0, 50)]));
    assert_eq!(watermark.value(), at(30));
    watermark.have(volume(1), GENERATION, 100);
    assert_eq!(watermark.value(), at(50));
}

#[test]
fn parked_ranges_join_and_split() {
    let mut watermark = bounded_by(&[]);
    let parked = |watermark: &DataWatermark| -> Vec<(u64, u64)> {
        watermark.parked().map(|(_, _, range)| (range.start, range.end)).collect()
    };
    watermark.park(volume(1), GENERATION, 10..20);
    watermark.park(volume(1), GENERATION, 30..40);
    watermark.park(volume(1), GENERATION, 20..25);
    watermark.park(volume(1), GENERATION, 5..5);
    assert_eq!(parked(&watermark), [(10, 25), (30, 40)]);
    watermark.park(volume(1), GENERATION, 24..31);
    assert_eq!(parked(&watermark), [(10, 40)]);
    watermark.unpark(volume(1), GENERATION, 15..20);
    assert_eq!(parked(&watermark), [(10, 15), (20, 40)]);
    watermark.unpark(volume(1), FileGeneration(3), 0..100);
    assert_eq!(parked(&watermark), [(10, 15), (20, 40)], "offsets of another generation");
}

#[test]
fn offsets_of_an_older_file_generation_do_not_count() {
    let compacted = VolumeReport { generation: FileGeneration(1), ..open(1, 60, 30) };
    let mut watermark = bounded_by(&[open(1, 100, 10), open(2, 0, 50)]);
    watermark.have(volume(1), GENERATION, 100);
    watermark.report(&report(1_000_000, std::slice::from_ref(&compacted)));
    watermark.have(volume(1), GENERATION, 100);
    watermark.report(&report(1_000_000, &[open(1, 100, 40)])); // a late report of before
    assert_eq!((watermark.value(), watermark.held_by()), (at(10), WatermarkHold::Volume(volume(1))));
    watermark.have(volume(1), FileGeneration(1), 60);
    assert_eq!(watermark.value(), at(30));
}

#[test]
fn a_committed_length_that_went_back_is_not_believed() {
    let mut watermark = bounded_by(&[open(1, 100, 10)]);
    watermark.have(volume(1), GENERATION, 80);
    watermark.report(&report(1_000_000, &[open(1, 80, 20)]));
    assert_eq!(watermark.value(), at(0), "100 bytes were acknowledged once");
    assert_eq!(watermark.pending_bytes(), 20);
}

#[test]
fn a_mirror_far_behind_keeps_few_checkpoints_and_arrives_all_the_same() {
    let mut watermark = bounded_by(&[open(1, 1, 1)]);
    let reports = 10 * CHECKPOINTS_MAX as u64;
    for n in 2..=reports {
        watermark.report(&report(1_000_000, &[open(1, n, n)]));
    }
    let mut moves = 0;
    for have in 1..=reports {
        let before = watermark.value();
        watermark.have(volume(1), GENERATION, have);
        assert!(watermark.value() <= at(have));
        moves += usize::from(watermark.value() > before);
    }
    assert_eq!(watermark.value(), at(reports));
    assert!((2..=CHECKPOINTS_MAX).contains(&moves), "{moves} moves");
}

/// A step of a source with three volumes and of their mirrors here.
#[derive(Debug, Clone)]
enum Act {
    Append { volume: usize, bytes: u64 },
    Seal { volume: usize },
    Register,
    Report,
    Fetch { volume: usize, bytes: u64 },
    ParkNext { volume: usize, bytes: u64 },
    UnparkAll { volume: usize },
    Meta { lag: u64 },
}

fn any_act() -> impl Strategy<Value = Act> {
    let (volume, bytes) = (0..6usize, 1..20u64);
    prop_oneof![
        4 => (volume.clone(), bytes.clone()).prop_map(|(volume, bytes)| Act::Append { volume, bytes }),
        1 => volume.clone().prop_map(|volume| Act::Seal { volume }),
        1 => Just(Act::Register),
        3 => Just(Act::Report),
        4 => (volume.clone(), bytes.clone()).prop_map(|(volume, bytes)| Act::Fetch { volume, bytes }),
        1 => (volume.clone(), bytes).prop_map(|(volume, bytes)| Act::ParkNext { volume, bytes }),
        1 => volume.prop_map(|volume| Act::UnparkAll { volume }),
        2 => (0..5u64).prop_map(|lag| Act::Meta { lag }),
    ]
}

/// What truly is in a volume of the source, and of it here.
#[derive(Default)]
struct TrueVolume {
    appends: Vec<(u64, Range<u64>)>,
    committed: u64,
    sealed: bool,
    here: u64,
    holes: Vec<Range<u64>>,
}

proptest! {
    /// Whatever a source does and however a mirror limps behind: each byte stamped at or below W_data is here.
    #[test]
    fn every_byte_at_or_below_the_watermark_is_here(acts in prop::collection::vec(any_act(), 1..120)) {
        let mut now = 0;
        let mut volumes: Vec<TrueVolume> = vec![TrueVolume::default()];
        let mut watermark = DataWatermark::new(Timestamp::ZERO);
        for act in acts {
            now += 1;
            let before = watermark.value();
            let count = volumes.len();
            match act {
                Act::Append { volume: n, bytes } if n < count && !volumes[n].sealed => {
                    let start = volumes[n].committed;
                    volumes[n].committed += bytes;
                    volumes[n].appends.push((now, start..start + bytes));
                }
                Act::Seal { volume: n } if n < count => volumes[n].sealed = true,
                Act::Register if count < 6 => volumes.push(TrueVolume::default()),
                Act::Report => {
                    let reports: Vec<_> = volumes.iter().enumerate().map(|(n, of)| VolumeReport {
                        sealed: of.sealed,
                        ..open(n as u32, of.committed, now)
                    }).collect();
                    watermark.report(&report(now, &reports));
                }
                Act::Fetch { volume: n, bytes } if n < count => {
                    volumes[n].here = (volumes[n].here + bytes).min(volumes[n].committed);
                    watermark.have(volume(n as u32), GENERATION, volumes[n].here);
                }
                Act::ParkNext { volume: n, bytes } if n < count => {
                    let hole = volumes[n].here..(volumes[n].here + bytes).min(volumes[n].committed);
                    volumes[n].here = hole.end;
                    volumes[n].holes.push(hole.clone());
                    watermark.park(volume(n as u32), GENERATION, hole.clone());
                    watermark.have(volume(n as u32), GENERATION, hole.end);
                }
                Act::UnparkAll { volume: n } if n < count => {
                    for hole in std::mem::take(&mut volumes[n].holes) {
                        watermark.unpark(volume(n as u32), GENERATION, hole);
                    }
                }
                Act::Meta { lag } => watermark.set_meta(at(u64::saturating_sub(now, lag))),
                _ => {}
            }
            prop_assert!(watermark.value() >= before);
            for of in &volumes {
                for (stamp, bytes) in of.appends.iter().filter(|(stamp, _)| at(*stamp) <= watermark.value()) {
                    prop_assert!(bytes.end <= of.here, "bytes {bytes:?} stamped {stamp} are not here");
                    let is_in_hole = of.holes.iter().any(|hole| hole.start < bytes.end && bytes.start < hole.end);
                    prop_assert!(!is_in_hole, "bytes {bytes:?} stamped {stamp} are parked");
                }
            }
        }
        // And once all is fetched, unparked and reported, it arrives.
        now += 1;
        let mut reports = vec![];
        for (n, of) in volumes.iter().enumerate() {
            for hole in &of.holes {
                watermark.unpark(volume(n as u32), GENERATION, hole.clone());
            }
            watermark.have(volume(n as u32), GENERATION, of.committed);
            reports.push(open(n as u32, of.committed, now));
        }
        watermark.set_meta(at(now));
        watermark.report(&report(now, &reports));
        prop_assert_eq!(watermark.value(), at(now));
    }
}
