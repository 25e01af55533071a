//! The durable side: one redb file, always equal to memory at one revision.
//!
//! redb commits by writing new pages and then one header, and recognises a torn commit by its checksums, so a crash at any
//! point leaves the last transaction or the one before it, whole. What it does not survive is a disk that refuses: after a
//! failed sync the kernel has dropped the pages and calls them clean, so whatever is read back proves nothing. Therefore a
//! file that failed once is *lost*; memory, which holds everything, writes a new one beside it and renames it over.

mod file;
#[cfg(test)]
pub(crate) mod power;
mod record;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{
    Builder, CommitError, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    TableDefinition, TableError, TransactionError,
};

pub(crate) use file::{ClaimError, FileMedium};

use crate::object::{Key, Object};

const OBJECTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("objects");
const NUMBERS: TableDefinition<'static, &str, u64> = TableDefinition::new("numbers");
const FORMAT: &str = "format";
const REVISION: &str = "revision";
const RESERVED: &str = "reserved";

/// Of what this file contains; not of redb's own format, which redb checks.
const FORMAT_VERSION: u64 = 1;

/// Objects are read from memory, never from here, so a cache only serves the inner pages a commit walks over. Half of it is
/// the buffer a transaction collects its pages in. Measured: from 64 KiB to 4 MiB the writes per second are the same.
const CACHE: usize = 128 << 10;

/// Where the database's bytes are; a file, but for tests.
pub(crate) trait Medium: Debug + Send {
    /// What is there, if anything.
    fn existing(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>>;
    /// An empty place beside it.
    fn fresh(&mut self) -> io::Result<Box<dyn StorageBackend>>;
    /// Durably puts the fresh one in the place of the existing one.
    fn install(&mut self) -> io::Result<()>;
    /// Forgets the fresh one.
    fn discard(&mut self);
}

/// How far the numbering is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The state on the disk is exactly that of this revision.
    pub(crate) revision: u64,
    /// No greater one was ever given out.
    pub(crate) reserved: u64,
}

impl Mark {
    /// Of a store in which nothing happened. Not zero: to Kubernetes' clients `"0"` means "any".
    const FIRST: Self = Self { revision: 1, reserved: 1 };
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its format is {0}; this program reads format {FORMAT_VERSION}")]
    Format(String),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

#[derive(Debug)]
pub(crate) struct Disk {
    medium: Box<dyn Medium>,
    /// `None`: lost.
    database: Option<Database>,
}

impl Disk {
    /// Everything on the medium, in the order of keys; an empty medium becomes an empty store.
    pub(crate) fn open(mut medium: Box<dyn Medium>) -> Result<(Self, Vec<Arc<Object>>, Mark), LoadError> {
        // An empty file is what `touch` or an installer leaves; there is nothing in it to be careful with.
        let existing = match medium.existing()? {
            Some(backend) if backend.len()? > 0 => Some(backend),
            _ => None,
        };
        let Some(backend) = existing else {
            let mut disk = Self { medium, database: None };
            disk.rebuild(&[], Mark::FIRST)?;
            return Ok((disk, Vec::new(), Mark::FIRST));
        };
        // redb checks all checksums after a crash; a file that was closed cleanly it trusts, and panics if it is wrong.
        // Having it check that one as well would double the time of opening, for the same answer.
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let database = database(backend).map_err(not_opened)?;
            let (objects, mark) = load(&database)?;
            Ok((database, objects, mark))
        }));
        let (database, objects, mark) =
            loaded.unwrap_or_else(|_| Err(LoadError::Damaged("its pages contradict each other".to_owned())))?;
        Ok((Self { medium, database: Some(database) }, objects, mark))
    }

    /// The last transaction failed, so what is on the medium is unknown.
    pub(crate) fn is_lost(&self) -> bool {
        self.database.is_none()
    }

    /// One transaction, durable when it returns. After an error the medium is lost.
    pub(crate) fn commit<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a Key, Option<&'a Object>)>,
        mark: Mark,
    ) -> io::Result<()> {
        let Some(database) = &self.database else {
            return Err(io::Error::other("the file of the store is lost"));
        };
        let result = transact(database, changes, mark);
        if result.is_err() {
            self.database = None;
        }
        result
    }

    /// Puts a new file in the place of the lost one. `objects` in the order of keys.
    pub(crate) fn rebuild(&mut self, objects: &[Arc<Object>], mark: Mark) -> io::Result<()> {
        // The old file first: it is lost anyway, and its pages are memory.
        self.database = None;
        let result = self.build(objects, mark);
        if result.is_err() {
            self.medium.discard();
        }
        result
    }

    fn build(&mut self, objects: &[Arc<Object>], mark: Mark) -> io::Result<()> {
        let database = database(self.medium.fresh()?).map_err(database_failed)?;
        transact(&database, objects.iter().map(|object| (&object.key, Some(&**object))), mark)?;
        self.medium.install()?;
        self.database = Some(database);
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.database = None;
    }
}

fn database(backend: Box<dyn StorageBackend>) -> Result<Database, DatabaseError> {
    Builder::new().set_cache_size(CACHE).create_with_backend(file::Boxed(backend))
}

fn not_opened(error: DatabaseError) -> LoadError {
    match error {
        DatabaseError::UpgradeRequired(version) => LoadError::Format(format!("redb {version}")),
        DatabaseError::Storage(StorageError::Corrupted(reason)) => LoadError::Damaged(reason),
        other => LoadError::Io(database_failed(other)),
    }
}

fn transact<'a>(
    database: &Database,
    changes: impl Iterator<Item = (&'a Key, Option<&'a Object>)>,
    mark: Mark,
) -> io::Result<()> {
    let transaction = database.begin_write().map_err(transaction_failed)?;
    {
        let mut objects = transaction.open_table(OBJECTS).map_err(table_failed)?;
        let mut bytes = Vec::new();
        for (key, object) in changes {
            let place = record::place(key);
            match object {
                Some(object) => {
                    record::encode(object, &mut bytes);
                    objects.insert(&*place, &*bytes).map_err(storage_failed)?;
                }
                None => {
                    objects.remove(&*place).map_err(storage_failed)?;
                }
            }
        }
        let mut numbers = transaction.open_table(NUMBERS).map_err(table_failed)?;
        for (name, number) in [(FORMAT, FORMAT_VERSION), (REVISION, mark.revision), (RESERVED, mark.reserved)] {
            numbers.insert(name, number).map_err(storage_failed)?;
        }
    }
    transaction.commit().map_err(|error| match error {
        CommitError::Storage(error) => storage_failed(error),
        other => io::Error::other(other),
    })
}

fn load(database: &Database) -> Result<(Vec<Arc<Object>>, Mark), LoadError> {
    let transaction = database.begin_read().map_err(transaction_failed)?;
    let numbers = transaction.open_table(NUMBERS).map_err(|error| match error {
        TableError::TableDoesNotExist(_) => LoadError::Damaged("it holds no object store".to_owned()),
        other => LoadError::Io(table_failed(other)),
    })?;
    let number = |name: &str| -> Result<u64, LoadError> {
        let found = numbers.get(name).map_err(storage_failed)?;
        found.map(|guard| guard.value()).ok_or_else(|| LoadError::Damaged(format!("it has no number `{name}`")))
    };
    let format = number(FORMAT)?;
    if format != FORMAT_VERSION {
        return Err(LoadError::Format(format.to_string()));
    }
    let mark = Mark { revision: number(REVISION)?, reserved: number(RESERVED)? };
    let mut objects: Vec<Arc<Object>> = Vec::new();
    let mut resource: Arc<str> = "".into();
    for entry in transaction.open_table(OBJECTS).map_err(table_failed)?.iter().map_err(storage_failed)? {
        let (place, bytes) = entry.map_err(storage_failed)?;
        let object = record::decode(place.value(), bytes.value(), &mut resource);
        objects.push(Arc::new(object.ok_or_else(|| LoadError::Damaged("a record has no meaning".to_owned()))?));
    }
    Ok((objects, mark))
}

fn storage_failed(error: StorageError) -> io::Error {
    match error {
        StorageError::Io(error) => error,
        other => io::Error::other(other),
    }
}

fn table_failed(error: TableError) -> io::Error {
    match error {
        TableError::Storage(error) => storage_failed(error),
        other => io::Error::other(other),
    }
}

fn transaction_failed(error: TransactionError) -> io::Error {
    match error {
        TransactionError::Storage(error) => storage_failed(error),
        other => io::Error::other(other),
    }
}

fn database_failed(error: DatabaseError) -> io::Error {
    match error {
        DatabaseError::Storage(error) => storage_failed(error),
        other => io::Error::other(other),
    }
}
