//! The workers together.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::plan::Plan;
use crate::worker::{Shared, Worker};

/// A worker's stack; its buffers are on the heap.
const STACK: usize = 256 << 10;

type Ended = Arc<dyn Fn() + Send + Sync>;

/// Says that a worker has ended, however it did: a panic must not leave the others to do its work unnoticed.
struct Last(Arc<Shared>, Ended);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.end();
        (self.1)();
    }
}

/// Running workers.
pub struct Server {
    /// Also those that have retired: what they counted still counts.
    pub workers: Vec<Arc<Shared>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Called when a worker has ended.
    ended: Ended,
    /// Everybody has been told to end: nobody is started any more.
    ending: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts `count` workers with the plan.
    pub fn start(count: usize, plan: &Arc<Plan>, ended: impl Fn() + Send + Sync + 'static) -> io::Result<Server> {
        let mut server = Server { workers: Vec::new(), threads: Vec::new(), ended: Arc::new(ended), ending: false };
        for index in 0..count {
            server.spawn(index, plan)?;
        }
        Ok(server)
    }

    fn spawn(&mut self, index: usize, plan: &Arc<Plan>) -> io::Result<()> {
        let shared = match self.workers.iter().find(|one| one.index == index && !one.is_running()) {
            Some(retired) => Arc::clone(retired),
            None => {
                let fresh = Arc::new(Shared::new(index)?);
                self.workers.push(Arc::clone(&fresh));
                fresh
            }
        };
        let plan = Arc::clone(plan);
        self.run(shared, |shared| Worker::new(shared, plan).and_then(Worker::run))
    }

    /// Runs a worker's work on a thread of its own.
    fn run(
        &mut self,
        shared: Arc<Shared>,
        work: impl FnOnce(Arc<Shared>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        shared.begin();
        let builder = thread::Builder::new().name(format!("worker-{}", shared.index)).stack_size(STACK);
        let (for_thread, ended) = (Arc::clone(&shared), Arc::clone(&self.ended));
        let spawned = builder.spawn(move || {
            let last = Last(for_thread, ended);
            work(Arc::clone(&last.0))
        });
        match spawned {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                // It never began: that is no reason to end with those that are there.
                shared.retire();
                shared.end();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Goes over to a plan, and to another number of workers: those that are too many end with their last connection. Once
    /// everybody is to end, nothing: what is there ends by the plan it has.
    pub fn apply(&mut self, count: usize, plan: &Arc<Plan>) -> io::Result<()> {
        if self.ending {
            return Ok(());
        }
        let active = |one: &&Arc<Shared>| one.is_running() && !one.is_draining();
        self.workers.iter().filter(active).for_each(|worker| worker.apply(Arc::clone(plan)));
        for index in 0..count {
            if !self.workers.iter().filter(active).any(|one| one.index == index) {
                self.spawn(index, plan)?;
            }
        }
        self.workers.iter().filter(active).filter(|one| one.index >= count).for_each(|one| one.retire());
        Ok(())
    }

    /// See [`Shared::drain`].
    pub fn drain(&mut self, deadline: u64, stays: bool) {
        self.ending = true;
        self.workers.iter().for_each(|worker| worker.drain(deadline, stays));
    }

    /// See [`Shared::close`].
    pub fn close(&self) {
        self.workers.iter().for_each(|worker| worker.close());
    }

    /// Somebody else accepts from now on; every worker ends with its last connection.
    pub fn retire(&mut self) {
        self.ending = true;
        self.workers.iter().for_each(|worker| worker.retire());
    }

    /// Whether any worker, also one that is to end, has not ended yet.
    pub fn is_running(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_running())
    }

    /// A worker has ended without having been told to.
    pub fn has_failed(&self) -> bool {
        self.workers.iter().any(|worker| !worker.is_running() && !worker.is_draining())
    }

    /// Connections that were cut at the end, or why a worker failed.
    pub fn join(self) -> io::Result<u64> {
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a worker panicked"))??;
        }
        Ok(self.workers.iter().map(|worker| worker.cut.value()).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_worker_that_panics_has_failed() {
        let (sender, receiver) = mpsc::channel();
        let ended: Ended = Arc::new(move || sender.send(()).unwrap());
        let mut server = Server { workers: Vec::new(), threads: Vec::new(), ended, ending: false };
        let shared = Arc::new(Shared::new(0).unwrap());
        server.workers.push(Arc::clone(&shared));
        server.run(shared, |_| panic!("as told by the test")).unwrap();
        receiver.recv_timeout(Duration::from_secs(60)).expect("its end is said");
        assert!(server.has_failed() && !server.is_running());
        assert_eq!(server.join().unwrap_err().to_string(), "a worker panicked");
    }
}
