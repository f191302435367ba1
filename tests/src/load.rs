//! Clients that write, overwrite, delete, upload in parts and read at once, and note in the ledger what they were told.
//!
//! Invariants: every request is one that a healthy cluster accepts, so a 4xx is a fault of the cluster; an upload that
//! a crash interrupts is carried on afterwards by the same client, as S3 promises; what is read on the way is judged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::task::JoinSet;

use crate::body::{BODY_SIZE_MIN, describing_body, number_of_body};
use crate::cluster::wait_until;
use crate::ledger::{Ledger, Moment, Outcome, Reader, Ticket};
use crate::random::Random;
use crate::s3::{Answer, S3, object_path};

/// Keys that only one client mutates.
const OWN_KEYS: u64 = 8;
/// Keys that only one client mutates, by uploads in parts.
const UPLOAD_KEYS: u64 = 2;
/// Keys that all clients of all datacenters mutate.
const SHARED_KEYS: u64 = 12;
/// The smallest part that is not the last, in bytes.
const PART_SIZE_MIN: usize = 5 << 20;
/// How long the load may take to get somewhere.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(60);

/// Between two tries of a client whose server does not answer.
const GONE_PAUSE: Duration = Duration::from_millis(25);

/// What a client is told by an answer, or by none.
pub fn outcome_of(answer: &Result<Answer>) -> Outcome {
    match answer {
        Ok(answer) if answer.status.is_success() => Outcome::Acknowledged,
        Ok(answer) if answer.status.is_server_error() => Outcome::Unknown,
        Ok(_) => Outcome::Refused,
        Err(error) if was_never_sent(error) => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    }
}

/// No connection was made: nobody can have seen the request.
fn was_never_sent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect())
}

/// The number of the write that an answer to GET holds; `None` for no such key.
///
/// # Errors
/// Bytes that are no write of that key. `Ok(None)` on the outside: the answer says nothing.
pub fn found_in(key: &str, answer: &Result<Answer>) -> Result<Option<Option<u64>>> {
    let Ok(answer) = answer else { return Ok(None) };
    match answer.status {
        StatusCode::OK => match number_of_body(key, &answer.body) {
            Ok(number) => Ok(Some(Some(number))),
            Err(wrong) => bail!("{key}: read {wrong}"),
        },
        StatusCode::NOT_FOUND if answer.text().contains("<Code>NoSuchKey</Code>") => Ok(Some(None)),
        status if status.is_server_error() => Ok(None),
        status => bail!("{key}: GET answered {status}: {}", answer.text()),
    }
}

/// One client of one datacenter.
pub struct LoadClient {
    s3: S3,
    bucket: &'static str,
    datacenter: String,
    number: u64,
    random: Random,
    /// Sends parts that are as large as S3 demands of all but the last.
    large_parts: bool,
    upload: Option<Upload>,
    trouble: Trouble,
}

/// The last answer that was no acknowledgement, to tell why a load does not get on.
type Trouble = Arc<Mutex<Option<String>>>;

/// An upload on its way.
struct Upload {
    key: String,
    id: String,
    number: u64,
    /// The parts' sizes; all but the first `etags.len()` are still to be sent.
    parts: Vec<usize>,
    etags: Vec<String>,
}

/// How a step ended.
enum Step {
    Done,
    /// No connection could be made.
    ServerGone,
}

impl LoadClient {
    pub fn new(s3: S3, bucket: &'static str, datacenter: &str, number: u64, random: Random) -> Self {
        let datacenter = datacenter.to_owned();
        Self {
            s3,
            bucket,
            datacenter,
            number,
            random,
            large_parts: number == 0,
            upload: None,
            trouble: Trouble::default(),
        }
    }

    async fn run(&mut self, ledger: &Ledger, stop: &AtomicBool) -> Result<()> {
        let name = format!("client {} of {}", self.number, self.datacenter);
        while !stop.load(Ordering::Relaxed) {
            if let Step::ServerGone = self.step(ledger).await.with_context(|| name.clone())? {
                tokio::time::sleep(GONE_PAUSE).await; // it was killed, or has not started yet
            }
        }
        Ok(())
    }

    async fn step(&mut self, ledger: &Ledger) -> Result<Step> {
        match self.random.below(100) {
            0..40 => self.put(ledger, self.own_key()).await,
            40..56 => self.put(ledger, self.shared_key()).await,
            56..66 => self.delete(ledger, self.own_key()).await,
            66..70 => self.delete(ledger, self.shared_key()).await,
            70..84 => self.carry_on_upload(ledger).await,
            84..96 => self.get(ledger, self.own_key()).await,
            _ => self.get(ledger, self.shared_key()).await,
        }
    }

    fn own_key(&self) -> String {
        format!("{}/{:02}/{}", self.datacenter, self.number, self.random.below(OWN_KEYS))
    }

    fn shared_key(&self) -> String {
        format!("shared/{}", self.random.below(SHARED_KEYS))
    }

    fn size(&self) -> usize {
        let chunk = 4 << 20;
        let (from, to) = match self.random.below(100) {
            0..50 => (BODY_SIZE_MIN, 1000),
            50..75 => (1000, 16 << 10),
            75..90 => ((64 << 10) - 40, (64 << 10) + 40),
            90..98 => (200_000, 800_000),
            _ => (chunk - 100, chunk + 100_000),
        };
        from + self.random.below((to - from) as u64) as usize
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        self.s3.call(method, path, &[], body).await
    }

    /// Notes the outcome of one request. A 4xx is an error: nothing invalid is ever sent.
    fn end(&self, ledger: &Ledger, ticket: Option<&Ticket>, answer: &Result<Answer>) -> Result<Step> {
        let outcome = outcome_of(answer);
        if let Some(ticket) = ticket {
            ledger.finish(ticket, outcome);
        }
        if outcome != Outcome::Acknowledged {
            *self.trouble.lock().expect("nobody panics here") = Some(format!("{answer:?}"));
        }
        match (outcome, answer) {
            (Outcome::Refused, Ok(answer)) => bail!("refused {ticket:?}: {} {}", answer.status, answer.text()),
            (Outcome::Refused, Err(_)) => Ok(Step::ServerGone),
            _ => Ok(Step::Done),
        }
    }

    async fn put(&self, ledger: &Ledger, key: String) -> Result<Step> {
        let number = ledger.number();
        let body = describing_body(&key, number, self.size());
        let ticket = ledger.begin(&self.datacenter, &key, Some(number));
        let answer = self.call(Method::PUT, &object_path(self.bucket, &key), body).await;
        self.end(ledger, Some(&ticket), &answer)
    }

    async fn delete(&self, ledger: &Ledger, key: String) -> Result<Step> {
        let ticket = ledger.begin(&self.datacenter, &key, None);
        let answer = self.call(Method::DELETE, &object_path(self.bucket, &key), Bytes::new()).await;
        self.end(ledger, Some(&ticket), &answer)
    }

    async fn get(&self, ledger: &Ledger, key: String) -> Result<Step> {
        let reader = Reader { datacenter: &self.datacenter, began: ledger.now(), replicated: Moment::default() };
        let answer = self.call(Method::GET, &object_path(self.bucket, &key), Bytes::new()).await;
        if let Some(found) = found_in(&key, &answer)? {
            ledger.judge(&key, found, reader).map_err(anyhow::Error::msg)?;
        }
        self.end(ledger, None, &answer.map(|answer| Answer { status: StatusCode::OK, ..answer }))
    }

    /// The next request of the upload at hand, or the first of a new one.
    async fn carry_on_upload(&mut self, ledger: &Ledger) -> Result<Step> {
        let Some(mut upload) = self.upload.take() else { return self.begin_upload(ledger).await };
        let sent = upload.etags.len();
        let path = object_path(self.bucket, &upload.key);
        let id = &upload.id;
        if sent == upload.parts.len() {
            let parts: String = (1..)
                .zip(&upload.etags)
                .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
                .collect();
            let list = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
            let ticket = ledger.begin(&self.datacenter, &upload.key, Some(upload.number));
            let mut answer = self.call(Method::POST, &format!("{path}?uploadId={id}"), list.into()).await;
            if let Ok(answer) = &mut answer
                && answer.status == StatusCode::OK
                && answer.elements("CompleteMultipartUploadResult").is_empty()
                && !answer.text().contains("<CompleteMultipartUploadResult")
            {
                answer.status = StatusCode::INTERNAL_SERVER_ERROR; // S3 may say so behind a 200
            }
            if outcome_of(&answer) != Outcome::Acknowledged {
                self.upload = Some(upload); // asked again: a repeated Complete gets the remembered answer
            }
            return self.end(ledger, Some(&ticket), &answer);
        }
        let from: usize = upload.parts[..sent].iter().sum();
        let size = upload.parts.iter().sum();
        let part = describing_body(&upload.key, upload.number, size).slice(from..from + upload.parts[sent]);
        let part_path = format!("{path}?partNumber={}&uploadId={id}", sent + 1);
        let answer = self.call(Method::PUT, &part_path, part).await;
        if let (Outcome::Acknowledged, Ok(answer)) = (outcome_of(&answer), &answer) {
            upload.etags.push(answer.header("etag").context("a part has an ETag")?.to_owned());
        }
        self.upload = Some(upload);
        self.end(ledger, None, &answer)
    }

    async fn begin_upload(&mut self, ledger: &Ledger) -> Result<Step> {
        let key = format!("{}/{:02}/upload-{}", self.datacenter, self.number, self.random.below(UPLOAD_KEYS));
        let answer =
            self.call(Method::POST, &format!("{}?uploads", object_path(self.bucket, &key)), Bytes::new()).await;
        if let (Outcome::Acknowledged, Ok(answer)) = (outcome_of(&answer), &answer) {
            let id = answer.elements("UploadId").pop().context("an upload has an id")?;
            let parts = if self.large_parts { vec![PART_SIZE_MIN, self.size()] } else { vec![self.size()] };
            self.upload = Some(Upload { key, id, number: ledger.number(), parts, etags: Vec::new() });
        }
        self.end(ledger, None, &answer)
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    trouble: Trouble,
    ledger: Arc<Ledger>,
    tasks: JoinSet<Result<LoadClient>>,
}

impl Load {
    pub fn start(clients: Vec<LoadClient>, ledger: &Arc<Ledger>) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (trouble, mut tasks) = (Trouble::default(), JoinSet::new());
        for mut client in clients {
            client.trouble = Arc::clone(&trouble);
            let (ledger, stop, failed) = (Arc::clone(ledger), Arc::clone(&stop), Arc::clone(&failed));
            tasks.spawn(async move {
                let ran = client.run(&ledger, &stop).await;
                failed.fetch_or(ran.is_err(), Ordering::Relaxed);
                ran.map(|()| client)
            });
        }
        Self { stop, failed, trouble, ledger: Arc::clone(ledger), tasks }
    }

    /// Waits until so many more mutations are acknowledged, or a client has found a fault, which `finish` tells.
    ///
    /// # Errors
    /// When the load does not get that far in time.
    pub async fn acknowledged(&self, more: u64) -> Result<()> {
        let target = self.ledger.acknowledged() + more;
        self.until(&format!("{more} acknowledgements"), async || self.ledger.acknowledged() >= target).await
    }

    /// Waits for a condition, or until a client has found a fault.
    ///
    /// # Errors
    /// When neither comes in time.
    pub async fn until<F>(&self, what: &str, mut condition: F) -> Result<()>
    where
        F: AsyncFnMut() -> bool,
    {
        let failed = || self.failed.load(Ordering::Relaxed);
        let waited = wait_until(what, PROGRESS_DEADLINE, async || failed() || condition().await).await;
        waited.with_context(|| format!("the last trouble was {:?}", self.trouble.lock().expect("nobody panics here")))
    }

    /// Lets the clients end what they have sent, and returns them.
    ///
    /// # Errors
    /// The first fault that a client has found.
    pub async fn finish(mut self) -> Result<Vec<LoadClient>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut clients = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            clients.push(ended.context("a client panicked")??);
        }
        Ok(clients)
    }
}
