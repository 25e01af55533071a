//! The workers together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::plan::Plan;
use crate::worker::{Shared, Worker};

/// A worker's stack; its buffers are on the heap.
const STACK: usize = 256 << 10;

/// Running workers.
#[derive(Debug)]
pub struct Server {
    pub workers: Vec<Arc<Shared>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    running: Arc<AtomicUsize>,
}

impl Server {
    /// Starts `count` workers with the plan.
    pub fn start(count: usize, plan: &Arc<Plan>, ended: impl Fn() + Clone + Send + 'static) -> io::Result<Server> {
        let running = Arc::new(AtomicUsize::new(count));
        let mut server = Server { workers: Vec::new(), threads: Vec::new(), running };
        for index in 0..count {
            let shared = Arc::new(Shared::new(index)?);
            let (for_thread, plan, ended) = (Arc::clone(&shared), Arc::clone(plan), ended.clone());
            let running = Arc::clone(&server.running);
            let builder = thread::Builder::new().name(format!("worker-{index}")).stack_size(STACK);
            let thread = builder.spawn(move || {
                let result = Worker::new(for_thread, plan).and_then(Worker::run);
                running.fetch_sub(1, Ordering::AcqRel);
                ended();
                result
            })?;
            server.workers.push(shared);
            server.threads.push(thread);
        }
        Ok(server)
    }

    pub fn apply(&self, plan: &Arc<Plan>) {
        self.workers.iter().for_each(|worker| worker.apply(Arc::clone(plan)));
    }

    /// See [`Shared::drain`].
    pub fn drain(&self, deadline: u64) {
        self.workers.iter().for_each(|worker| worker.drain(deadline));
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }

    /// Connections that were cut at the end, or why a worker failed.
    pub fn join(self) -> io::Result<u64> {
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a worker panicked"))??;
        }
        Ok(self.workers.iter().map(|worker| worker.cut.value()).sum())
    }
}
