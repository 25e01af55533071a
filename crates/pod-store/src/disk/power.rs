//! A disk for tests that remembers what was written since the last sync, so that a power cut can be played at every sync:
//! any part of it may have reached the platter, in any order, sector by sector. It also refuses on request.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use redb::StorageBackend;

use super::Medium;

/// What a disk writes whole.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// All that was asked of the disk between two syncs, and what the outside had been promised when the second one began.
#[derive(Debug, Clone)]
pub(crate) struct Epoch {
    pub(crate) operations: Vec<Operation>,
    /// The greatest revision of an answered Synced write.
    pub(crate) acknowledged: u64,
    /// The greatest revision that anybody has seen.
    pub(crate) seen: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Promises {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) seen: AtomicU64,
}

#[derive(Debug, Default)]
struct Platter {
    now: Vec<u8>,
    since: Vec<Operation>,
    epochs: Vec<Epoch>,
    /// So many syncs were made before the file got its name; a cut before that leaves no store.
    unnamed: usize,
}

/// How the disk behaves; shared by all its files.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    /// So many more operations work, then all are refused; `None`: all work.
    budget: Mutex<Option<usize>>,
    /// Everything waits while it is true.
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Weather {
    pub(crate) fn break_after(&self, operations: Option<usize>) {
        *self.budget.lock().unwrap() = operations;
    }

    pub(crate) fn stop(&self, stopped: bool) {
        *self.stopped.lock().unwrap() = stopped;
        self.changed.notify_all();
    }

    fn ask(&self) -> io::Result<()> {
        drop(self.changed.wait_while(self.stopped.lock().unwrap(), |stopped| *stopped).unwrap());
        let mut budget = self.budget.lock().unwrap();
        match budget.as_mut() {
            None => Ok(()),
            Some(0) => {
                // ENOSPC: a kind of its own, so that a test can tell it from other failures.
                Err(io::Error::from_raw_os_error(28))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

#[derive(Debug, Default)]
struct Directory {
    current: Option<Arc<Mutex<Platter>>>,
    next: Option<Arc<Mutex<Platter>>>,
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct PowerDisk {
    directory: Arc<Mutex<Directory>>,
    pub(crate) promises: Arc<Promises>,
    pub(crate) weather: Arc<Weather>,
}

#[derive(Debug)]
struct Hand {
    platter: Arc<Mutex<Platter>>,
    promises: Arc<Promises>,
    weather: Arc<Weather>,
}

impl PowerDisk {
    pub(crate) fn with(image: Vec<u8>) -> Self {
        let disk = Self::default();
        let platter = Platter { now: image, ..Platter::default() };
        disk.directory.lock().unwrap().current = Some(Arc::new(Mutex::new(platter)));
        disk
    }

    /// What happened to the present file since it was created, and what of it was never synced; and how many of the first
    /// epochs went by before it was the store's.
    pub(crate) fn epochs(&self) -> (Vec<Epoch>, usize) {
        let platter = self.directory.lock().unwrap().current.clone().unwrap();
        let hand = self.hand(&platter);
        let platter = platter.lock().unwrap();
        let mut epochs = platter.epochs.clone();
        epochs.push(hand.epoch(platter.since.clone()));
        (epochs, platter.unnamed)
    }

    /// The bytes as a process would find them that is started now, without a power cut.
    pub(crate) fn image(&self) -> Vec<u8> {
        let platter = self.directory.lock().unwrap().current.clone().unwrap();
        let platter = platter.lock().unwrap();
        platter.now.clone()
    }

    fn hand(&self, platter: &Arc<Mutex<Platter>>) -> Hand {
        Hand { platter: platter.clone(), promises: self.promises.clone(), weather: self.weather.clone() }
    }
}

impl Medium for PowerDisk {
    fn existing(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let current = self.directory.lock().unwrap().current.clone();
        Ok(current.map(|platter| Box::new(self.hand(&platter)) as Box<dyn StorageBackend>))
    }

    fn fresh(&mut self) -> io::Result<Box<dyn StorageBackend>> {
        self.weather.ask()?;
        let platter = Arc::default();
        let hand = self.hand(&platter);
        self.directory.lock().unwrap().next = Some(platter);
        Ok(Box::new(hand))
    }

    fn install(&mut self) -> io::Result<()> {
        self.weather.ask()?;
        let mut directory = self.directory.lock().unwrap();
        let next = directory.next.take().unwrap();
        {
            let mut platter = next.lock().unwrap();
            platter.unnamed = platter.epochs.len();
        }
        directory.current = Some(next);
        Ok(())
    }

    fn discard(&mut self) {
        self.directory.lock().unwrap().next = None;
    }
}

impl Hand {
    fn epoch(&self, operations: Vec<Operation>) -> Epoch {
        let load = |number: &AtomicU64| number.load(Ordering::SeqCst);
        Epoch { operations, acknowledged: load(&self.promises.acknowledged), seen: load(&self.promises.seen) }
    }

    fn perform(&self, operation: Operation) -> io::Result<()> {
        self.weather.ask()?;
        let mut platter = self.platter.lock().unwrap();
        apply(&mut platter.now, &operation);
        platter.since.push(operation);
        Ok(())
    }
}

impl StorageBackend for Hand {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        let platter = self.platter.lock().unwrap();
        let bytes = platter.now.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.perform(Operation::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.weather.ask()?;
        let mut platter = self.platter.lock().unwrap();
        let operations = std::mem::take(&mut platter.since);
        let epoch = self.epoch(operations);
        platter.epochs.push(epoch);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.perform(Operation::Write { offset: offset as usize, data: data.to_vec() })
    }
}

pub(crate) fn apply(image: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Length(length) => image.resize(*length, 0),
        Operation::Write { offset, data } => {
            if image.len() < offset + data.len() {
                image.resize(offset + data.len(), 0);
            }
            image[*offset..offset + data.len()].copy_from_slice(data);
        }
    }
}

/// A sequence of numbers that is the same in every run (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }
}

/// What may be on the platter if the power goes while `operations` are under way over `image`: one of the many ways, by
/// the dice.
pub(crate) fn cut(image: &[u8], operations: &[Operation], dice: &mut Dice) -> Vec<u8> {
    let mut image = image.to_vec();
    match dice.roll(5) {
        // In order, up to somewhere inside one of them.
        0 => {
            let last = dice.roll(operations.len() + 1);
            operations[..last].iter().for_each(|operation| apply(&mut image, operation));
            if let Some(Operation::Write { offset, data }) = operations.get(last) {
                let torn = dice.roll(data.len() / SECTOR + 1) * SECTOR;
                apply(&mut image, &Operation::Write { offset: *offset, data: data[..torn].to_vec() });
            }
        }
        // Any of them, whole.
        1 => operations.iter().filter(|_| dice.roll(2) == 0).for_each(|operation| apply(&mut image, operation)),
        // The last ones only, as a disk may that reorders; the header is written last.
        2 => {
            let first = dice.roll(operations.len() + 1);
            operations[first..].iter().for_each(|operation| apply(&mut image, operation));
        }
        // Any sectors of any of them: few, half, nearly all.
        few_or_many => {
            let lost = [2, 12][few_or_many - 3];
            for operation in operations {
                match operation {
                    Operation::Length(_) if dice.roll(lost) == 0 => {}
                    Operation::Length(_) => apply(&mut image, operation),
                    Operation::Write { offset, data } => {
                        for (n, sector) in data.chunks(SECTOR).enumerate() {
                            if dice.roll(lost) != 0 {
                                let piece = Operation::Write { offset: offset + n * SECTOR, data: sector.to_vec() };
                                apply(&mut image, &piece);
                            }
                        }
                    }
                }
            }
        }
    }
    image
}
