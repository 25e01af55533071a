//! Noticing that the configuration file changed: a plain write, an editor's rename, Kubernetes' swap of the `..data`
//! link. Events only say "look now"; what counts is whether the text differs from the one last seen.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use tokio::net::unix::pipe;

use crate::config::Source;

/// Looked at this often without events: inotify(7) says nothing on network file systems and overlays' lower layers.
const POLL: Duration = Duration::from_secs(5);
/// An editor writes in several steps.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    /// An inotify descriptor reads like a pipe; what the events say is not looked at.
    events: Option<pipe::Receiver>,
    seen: Source,
}

impl Watch {
    /// Watches files, whose present text is `seen`. Must be called within a runtime.
    pub fn new(paths: &[PathBuf], seen: Source) -> Watch {
        let events = watch_directories(paths).map(OwnedFd::from);
        let events = events.and_then(|fd| pipe::Receiver::from_owned_fd_unchecked(fd).ok());
        Watch { paths: paths.to_vec(), events, seen }
    }

    /// Resolves with the text when it has changed. Cancelling is safe: nothing is taken before it is returned.
    pub async fn changed(&mut self) -> Source {
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
            let Ok(source) = Source::read_again(&self.paths) else { continue };
            if self.seen != source {
                self.seen = source.clone();
                return source;
            }
        }
    }
}

fn watch_directories(paths: &[PathBuf]) -> Option<Inotify> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::DELETE;
    for path in paths {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        inotify.watches().add(directory, mask).ok()?;
    }
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
            fs::create_dir(at("more")).unwrap();
            fs::write(at("more/b"), "b").unwrap();
            let paths = [at("config.yaml"), at("more/b")];
            let mut watch = Watch::new(&paths, Source::read(&paths).unwrap());
            symlink("..2", at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
            assert_eq!(watch.changed().await.text, "two\n---\nb");
            fs::write(at("new"), "three").unwrap();
            fs::rename(at("new"), at("config.yaml")).unwrap();
            assert_eq!(watch.changed().await.text, "three\n---\nb");
            fs::write(at("config.yaml"), "four").unwrap();
            assert_eq!(watch.changed().await.text, "four\n---\nb");
            fs::write(at("more/b"), "c").unwrap();
            assert_eq!(watch.changed().await.text, "four\n---\nc");
        });
    }
}
