//! The terminal's own thread. A terminal may stand still (Ctrl-S, a slow pipe); the engine must not. So the engine's thread
//! opens the logs, in time, and hands them over; this one reads and prints them at the terminal's pace.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use logfile::follow::{Follower, Line as LogLine};
use pod_engine::{Hold, Message, News};
use tokio::sync::{mpsc, oneshot};

use crate::narrate::{Line, Tone};
use crate::terminal::label::PodKey;
use crate::terminal::screen::Stream;
use crate::terminal::view::{Terminal, terminal};
use crate::terminal::watch::Watch;

/// What is to be shown, in order.
#[derive(Debug)]
pub(crate) enum Show {
    /// A pod that will be heard of, and its containers.
    Expect(PodKey, Vec<String>),
    News(Box<Message>),
    /// An attempt's log, from here on.
    Log(Box<OpenLog>),
    Line(PodKey, Line),
    Say(Tone, String),
    /// The pod's containers are down: print the rest of their logs, then let go of them.
    Rest(PodKey, Hold),
    /// A person asked for the end, and this answers; that pods fail by it is no news.
    Stopping(String),
}

/// A log that was opened while it was certain to exist.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) pod: PodKey,
    pub(crate) container: String,
    pub(crate) directory: PathBuf,
    pub(crate) follower: Follower,
    /// What opening it already read.
    pub(crate) first: Vec<LogLine>,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct TerminalThread {
    sender: mpsc::UnboundedSender<Show>,
    /// Answers when nobody reads the output any more; closed when all is printed. `None` once it has answered.
    broken: Option<oneshot::Receiver<()>>,
}

impl TerminalThread {
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (broken_sender, broken) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let body = move || {
            if runtime.block_on(print(receiver)).is_err() {
                // The receiver is gone with the future: what is sent from now on is dropped.
                let _ = broken_sender.send(());
            }
        };
        std::thread::Builder::new().name("terminal".into()).spawn(body)?;
        Ok(Self { sender, broken: Some(broken) })
    }

    pub(crate) fn show(&self, show: Show) {
        // A broken terminal shows nothing, and has said so.
        let _ = self.sender.send(show);
    }

    /// Returns once, when the output has nobody left who reads it. Cancel-safe.
    pub(crate) async fn broken(&mut self) {
        if let Some(broken) = &mut self.broken {
            let answer = broken.await;
            self.broken = None;
            if answer.is_ok() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Prints what is left and ends; returns early when `leave` does.
    pub(crate) async fn finish(self, leave: impl Future<Output = ()>) {
        drop(self.sender);
        let Some(printed) = self.broken else { return };
        tokio::select! {
            _ = printed => {}
            () = leave => {}
        }
    }
}

async fn print(mut receiver: mpsc::UnboundedReceiver<Show>) -> io::Result<()> {
    let mut view = terminal();
    let mut logs = Logs { open: BTreeMap::new(), watch: Watch::new()? };
    let mut more = false;
    loop {
        let received = if more {
            // Output is waiting: look at messages without pausing.
            match receiver.try_recv() {
                Ok(show) => Some(Some(show)),
                Err(mpsc::error::TryRecvError::Empty) => None,
                Err(mpsc::error::TryRecvError::Disconnected) => Some(None),
            }
        } else {
            // Both keep what was not taken, so losing the race costs nothing.
            tokio::select! {
                received = receiver.recv() => Some(received),
                changed = logs.watch.changed() => { changed?; None }
            }
        };
        match received {
            Some(Some(show)) => logs.take(show, &mut view)?,
            Some(None) => break,
            None => {}
        }
        while let Ok(show) = receiver.try_recv() {
            logs.take(show, &mut view)?;
        }
        more = logs.print_some(&mut view)?;
        view.flush()?;
    }
    logs.print_all(&mut view)?;
    view.flush()
}

struct Logs {
    /// The latest attempt of each container.
    open: BTreeMap<(PodKey, String), Follower>,
    watch: Watch,
}

impl Logs {
    fn take(&mut self, show: Show, view: &mut Terminal) -> io::Result<()> {
        match show {
            Show::Expect(pod, containers) => view.expect(pod, containers),
            Show::Line(pod, line) => view.line(&pod, &line)?,
            Show::Say(tone, text) => view.say(tone, &text)?,
            Show::Rest(pod, hold) => {
                self.print_rest(&pod, view)?;
                drop(hold);
            }
            Show::Stopping(text) => view.stopping(&text)?,
            Show::News(message) => {
                // What containers said before something happened is shown before it.
                if matches!(message.news, News::Status(_) | News::Removed) {
                    self.print_all(view)?;
                }
                if matches!(message.news, News::Removed) {
                    self.open.retain(|(pod, _), _| (&pod.0, &pod.1) != (&message.namespace, &message.name));
                }
                view.hear(*message)?;
            }
            Show::Log(log) => {
                let OpenLog { pod, container, directory, follower, first } = *log;
                let key = (pod, container);
                if let Some(mut previous) = self.open.remove(&key) {
                    while print_block(&key, &mut previous, view)? {}
                }
                self.watch.add(&directory)?;
                print_lines(&key, &first, view)?;
                self.open.insert(key, follower);
            }
        }
        Ok(())
    }

    /// One block of every log, so that a loud container does not silence the others. Whether there may be more.
    fn print_some(&mut self, view: &mut Terminal) -> io::Result<bool> {
        let mut more = false;
        for (key, follower) in &mut self.open {
            more |= print_block(key, follower, view)?;
        }
        Ok(more)
    }

    /// To the end of the logs of a pod whose containers are down.
    fn print_rest(&mut self, pod: &PodKey, view: &mut Terminal) -> io::Result<()> {
        for (key, follower) in self.open.iter_mut().filter(|((owner, _), _)| owner == pod) {
            while print_block(key, follower, view)? {}
        }
        view.flush()
    }

    /// Everything that is there now. What a loud container adds meanwhile may wait.
    fn print_all(&mut self, view: &mut Terminal) -> io::Result<()> {
        const ROUNDS: usize = 1024;
        for _ in 0..ROUNDS {
            if !self.print_some(view)? {
                break;
            }
        }
        Ok(())
    }
}

fn print_block(key: &(PodKey, String), follower: &mut Follower, view: &mut Terminal) -> io::Result<bool> {
    // An unreadable log must not take the other containers' output along.
    let lines = match follower.read_available() {
        Ok(lines) => lines,
        Err(error) => {
            view.line(&key.0, &Line::pod(Tone::Notable, format!("failed to read the log of {}: {error}", key.1)))?;
            Vec::new()
        }
    };
    print_lines(key, &lines, view)?;
    Ok(!lines.is_empty())
}

fn print_lines(key: &(PodKey, String), lines: &[LogLine], view: &mut Terminal) -> io::Result<()> {
    for line in lines {
        let stream = match line.stream {
            logfile::Stream::Stdout => Stream::Out,
            logfile::Stream::Stderr => Stream::Err,
        };
        view.output(&key.0, &key.1, stream, &line.content, !line.partial)?;
    }
    Ok(())
}
