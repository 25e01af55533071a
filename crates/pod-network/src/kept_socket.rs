//! A netfilter socket that outlives the call.
//!
//! Closing one right after a commit that deleted something takes about 10 ms, because the kernel then waits for the
//! deleted to be freed. A daemon that detaches pods all day keeps its socket open instead.

use std::{
    fs, io,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use nft::Netfilter;

use crate::record::NamespaceId;

/// At most one socket, with the network namespace it is for.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeptSocket(Arc<Mutex<Option<(NamespaceId, Netfilter)>>>);

/// The socket while in use; put back on drop.
#[derive(Debug)]
pub(crate) struct Borrowed<'a> {
    home: &'a KeptSocket,
    socket: Option<(NamespaceId, Netfilter)>,
}

impl KeptSocket {
    /// The socket kept, if it is for the calling thread's network namespace and nobody else is using it; else a new one.
    pub(crate) fn borrow(&self) -> Result<Borrowed<'_>, Box<dyn std::error::Error + Send + Sync>> {
        let here = own_namespace()?;
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let socket = match kept.filter(|(namespace, _)| *namespace == here) {
            Some(kept) => kept,
            None => (here, Netfilter::open()?),
        };
        Ok(Borrowed { home: self, socket: Some(socket) })
    }
}

/// The network namespace of the calling thread.
pub(crate) fn own_namespace() -> io::Result<NamespaceId> {
    Ok(NamespaceId::of(&fs::metadata("/proc/thread-self/ns/net")?))
}

impl Deref for Borrowed<'_> {
    type Target = Netfilter;

    fn deref(&self) -> &Netfilter {
        match &self.socket {
            Some((_, socket)) => socket,
            None => unreachable!("taken by drop only"),
        }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = self.socket.take();
    }
}
