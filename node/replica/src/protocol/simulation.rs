//! The three cores together in a world of crashes, cuts, reorderings and a wiped disk: what was acknowledged or seen is
//! never lost, and replicas end byte-identical.
//!
//! A byte is a number that is written once in the whole run. Disks keep what was synced, the write in progress by chance;
//! what a replica knows to be committed may fall back at a crash. Messages are delivered in any order, of earlier lives too;
//! one that is lost is noticed by its sender some time later. That a mistake here would be noticed is shown in `chaos`, where
//! the same cores run with planted ones.

use meridian_types::{Epoch, NodeId};

use super::Session;
use super::primary::{self, Primary};
use super::sealing::{Answer, Sealing};
use super::secondary::{self, Refused, Secondary};

const NODES: u32 = 3;
const STEPS_MAX: u32 = 600;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What a replica's disk holds.
struct File {
    epoch: Epoch,
    fenced: bool,
    data: Vec<u64>,
    /// What the index journal would prove.
    committed: u64,
    sealed: bool,
}

enum Core {
    Down,
    Primary(Primary),
    Secondary(Secondary),
}

struct Node {
    core: Core,
    /// Counts restarts: messages to an earlier process are lost.
    life: u64,
    file: Option<File>,
    /// The write in progress: where it goes, the bytes.
    writing: Option<(u64, Vec<u64>)>,
    /// Batches that the core holds, by request.
    batches: std::collections::BTreeMap<u64, (u64, Vec<u64>)>,
    cut: bool,
}

#[derive(Clone)]
enum Message {
    Secondary { event: secondary::Event, bytes: Vec<u64>, attempt: u32 },
    Primary(primary::Event),
    Fence,
    End,
}

struct Envelope {
    to: u32,
    life: u64,
    message: Message,
}

struct World {
    random: Random,
    nodes: Vec<Node>,
    mail: Vec<Envelope>,
    /// Who asked, by request: the primary's life and attempt, or the seal.
    asked: Vec<(u32, u64, u32)>,
    next_byte: u64,
    acknowledged: Vec<u64>,
    seen: Vec<u64>,
    reported: bool,
    sealing: Option<Sealing>,
    sealed: Option<u64>,
}

const PRIMARY: u32 = 0;
const FIRST: Epoch = Epoch(1);
const SEALED: Epoch = Epoch(2);

impl World {
    fn new(seed: u64) -> Self {
        let file = || File { epoch: FIRST, fenced: false, data: Vec::new(), committed: 0, sealed: false };
        let node = || Node {
            core: Core::Down,
            life: 0,
            file: Some(file()),
            writing: None,
            batches: Default::default(),
            cut: false,
        };
        let mut world = Self {
            random: Random(seed),
            nodes: (0..NODES).map(|_| node()).collect(),
            mail: Vec::new(),
            asked: Vec::new(),
            next_byte: 0,
            acknowledged: Vec::new(),
            seen: Vec::new(),
            reported: false,
            sealing: None,
            sealed: None,
        };
        (0..NODES).rev().for_each(|node| world.start(node)); // the primary last: it asks the others
        world
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    fn start(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        node.life += 1;
        let Some(file) = &node.file else { return };
        if file.fenced || file.sealed {
            return; // no core for it: the file answers
        }
        let (durable, committed) = (file.data.len() as u64, file.committed);
        if at == PRIMARY {
            node.core = Core::Primary(Primary::new((1..NODES).map(NodeId), durable, committed));
            self.primary(primary::Event::Start);
        } else {
            node.core = Core::Secondary(Secondary::new(file.epoch, durable, committed));
        }
    }

    fn crash(&mut self, at: u32) {
        let survives = self.chance(2);
        let keeps = self.random.below(3);
        let node = &mut self.nodes[at as usize];
        node.core = Core::Down;
        node.batches.clear();
        let writing = node.writing.take();
        if let Some(file) = &mut node.file {
            if let Some((offset, bytes)) = writing.filter(|_| survives) {
                assert_eq!(offset, file.data.len() as u64);
                file.data.extend(bytes);
            }
            if !file.sealed {
                file.committed = file.committed * keeps / 2;
            }
        }
        node.life += 1;
    }

    fn send(&mut self, to: u32, message: Message) {
        let life = self.nodes[to as usize].life;
        self.mail.push(Envelope { to, life, message });
    }

    fn ask(&mut self, to: NodeId, attempt: u32, event: impl FnOnce(u64) -> secondary::Event, bytes: Vec<u64>) {
        let request = self.asked.len() as u64;
        self.asked.push((to.0, self.nodes[PRIMARY as usize].life, attempt));
        self.send(to.0, Message::Secondary { event: event(request), bytes, attempt });
    }

    /// The primary hears of what it asked for, if it still lives.
    fn tell_primary(&mut self, request: u64, event: primary::Event) {
        let life = self.asked[request as usize].1;
        self.mail.push(Envelope { to: PRIMARY, life, message: Message::Primary(event) });
    }

    fn primary(&mut self, event: primary::Event) {
        let life = self.nodes[PRIMARY as usize].life;
        let mut effects = Vec::new();
        match &mut self.nodes[PRIMARY as usize].core {
            Core::Primary(core) => core.step(event, &mut effects),
            _ => return,
        }
        for effect in effects {
            match effect {
                primary::Effect::Begin { node, attempt } => {
                    let session = Session(life);
                    let begin = |request| secondary::Event::Begin { request, epoch: FIRST, session };
                    self.ask(node, attempt, begin, Vec::new());
                }
                primary::Effect::Send { node, attempt, to, committed } => {
                    let (offset, bytes) = self.nodes[PRIMARY as usize].batches[&to].clone();
                    let (session, epoch) = (Session(life), FIRST);
                    let append = |request| secondary::Event::Append { request, epoch, session, offset, to, committed };
                    self.ask(node, attempt, append, bytes);
                }
                primary::Effect::Write { to } => {
                    let node = &mut self.nodes[PRIMARY as usize];
                    assert!(node.writing.is_none());
                    node.writing = Some(node.batches[&to].clone());
                }
                primary::Effect::Commit { to } => {
                    let file = self.nodes[PRIMARY as usize].file.as_mut().expect("a primary has its file");
                    assert!(!file.fenced, "a fenced primary acknowledges late");
                    file.committed = to;
                    self.acknowledged = file.data[..to as usize].to_vec();
                }
                primary::Effect::Tell { node, committed } => {
                    let (session, epoch) = (Session(life), FIRST);
                    self.ask(node, 0, |request| secondary::Event::Tell { request, epoch, session, committed }, vec![]);
                }
                primary::Effect::Fail { .. } => self.reported = true,
            }
        }
    }

    fn secondary(&mut self, at: u32, event: secondary::Event) {
        let mut effects = Vec::new();
        match &mut self.nodes[at as usize].core {
            Core::Secondary(core) => core.step(event, &mut effects),
            _ => return,
        }
        for effect in effects {
            match effect {
                secondary::Effect::Write { request } => {
                    let node = &mut self.nodes[at as usize];
                    assert!(node.writing.is_none());
                    node.writing = Some(node.batches[&request].clone());
                }
                secondary::Effect::Answer { request, outcome } => self.answered(at, request, outcome),
                secondary::Effect::Commit { to } => {
                    let file = self.nodes[at as usize].file.as_mut().expect("a core has its file");
                    assert!(to as usize <= file.data.len());
                    file.committed = to;
                }
            }
        }
    }

    fn answered(&mut self, at: u32, request: u64, outcome: Result<u64, Refused>) {
        let (_, _, attempt) = self.asked[request as usize];
        let node = NodeId(at);
        let began = self.nodes[at as usize].batches.remove(&request).is_none();
        if attempt == 0 {
            return; // a tell
        }
        let event = match outcome {
            Ok(end) if began => primary::Event::Begun { node, attempt, end },
            Ok(end) => primary::Event::Acknowledged { node, end },
            Err(Refused::UnknownSession) => primary::Event::SessionLost { node, attempt },
            Err(refused) => primary::Event::LinkFailed { node, reason: refused.to_string() },
        };
        self.tell_primary(request, event);
    }

    fn deliver(&mut self) {
        if self.mail.is_empty() {
            return;
        }
        let pick = self.random.below(self.mail.len() as u64) as usize;
        let Envelope { to, life, message } = self.mail.swap_remove(pick);
        let node = &self.nodes[to as usize];
        let lost = node.life != life || node.cut || matches!(node.core, Core::Down) && node.file.is_none();
        let down = node.life.is_multiple_of(2); // a crashed node answers nothing
        match message {
            Message::Primary(event) => {
                if !lost && !down {
                    self.primary(event);
                } else if node.life == life && !down {
                    // Only cut: the answer is lost, and the sender's deadline passes.
                    let reason = "no answer in time".to_owned();
                    self.primary(primary::Event::LinkFailed { node: NodeId(1), reason });
                }
            }
            Message::Secondary { event, bytes, attempt } => {
                let request = match event {
                    secondary::Event::Begin { request, .. }
                    | secondary::Event::Append { request, .. }
                    | secondary::Event::Tell { request, .. } => request,
                    _ => unreachable!("others are not sent"),
                };
                if lost || down || matches!(node.core, Core::Down) {
                    if attempt > 0 {
                        let reason = "unreachable".to_owned();
                        self.tell_primary(request, primary::Event::LinkFailed { node: NodeId(to), reason });
                    }
                    return;
                }
                if let secondary::Event::Append { offset, .. } = event {
                    self.nodes[to as usize].batches.insert(request, (offset, bytes));
                }
                self.secondary(to, event);
            }
            Message::Fence if node.cut || down => {
                let answer = Answer::Unreachable { reason: "cut".to_owned() };
                self.fenced(to, answer);
            }
            Message::Fence => self.fence(to),
            Message::End if node.cut || down => {}
            Message::End => self.end(to),
        }
    }

    /// Records the epoch behind the write in progress, as the shell does, and reports.
    fn fence(&mut self, at: u32) {
        while self.nodes[at as usize].writing.is_some() {
            self.finish_write(at); // a batch that was held may be next
        }
        let Some(file) = &mut self.nodes[at as usize].file else {
            return self.fenced(at, Answer::Incomplete { reason: "it has no file".to_owned() });
        };
        (file.epoch, file.fenced) = (SEALED, true);
        let answer = Answer::Report { epoch: SEALED, length: file.data.len() as u64, committed: file.committed };
        if at == PRIMARY {
            self.primary(primary::Event::Fenced);
        } else {
            self.secondary(at, secondary::Event::Fenced { epoch: SEALED });
        }
        self.fenced(at, answer);
    }

    fn fenced(&mut self, at: u32, answer: Answer) {
        if let Some(sealing) = &mut self.sealing {
            sealing.answered(NodeId(at), answer);
        }
    }

    fn end(&mut self, at: u32) {
        let length = self.sealed.expect("it is ended once decided") as usize;
        if self.nodes[at as usize].file.as_ref().is_some_and(|file| !file.fenced) {
            self.fence(at);
        }
        if let Some(file) = self.nodes[at as usize].file.as_mut().filter(|file| file.data.len() >= length) {
            assert!(file.committed as usize <= length, "committed bytes are cut");
            file.data.truncate(length);
            (file.committed, file.sealed) = (length as u64, true);
        }
    }

    fn finish_write(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        let Some((offset, bytes)) = node.writing.take() else { return };
        let file = node.file.as_mut().expect("a write has its file");
        assert_eq!(offset, file.data.len() as u64, "a batch is written at the end");
        file.data.extend(bytes);
        let end = file.data.len() as u64;
        if at == PRIMARY {
            self.primary(primary::Event::Synced { end });
        } else {
            self.secondary(at, secondary::Event::Synced);
        }
    }

    fn write(&mut self) {
        let has_room = match &self.nodes[PRIMARY as usize].core {
            Core::Primary(core) => core.has_room(),
            _ => false,
        };
        let node = &mut self.nodes[PRIMARY as usize];
        if !has_room || node.writing.is_some() {
            return;
        }
        let offset = node.file.as_ref().expect("a primary has its file").data.len() as u64;
        let bytes: Vec<u64> = (0..1 + self.random.below(3)).map(|byte| self.next_byte + byte).collect();
        self.next_byte += bytes.len() as u64;
        let end = offset + bytes.len() as u64;
        node.batches.insert(end, (offset, bytes));
        self.primary(primary::Event::Placed { end });
    }

    fn read(&mut self) {
        let at = self.random.below(u64::from(NODES)) as usize;
        if let Some(file) = &self.nodes[at].file {
            let visible = &file.data[..file.committed as usize];
            let common = visible.len().min(self.seen.len());
            assert_eq!(visible[..common], self.seen[..common], "two readers see different bytes");
            if visible.len() > self.seen.len() {
                self.seen = visible.to_vec();
            }
        }
    }

    fn seal(&mut self) {
        if self.sealed.is_some() {
            (0..NODES).for_each(|node| self.send(node, Message::End));
            return;
        }
        match &self.sealing {
            None => {
                self.sealing = Some(Sealing::new(SEALED, (0..NODES).map(NodeId), 0));
                (0..NODES).for_each(|node| self.send(node, Message::Fence));
            }
            // Decided with who has answered; without a complete one it is asked again.
            Some(sealing) => match sealing.decide() {
                Ok(decision) => self.sealed = Some(decision.length),
                Err(_) => self.sealing = None,
            },
        }
    }

    fn run(mut self) {
        let steps = self.random.below(u64::from(STEPS_MAX));
        let mut wiped = false;
        for _ in 0..steps {
            match self.random.below(60) {
                0..=14 => self.write(),
                15..=34 => self.deliver(),
                35..=44 => {
                    let at = self.random.below(u64::from(NODES)) as u32;
                    self.finish_write(at);
                }
                45..=48 => self.read(),
                49 => self.primary(primary::Event::TellDue),
                50 | 51 if self.chance(4) => {
                    let at = self.random.below(u64::from(NODES)) as u32;
                    if !self.nodes[at as usize].life.is_multiple_of(2) {
                        self.crash(at);
                        // Later the only replica that reached the seal may be gone, and with it bytes that nobody was told
                        // of: two failures at once, which one more replica survives.
                        if !wiped && self.sealing.is_none() && self.chance(3) {
                            wiped = true;
                            self.nodes[at as usize].file = None;
                        }
                    }
                }
                52 | 53 => {
                    let at = self.random.below(u64::from(NODES)) as u32;
                    if self.nodes[at as usize].life.is_multiple_of(2) {
                        self.start(at);
                    }
                }
                54 if self.chance(4) => {
                    let at = self.random.below(u64::from(NODES)) as usize;
                    self.nodes[at].cut = !self.nodes[at].cut;
                }
                55..=57 if self.reported => self.seal(),
                58 if self.chance(30) => self.reported = true, // an operator, or a silent primary
                _ => {}
            }
        }
        self.heal_and_check();
    }

    fn heal_and_check(mut self) {
        for at in 0..NODES {
            self.nodes[at as usize].cut = false;
            if self.nodes[at as usize].life.is_multiple_of(2) {
                self.start(at);
            }
        }
        for _ in 0..100 {
            while !self.mail.is_empty() {
                self.deliver();
            }
            (0..NODES).for_each(|node| self.finish_write(node));
            self.seal();
        }
        let length = self.sealed.expect("a healed volume is sealed") as usize;
        self.read();
        let files: Vec<&File> = self.nodes.iter().filter_map(|node| node.file.as_ref()).collect();
        let ended: Vec<&&File> = files.iter().filter(|file| file.sealed).collect();
        assert!(!ended.is_empty(), "nobody has the sealed bytes");
        for file in &ended {
            assert_eq!(file.data, ended[0].data, "sealed replicas differ");
            assert_eq!(file.data.len(), length);
        }
        for file in &files {
            let common = file.data.len().min(length);
            assert_eq!(file.data[..common], ended[0].data[..common], "a short replica is another beginning");
        }
        let acknowledged = &self.acknowledged;
        assert!(ended[0].data.starts_with(acknowledged), "acknowledged bytes are lost");
        assert!(ended[0].data.starts_with(&self.seen), "bytes that were read are lost");
    }
}

/// Runs a seed and says whether what must hold did.
fn holds(seed: u64) -> Result<(), String> {
    let outcome = std::panic::catch_unwind(|| World::new(seed).run());
    outcome.map_err(|panic| match panic.downcast::<String>() {
        Ok(said) => *said,
        Err(panic) => panic.downcast::<&str>().map_or("?".to_owned(), |said| (*said).to_owned()),
    })
}

#[test]
fn nothing_acknowledged_or_seen_is_lost_in_any_run() {
    for seed in 0..4000 {
        if let Err(said) = holds(seed) {
            panic!("seed {seed}: {said}");
        }
    }
}

#[test]
fn runs_do_acknowledge_read_and_lose_replicas() {
    let (mut acknowledged, mut lost) = (0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            match world.random.below(4) {
                0 => world.write(),
                1 => (0..NODES).for_each(|node| world.finish_write(node)),
                _ => world.deliver(),
            }
        }
        acknowledged += usize::from(world.acknowledged.len() > 10);
        world.crash(1);
        world.nodes[1].file = None;
        world.start(1);
        world.heal_and_check();
        lost += 1;
    }
    assert_eq!((acknowledged, lost), (200, 200));
}
