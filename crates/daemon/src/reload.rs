//! Noticing that the configuration file changed: a plain write, an editor's rename, Kubernetes' swap of the `..data`
//! link. Events only say "look now"; what counts is whether the text differs from the one last seen.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use tokio::net::unix::pipe;

/// Looked at this often without events: inotify(7) says nothing on network file systems and overlays' lower layers.
const POLL: Duration = Duration::from_secs(5);
/// An editor writes in several steps.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    /// An inotify descriptor reads like a pipe; what the events say is not looked at.
    events: Option<pipe::Receiver>,
    seen: Option<String>,
}

impl Watch {
    /// Watches `path`, whose present text is `seen`. Must be called within a runtime.
    pub fn new(path: &Path, seen: String) -> Watch {
        let events = watch_directory(path).map(OwnedFd::from);
        let events = events.and_then(|fd| pipe::Receiver::from_owned_fd_unchecked(fd).ok());
        Watch { path: path.to_owned(), events, seen: Some(seen) }
    }

    /// Resolves with the file's text when it has changed. Cancelling is safe: nothing is taken before it is returned.
    pub async fn changed(&mut self) -> String {
        loop {
            match &self.events {
                Some(events) => {
                    if let Ok(Ok(())) = tokio::time::timeout(POLL, events.readable()).await {
                        tokio::time::sleep(SETTLE).await;
                    }
                    let mut buffer = [0; 4096];
                    while events.try_read(&mut buffer).is_ok_and(|length| length > 0) {}
                }
                None => tokio::time::sleep(POLL).await,
            }
            // Missing for a moment, in the middle of a swap: the next event brings it.
            let Ok(text) = std::fs::read_to_string(&self.path) else { continue };
            if self.seen.as_ref() != Some(&text) {
                self.seen = Some(text.clone());
                return text;
            }
        }
    }
}

fn watch_directory(path: &Path) -> Option<Inotify> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::DELETE;
    inotify.watches().add(directory, mask).ok()?;
    Some(inotify)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn writes_renames_and_link_swaps_are_seen() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config.yaml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        runtime.block_on(async {
            let mut watch = Watch::new(&at("config.yaml"), "one".to_owned());
            symlink("..2", at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
            assert_eq!(watch.changed().await, "two");
            fs::write(at("new"), "three").unwrap();
            fs::rename(at("new"), at("config.yaml")).unwrap();
            assert_eq!(watch.changed().await, "three");
            fs::write(at("config.yaml"), "four").unwrap();
            assert_eq!(watch.changed().await, "four");
        });
    }
}
