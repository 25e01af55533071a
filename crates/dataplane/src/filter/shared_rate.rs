//! A rate limit that many proxies keep together, in a Redis server: the same bucket as [`super::rate`], in one script, so that a
//! request costs one round trip. A thread of its own asks; requests that come meanwhile go together in one write.
//!
//! ```text
//!   here ──a failure, or a request that waited in vain──▶ away ──it answers when looked for──▶ here
//! ```
//!
//! While the server is away no request waits for it: it is looked for beside them, and only if somebody wants to know.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::rate::{Allowance, Per, Verdict};
use super::wait::Waiter;
use super::{Asked, Flow, Gate, NotesSlot, Response};
use crate::clock;
use crate::count::{Tally, Throttle};
use crate::exchange::Failure;

pub mod redis;

use redis::{Connection, Server, Value};

/// Requests that may wait to be asked for.
const QUEUE: usize = 4096;
/// Requests that are asked for together.
const BATCH: usize = 128;
/// While it is away, the server is looked for once in so many nanoseconds.
const REST: u64 = 500 * clock::MILLISECOND;
/// What looking for it may take; no request waits meanwhile.
const LOOK: Duration = Duration::from_secs(2);
/// Nanoseconds between two words about what it refuses.
const QUIET: u64 = 10 * clock::SECOND;
/// TLS needs some stack.
const STACK: usize = 192 << 10;

/// The bucket, in microseconds of the server's clock: when it will be full. Answers: allowed, remaining, retry, reset.
/// `%.0f`, since Lua writes large numbers with an exponent. A debt larger than the bucket comes from a clock that was set back, or
/// from a bucket that was larger. A script runs alone, and the key is gone when the bucket is full.
const SCRIPT: &str = "local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local each, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local function owe(debt)
  redis.call('SET', KEYS[1], string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000))
end
local debt = tonumber(redis.call('GET', KEYS[1]) or now) - now
if debt < 0 then debt = 0 end
if debt > room then
  debt = room
  owe(debt)
end
if debt + each > room then return {0, 0, debt + each - room, debt} end
debt = debt + each
owe(debt)
return {1, math.floor((room - debt) / each), 0, debt}";

/// What the whole group of proxies keeps to.
#[derive(Debug)]
pub struct SharedRate {
    per: Per,
    open: bool,
    timeout: Duration,
    prefix: Vec<u8>,
    tasks: SyncSender<Task>,
    counts: Arc<Counts>,
    sight: Arc<Sight>,
}

/// Whether the server is there.
#[derive(Debug, Default)]
struct Sight {
    away: AtomicBool,
    /// When it may be looked for again, in nanoseconds of the clock.
    look_at: AtomicU64,
}

impl Sight {
    /// True: it has just gone.
    fn lose(&self) -> bool {
        self.look_at.store(clock::now() + REST, Ordering::Relaxed);
        !self.away.swap(true, Ordering::Relaxed)
    }

    /// True: it has just come back.
    fn find(&self) -> bool {
        self.away.swap(false, Ordering::Relaxed)
    }

    /// Whether it is the caller who has it looked for.
    fn is_due(&self) -> bool {
        let (now, due) = (clock::now(), self.look_at.load(Ordering::Relaxed));
        let next = now + REST;
        now >= due && self.look_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// What the thread is to do.
#[derive(Debug)]
enum Task {
    Ask(Question),
    /// See whether the server is back.
    Look,
}

#[derive(Debug, Default)]
struct Counts {
    refused: Tally,
    /// Not asked about, because the server did not answer.
    unknown: Tally,
}

#[derive(Debug)]
struct Question {
    key: Vec<u8>,
    waiter: Waiter,
    until: Instant,
}

/// How a [`SharedRate`] is made.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server: Server,
    pub per: Per,
    pub allowance: Allowance,
    pub tells: bool,
    /// Without an answer in time the request goes on; else it is refused with 503.
    pub open: bool,
    pub timeout: Duration,
    /// The beginning of every key.
    pub prefix: String,
}

impl SharedRate {
    /// Starts the thread that asks; it ends with this.
    pub fn start(settings: Settings) -> io::Result<SharedRate> {
        let (tasks, receiver) = sync_channel(QUEUE);
        let (counts, sight) = (Arc::<Counts>::default(), Arc::<Sight>::default());
        let asker = Asker {
            server: settings.server,
            allowance: settings.allowance,
            tells: settings.tells,
            open: settings.open,
            timeout: settings.timeout,
            counts: Arc::clone(&counts),
            sight: Arc::clone(&sight),
            connection: None,
            known: Vec::new(),
            refusals: Throttle::default(),
        };
        std::thread::Builder::new().name("limits".to_owned()).stack_size(STACK).spawn(move || asker.run(&receiver))?;
        Ok(SharedRate {
            per: settings.per,
            open: settings.open,
            timeout: settings.timeout,
            prefix: settings.prefix.into_bytes(),
            tasks,
            counts,
            sight,
        })
    }
}

/// What happens to a request nobody could be asked about.
fn unknown(open: bool) -> Flow {
    if open {
        return Flow::Continue;
    }
    let mut response = Response::refuse(503, Failure::Limit, "the rate limit is not known");
    response.lines.extend_from_slice(b"Retry-After: 1\r\n");
    Flow::Respond(response)
}

impl Gate for SharedRate {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        let Some(waiting) = &asked.waiting else { return unknown(self.open) };
        if self.sight.away.load(Ordering::Relaxed) {
            if self.sight.is_due() {
                // If it has so much to do, it will see.
                let _ = self.tasks.try_send(Task::Look);
            }
            self.counts.unknown.add();
            return unknown(self.open);
        }
        let mut key = self.prefix.clone();
        self.per.key(asked, &mut key);
        let question = Question { key, waiter: waiting.waiter(), until: Instant::now() + self.timeout };
        match self.tasks.try_send(Task::Ask(question)) {
            Ok(()) => Flow::Wait,
            Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) => {
                if let Task::Ask(question) = task {
                    question.waiter.forget();
                }
                self.counts.unknown.add();
                unknown(self.open)
            }
        }
    }

    /// The question waits its turn for as long as its answer may take.
    fn patience(&self) -> Duration {
        2 * self.timeout
    }

    fn late(&self) -> Flow {
        // Nobody else waits before it has been seen.
        self.sight.lose();
        self.counts.unknown.add();
        unknown(self.open)
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        tell("shared_rate", "deny", self.counts.refused.value());
        tell("shared_rate", if self.open { "allow_unknown" } else { "deny_unknown" }, self.counts.unknown.value());
    }
}

/// The thread that asks.
struct Asker {
    server: Server,
    allowance: Allowance,
    tells: bool,
    open: bool,
    timeout: Duration,
    counts: Arc<Counts>,
    sight: Arc<Sight>,
    /// With the script's name there.
    connection: Option<(Connection, Vec<u8>)>,
    /// Its addresses, when they were last found.
    known: Vec<SocketAddr>,
    refusals: Throttle,
}

impl Asker {
    fn run(mut self, tasks: &Receiver<Task>) {
        // The first who ask do not wait for a handshake.
        self.look();
        while let Ok(first) = tasks.recv() {
            let (mut batch, mut looks) = (Vec::new(), false);
            for task in std::iter::once(first).chain(tasks.try_iter().take(BATCH - 1)) {
                match task {
                    Task::Ask(question) => batch.push(question),
                    Task::Look => looks = true,
                }
            }
            if !batch.is_empty() {
                self.answer(batch);
            }
            if looks {
                self.look();
            }
        }
    }

    /// Sees whether the server is there, while nobody waits for it.
    fn look(&mut self) {
        let until = Instant::now() + LOOK;
        let seen = match &mut self.connection {
            None => self.open(until),
            // One that has ended says nothing about the next.
            Some((connection, _)) => match connection.ask(&[b"PING"], until) {
                Ok(_) => Ok(()),
                Err(_) => self.open(until),
            },
        };
        self.see(seen);
    }

    /// Takes note of whether the server answers.
    fn see(&mut self, seen: io::Result<()>) {
        match seen {
            Ok(()) => {
                if self.sight.find() {
                    daemon::info!("the shared rate limit is asked again", server = self.server.name);
                }
            }
            Err(error) => {
                self.connection = None;
                if self.sight.lose() {
                    daemon::warn!("failed to ask the shared rate limit", server = self.server.name, reason = error);
                }
            }
        }
    }

    fn answer(&mut self, batch: Vec<Question>) {
        let now = Instant::now();
        // Those that their workers have given up themselves.
        let (gone, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|question| self.is_gone(question, now));
        gone.into_iter().for_each(|question| question.waiter.forget());
        if self.sight.away.load(Ordering::Relaxed) {
            return batch.into_iter().for_each(|question| self.give_up(question));
        }
        // Those that have waited through a batch that was not answered.
        let (late, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|question| question.until < now);
        late.into_iter().for_each(|question| self.give_up(question));
        if batch.is_empty() {
            return;
        }
        match self.ask(&batch) {
            Ok(verdicts) => {
                self.see(Ok(()));
                for (question, verdict) in batch.into_iter().zip(verdicts) {
                    match verdict {
                        Some(verdict) => self.tell(question, verdict),
                        None => self.give_up(question),
                    }
                }
            }
            Err(error) => {
                self.see(Err(error));
                batch.into_iter().for_each(|question| self.give_up(question));
            }
        }
    }

    fn open(&mut self, until: Instant) -> io::Result<()> {
        self.connection = None;
        let mut connection = Connection::open(&self.server, &mut self.known, until)?;
        self.connection = match connection.ask(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()], until)? {
            Value::Text(script) => Some((connection, script)),
            Value::Error(message) => return Err(io::Error::other(message)),
            _ => return Err(io::Error::other("the script was not taken")),
        };
        Ok(())
    }

    /// A connection that has served may have ended since, or the server may have forgotten the script: then once more. At worst
    /// what was asked counts twice.
    fn ask(&mut self, batch: &[Question]) -> io::Result<Vec<Option<Verdict>>> {
        let until = Instant::now() + self.timeout;
        let served = self.connection.is_some();
        if !served {
            self.open(until)?;
        }
        match self.ask_once(batch, until) {
            Err(error) if served && error.kind() != io::ErrorKind::TimedOut => {
                self.open(until)?;
                self.ask_once(batch, until)
            }
            asked => asked,
        }
    }

    /// One write, one answer each. What nobody is told is an error.
    fn ask_once(&mut self, batch: &[Question], until: Instant) -> io::Result<Vec<Option<Verdict>>> {
        let Some((connection, script)) = &mut self.connection else { return Err(io::ErrorKind::NotConnected.into()) };
        let each = (self.allowance.period / self.allowance.requests.max(1) / 1000).max(1);
        let (room, each) = ((each * self.allowance.burst.max(1)).to_string(), each.to_string());
        for question in batch {
            connection.put(&[b"EVALSHA", script, b"1", &question.key, each.as_bytes(), room.as_bytes()]);
        }
        connection.send(until)?;
        let mut verdicts = Vec::with_capacity(batch.len());
        let mut refused = None;
        for _ in batch {
            verdicts.push(match connection.read(until)? {
                Value::List(list) => verdict(&list),
                Value::Error(message) => {
                    refused = Some(message);
                    None
                }
                _ => None,
            });
        }
        if verdicts.iter().all(Option::is_none) {
            return Err(io::Error::other(refused.unwrap_or_else(|| "the answer is not understood".to_owned())));
        }
        // Some keys are another server's, perhaps.
        if let Some(message) = refused
            && self.refusals.allows(1, QUIET, clock::now())
        {
            daemon::warn!("the shared rate limit was refused", server = self.server.name, reason = message);
        }
        Ok(verdicts)
    }

    fn is_gone(&self, question: &Question, now: Instant) -> bool {
        question.until + self.timeout <= now
    }

    fn give_up(&self, question: Question) {
        if self.is_gone(&question, Instant::now()) {
            return question.waiter.forget();
        }
        self.counts.unknown.add();
        question.waiter.tell(unknown(self.open), Vec::new());
    }

    fn tell(&self, question: Question, verdict: Verdict) {
        let mut lines = Vec::new();
        if self.tells {
            self.allowance.lines(verdict, &mut lines);
        }
        let flow = if verdict.allowed {
            Flow::Continue
        } else {
            self.counts.refused.add();
            Flow::Respond(self.allowance.refusal(verdict))
        };
        question.waiter.tell(flow, lines);
    }
}

fn verdict(list: &[Value]) -> Option<Verdict> {
    let [Value::Number(allowed), Value::Number(remaining), Value::Number(retry), Value::Number(reset)] = list else {
        return None;
    };
    let nanos = |micros: i64| u64::try_from(micros).unwrap_or(0) * 1000;
    Some(Verdict {
        allowed: *allowed == 1,
        remaining: u64::try_from(*remaining).unwrap_or(0),
        retry: nanos(*retry),
        reset: nanos(*reset),
    })
}
