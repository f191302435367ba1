//! Tests of `store`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use meridian_index::kv::{KvRead, Step};

use super::*;

const ONE: GroupId = GroupId(16);
const TWO: GroupId = GroupId(17);

fn memory() -> SharedMemory {
    SharedMemory::new(1 << 20, 8 << 20)
}

fn open(path: &Path) -> Store {
    Store::open(path, &memory()).unwrap()
}

fn writes(rows: &[(&str, Option<&str>)]) -> WriteSet {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    rows.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.map(bytes))).collect()
}

fn rows(kv: &dyn KvRead) -> Vec<String> {
    let mut found = Vec::new();
    kv.scan(&[], &[0xff; 8], &mut |key, value| {
        found.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
        Step::Next
    })
    .unwrap();
    found
}

fn wait_for_sync(store: &Store) -> Result<(), StoreError> {
    let (sender, receiver) = mpsc::channel();
    store.sync(move |result| sender.send(result).unwrap());
    receiver.recv().unwrap()
}

#[test]
fn groups_and_columns_do_not_see_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(ONE, &writes(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
    store.commit(TWO, &writes(&[("a", Some("3"))])).unwrap();
    let mut batch = store.batch();
    batch.put(Column::Log, ONE, b"a", b"log");
    store.write(batch).unwrap();
    assert_eq!(rows(&store.view(ONE)), ["a=1", "b=2"]);
    assert_eq!(rows(&store.live(TWO)), ["a=3"]);
    assert_eq!(store.get(Column::Log, ONE, b"a").unwrap().unwrap(), "log");
    assert_eq!(store.get(Column::Log, TWO, b"a").unwrap(), None);
    assert!(rows(&store.view(GroupId(0))).is_empty());
}

#[test]
fn a_view_does_not_change() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(ONE, &writes(&[("a", Some("1"))])).unwrap();
    let view = store.view(ONE);
    store.commit(ONE, &writes(&[("a", None), ("b", Some("2"))])).unwrap();
    assert_eq!(rows(&view), ["a=1"]);
    assert_eq!(view.get(b"b").unwrap(), None);
    assert_eq!(rows(&store.view(ONE)), ["b=2"]);
}

#[test]
fn a_view_outlives_the_handle_of_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(ONE, &writes(&[("a", Some("1"))])).unwrap();
    let view = store.view(ONE).clone();
    drop(store);
    assert_eq!(view.get(b"a").unwrap().unwrap(), "1");
}

#[test]
fn scans_keep_to_their_range_and_seek_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let all: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|key| (*key, Some("v"))).collect();
    store.commit(ONE, &writes(&all)).unwrap();
    store.commit(TWO, &writes(&all)).unwrap();
    let walk = |reverse: bool, start: &str, end: &str, seek: Option<(&str, &str)>| {
        let mut found = String::new();
        let visit = &mut |key: &[u8], _: &[u8]| {
            let key = String::from_utf8(key.to_vec()).unwrap();
            found.push_str(&key);
            match seek {
                Some((at, "stop")) if at == key => Step::Stop,
                Some((at, to)) if at == key => Step::Seek(to.as_bytes().to_vec()),
                _ => Step::Next,
            }
        };
        let view = store.view(ONE);
        match reverse {
            false => view.scan(start.as_bytes(), end.as_bytes(), visit).unwrap(),
            true => view.scan_reverse(start.as_bytes(), end.as_bytes(), visit).unwrap(),
        }
        found
    };
    assert_eq!(walk(false, "b", "e", None), "bcd");
    assert_eq!(walk(true, "b", "e", None), "dcb");
    assert_eq!(walk(false, "", "z", Some(("a", "cc"))), "ade");
    assert_eq!(walk(true, "", "z", Some(("e", "cc"))), "ecba");
    assert_eq!(walk(false, "", "z", Some(("c", "a"))), "abcde", "a seek back is a step");
    assert_eq!(walk(false, "", "z", Some(("c", "zz"))), "abc");
    assert_eq!(walk(true, "b", "z", Some(("d", "a"))), "ed");
    assert_eq!(walk(false, "", "z", Some(("b", "stop"))), "ab");
    assert_eq!(walk(false, "d", "b", None), "");
}

#[test]
fn what_was_written_is_there_after_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = open(directory.path());
        assert_eq!(rows(&store.view(ONE)).len(), round);
        store.commit(ONE, &writes(&[(&format!("k{round}"), Some("v"))])).unwrap();
        wait_for_sync(&store).unwrap();
    }
}

#[test]
fn one_sync_serves_all_who_wait_and_none_runs_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let (entered, inside) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let hook: SyncHook = Arc::new({
        let syncs = syncs.clone();
        move || {
            if syncs.fetch_add(1, Ordering::SeqCst) == 0 {
                entered.send(()).unwrap();
                released.lock().recv().unwrap();
            }
            Ok(())
        }
    });
    let store = Store::open_with(directory.path(), &memory(), Some(hook)).unwrap();
    store.commit(ONE, &writes(&[("a", Some("1"))])).unwrap();
    let (sender, receiver) = mpsc::channel();
    let ask = |store: &Store| {
        let sender = sender.clone();
        store.sync(move |result| sender.send(result).unwrap());
    };
    ask(&store);
    inside.recv().unwrap();
    for _ in 0..50 {
        ask(&store);
    }
    release.send(()).unwrap();
    for _ in 0..51 {
        receiver.recv().unwrap().unwrap();
    }
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
    store.commit(ONE, &writes(&[("b", Some("1"))])).unwrap();
    assert_eq!(syncs.load(Ordering::SeqCst), 2, "a write alone syncs nothing");
}

#[test]
fn a_failed_sync_fails_the_store_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let hook: SyncHook = Arc::new({
        let broken = broken.clone();
        move || if broken.load(Ordering::SeqCst) { Err("injected".to_owned()) } else { Ok(()) }
    });
    let store = Store::open_with(directory.path(), &memory(), Some(hook)).unwrap();
    wait_for_sync(&store).unwrap();
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(wait_for_sync(&store), Err(StoreError::Failed { .. })));
    broken.store(false, Ordering::SeqCst);
    assert!(matches!(wait_for_sync(&store), Err(StoreError::Failed { .. })), "no retry (rule 6)");
    assert!(matches!(store.commit(ONE, &writes(&[("a", None)])), Err(StoreError::Failed { .. })));
    assert!(store.check().is_err() && store.stats().failed);
}

#[test]
fn an_installation_replaces_the_whole_state_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for round in 0..4 {
        store.commit(ONE, &writes(&[("old", Some("1")), ("shared", Some("1"))])).unwrap();
        store.commit(TWO, &writes(&[("other", Some("1"))])).unwrap();
        let before = store.view(ONE);
        let mut install = store.install(ONE).unwrap();
        assert!(matches!(store.install(ONE), Err(StoreError::InstallBusy { .. })));
        install.put(b"shared", b"2").unwrap();
        install.put(b"zz", &vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(rows(&store.view(ONE)), rows(&before), "nothing shows before the end");
        install.finish(|extra| extra.put(Column::Log, ONE, b"applied", &[round])).unwrap();
        assert_eq!(rows(&store.view(ONE)).len(), 2);
        assert_eq!(store.live(ONE).get(b"shared").unwrap().unwrap(), "2");
        assert_eq!(store.view(ONE).get(b"old").unwrap(), None);
        assert_eq!(rows(&before)[0], "old=1", "a view from before keeps its state");
        assert_eq!(rows(&store.view(TWO)), ["other=1"]);
        assert_eq!(store.get(Column::Log, ONE, b"applied").unwrap().unwrap(), &[round][..]);
    }
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.view(ONE).get(b"shared").unwrap().unwrap(), "2");
}

#[test]
fn an_installation_that_is_cut_short_leaves_the_old_state() {
    let directory = tempfile::tempdir().unwrap();
    let image = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(ONE, &writes(&[("old", Some("1"))])).unwrap();
    let mut install = store.install(ONE).unwrap();
    install.put(b"new", &vec![b'x'; 3 << 20]).unwrap();
    wait_for_sync(&store).unwrap();
    // What a crash at this moment would leave on disk.
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
    }
    drop(install);
    assert_eq!(rows(&store.view(ONE)), ["old=1"]);

    let crashed = open(image.path());
    assert_eq!(rows(&crashed.view(ONE)), ["old=1"]);
    let slot = engine::Slot::Second.prefix(ONE);
    let mut leftovers = crashed.inner.engine.database.raw_iterator_cf(crashed.inner.engine.handle(Column::State));
    leftovers.seek(slot);
    assert!(!leftovers.key().is_some_and(|key| key.starts_with(&slot)), "its rows are gone");
    let install = crashed.install(ONE).unwrap();
    install.finish(|_| ()).unwrap();
    assert!(rows(&crashed.view(ONE)).is_empty());
}

#[test]
fn a_store_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.inner.engine.database.put(FORMAT_ROW, "meridian store 999").unwrap();
    drop(store);
    let refused = Store::open(directory.path(), &memory()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreError::Format { .. }), "{refused}");
}

#[test]
fn a_range_delete_takes_its_range_only() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.commit(ONE, &writes(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))])).unwrap();
    let mut batch = store.batch();
    assert!(batch.is_empty());
    batch.delete_range(Column::State, ONE, b"a", b"c");
    store.write(batch).unwrap();
    assert_eq!(rows(&store.view(ONE)), ["c=1"]);
}
