//! A rate limit that many proxies keep together, in a Redis server: the same bucket as [`super::rate`], in one script, so that a
//! request costs one round trip. A thread of its own asks; requests that come meanwhile go together in one write.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::rate::{Allowance, Per, Verdict};
use super::wait::Waiter;
use super::{Asked, Flow, Gate, NotesSlot, Response};
use crate::count::Tally;
use crate::exchange::Failure;

pub mod redis;

use redis::{Connection, Server, Value};

/// Requests that may wait to be asked for.
const QUEUE: usize = 4096;
/// Requests that are asked for together.
const BATCH: usize = 128;
/// After a failure the server is left alone for this long.
const REST: Duration = Duration::from_millis(500);

/// The bucket, in microseconds of the server's clock: when it will be full. Answers: allowed, remaining, retry, reset.
/// `%.0f`, since Lua writes large numbers with an exponent.
const SCRIPT: &str = "local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local each, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local debt = tonumber(redis.call('GET', KEYS[1]) or now) - now
if debt < 0 then debt = 0 end
if debt + each > room then return {0, 0, debt + each - room, debt} end
debt = debt + each
redis.call('SET', KEYS[1], string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000))
return {1, math.floor((room - debt) / each), 0, debt}";

/// What the whole group of proxies keeps to.
#[derive(Debug)]
pub struct SharedRate {
    per: Per,
    open: bool,
    timeout: Duration,
    prefix: Vec<u8>,
    questions: SyncSender<Question>,
    counts: Arc<Counts>,
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
        let (questions, receiver) = sync_channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let asker = Asker {
            server: settings.server,
            allowance: settings.allowance,
            tells: settings.tells,
            open: settings.open,
            timeout: settings.timeout,
            counts: Arc::clone(&counts),
            connection: None,
            rests_until: None,
        };
        std::thread::Builder::new()
            .name("limits".to_owned())
            .stack_size(128 << 10)
            .spawn(move || asker.run(&receiver))?;
        Ok(SharedRate {
            per: settings.per,
            open: settings.open,
            timeout: settings.timeout,
            prefix: settings.prefix.into_bytes(),
            questions,
            counts,
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
        let mut key = self.prefix.clone();
        self.per.key(asked, &mut key);
        let question = Question { key, waiter: waiting.waiter(), until: Instant::now() + self.timeout };
        match self.questions.try_send(question) {
            Ok(()) => Flow::Wait,
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => {
                question.waiter.forget();
                self.counts.unknown.add();
                unknown(self.open)
            }
        }
    }

    /// The question waits its turn for as long as its answer may take. The asker keeps to that too, unless the system keeps it:
    /// looking up a name takes as long as it takes.
    fn patience(&self) -> Duration {
        2 * self.timeout
    }

    fn late(&self) -> Flow {
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
    connection: Option<(Connection, Vec<u8>)>,
    rests_until: Option<Instant>,
}

impl Asker {
    fn run(mut self, questions: &Receiver<Question>) {
        while let Ok(first) = questions.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH {
                match questions.try_recv() {
                    Ok(question) => batch.push(question),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            self.answer(batch);
        }
    }

    fn answer(&mut self, batch: Vec<Question>) {
        let now = Instant::now();
        // Those that their workers have given up themselves.
        let (gone, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|question| self.is_gone(question, now));
        gone.into_iter().for_each(|question| question.waiter.forget());
        if self.rests_until.is_some_and(|until| now < until) {
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
                self.rests_until = None;
                for (question, verdict) in batch.into_iter().zip(verdicts) {
                    match verdict {
                        Some(verdict) => self.tell(question, verdict),
                        None => self.give_up(question),
                    }
                }
            }
            Err(error) => {
                daemon::warn!("failed to ask the shared rate limit", server = self.server.address, reason = error);
                self.connection = None;
                self.rests_until = Some(Instant::now() + REST);
                batch.into_iter().for_each(|question| self.give_up(question));
            }
        }
    }

    /// One write, one answer each.
    fn ask(&mut self, batch: &[Question]) -> io::Result<Vec<Option<Verdict>>> {
        let until = Instant::now() + self.timeout;
        if self.connection.is_none() {
            let mut connection = Connection::open(&self.server, until)?;
            let Value::Text(script) = connection.ask(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()], until)? else {
                return Err(io::Error::other("the script was not taken"));
            };
            self.connection = Some((connection, script));
        }
        let Some((connection, script)) = &mut self.connection else { return Ok(Vec::new()) };
        let each = (self.allowance.period / self.allowance.requests.max(1) / 1000).max(1);
        let (room, each) = ((each * self.allowance.burst.max(1)).to_string(), each.to_string());
        for question in batch {
            connection.put(&[b"EVALSHA", script, b"1", &question.key, each.as_bytes(), room.as_bytes()]);
        }
        connection.send(until)?;
        let mut verdicts = Vec::with_capacity(batch.len());
        let mut lost = false;
        for _ in batch {
            verdicts.push(match connection.read(until)? {
                Value::List(list) => match list.as_slice() {
                    [Value::Number(allowed), Value::Number(remaining), Value::Number(retry), Value::Number(reset)] => {
                        let nanos = |micros: i64| u64::try_from(micros).unwrap_or(0) * 1000;
                        Some(Verdict {
                            allowed: *allowed == 1,
                            remaining: u64::try_from(*remaining).unwrap_or(0),
                            retry: nanos(*retry),
                            reset: nanos(*reset),
                        })
                    }
                    _ => None,
                },
                // The server has forgotten the script, or cannot write now.
                Value::Error(message) => {
                    daemon::debug!("the shared rate limit was refused", reason = message);
                    lost = true;
                    None
                }
                _ => None,
            });
        }
        if lost {
            self.connection = None;
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
