//! `outrigger cleanup`: what a power cut or a killed engine left, and nothing that lives.
//!
//! Pods start and end while this runs, without waiting for it. What keeps a new one safe is the order: first everything
//! is listed that could be removed, then who lives. A pod's record is written before there is anything else of it, and
//! its uid is never another's: so whoever owns something in the first list is seen by the second look, and what came
//! after the first look is in no list.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::chain;
use crate::engine::{Config, Context, Engine, OpenError};
use crate::paths::{PodPaths, Roots};
use crate::record::{self, Ownership, Record};
use crate::teardown::{self, Forgotten};

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// One line a thing removed.
    pub removed: Vec<String>,
    /// One line a thing that could not be.
    pub complaints: Vec<String>,
}

/// Removes dead pods' files, data of pods that no record knows, cgroups, and links, addresses and rules of pods that
/// are not there. Pods that run, with or without an engine, are left alone.
///
/// # Errors
/// When the engine's mechanisms cannot be opened at all.
pub fn sweep(config: Config) -> Result<Report, OpenError> {
    sweep_but(config, |_| false)
}

/// The same, but for data and logs of pods (by uid) that may come back although no record names them: the machine went
/// down under an API's pods.
///
/// # Errors
/// As [`sweep`].
pub fn sweep_but(config: Config, comes_back: impl Fn(&str) -> bool) -> Result<Report, OpenError> {
    let roots = config.roots.clone();
    let engine = Engine::open(config)?;
    let cx = engine.context();
    let mut report = Report::default();
    let mut found = Found::list(cx);
    let live = sweep_pods(cx, &roots, &mut report);
    match live {
        Ok(live) => {
            found.retain_dead(&live);
            found.trees.retain(|(uid, ..)| !comes_back(uid));
        }
        // Anything may be the pod's that nobody can name.
        Err(Nameless(pod)) => {
            let text = format!("pod {pod} lives, but its record cannot be read; data, cgroups and links stay");
            report.complaints.push(text);
            return Ok(report);
        }
    }
    found.remove(cx, &mut report);
    Ok(report)
}

/// What a killed engine had put away and not come to remove, in the background: the handle tells the end of it.
pub fn finish_forgetting(engine: &Engine) -> tokio::task::JoinHandle<()> {
    let cx = engine.context();
    let mut begun = Vec::new();
    for entry in fs::read_dir(cx.config.roots.pods()).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let paths = PodPaths::at(entry.path(), &cx.config.roots);
        // One without a record has nothing but its directory: that was to be removed last.
        let forgotten = record::load::<Record>(&paths.record()).ok().and_then(|record| {
            let forgotten = Forgotten::of(cx, &paths, &record);
            forgotten.ok()
        });
        begun.push((paths.run.clone(), forgotten));
    }
    tokio::task::spawn_blocking(move || {
        for (directory, forgotten) in begun {
            let complaints = match forgotten {
                Some(forgotten) => forgotten.remove(),
                None => pod_volume::remove_tree(&directory).err().map(|error| chain(&error)).into_iter().collect(),
            };
            // The engine's log.
            complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
        }
    })
}

/// A pod that lives and whose uid is not known.
struct Nameless(String);

/// The only part of a record that matters here, and which every version writes.
#[derive(serde::Deserialize)]
struct Identity {
    uid: String,
}

/// Removes the directories of dead pods; returns the uids of the others.
fn sweep_pods(cx: &Context, roots: &Roots, report: &mut Report) -> Result<BTreeSet<String>, Nameless> {
    let mut live = BTreeSet::new();
    for entry in fs::read_dir(roots.pods()).into_iter().flatten().flatten() {
        let paths = PodPaths::at(entry.path(), roots);
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            // Forgotten by an engine that did not come to the end of it, or is about to: both may remove the same.
            report.complaints.extend(teardown::forget_files(cx, &paths));
            continue;
        }
        let name = name.replacen('_', "/", 1);
        match judge(&paths) {
            Verdict::Lives(uid) => live.extend(uid),
            Verdict::Nameless => return Err(Nameless(name)),
            Verdict::Dead(ownership) => {
                report.complaints.extend(forget(cx, &paths, ownership));
                report.removed.push(format!("pod {name}"));
            }
        }
    }
    Ok(live)
}

enum Verdict {
    /// With its uid, once it has one.
    Lives(Option<String>),
    Nameless,
    /// Nobody else can begin anything with it now.
    Dead(Ownership),
}

/// The lock first: what is read under it does not change, and what is read of a pod that is owned is its owner's.
fn judge(paths: &PodPaths) -> Verdict {
    let ownership = match Ownership::is_taken(paths) {
        Ok(false) => Ownership::try_take(paths).ok().flatten(),
        Ok(true) | Err(_) => None,
    };
    let uid = match record::load::<Identity>(&paths.record()) {
        Ok(identity) => Ok(Some(identity.uid)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let dead = ownership.filter(|_| {
        // Kept on purpose: a pod that ended and is still listed, or one whose shim outlived its engine. A shim of which
        // it cannot be told is alive.
        let ended = record::load::<pod_plan::Lifecycle>(&paths.ledger()).is_ok_and(|ledger| ledger.is_finished());
        let kept = ended && matches!(uid, Ok(Some(_)));
        !kept && matches!(pod_shim::client::is_alive(&paths.run), Ok(false))
    });
    match (dead, uid) {
        (Some(ownership), _) => Verdict::Dead(ownership),
        (None, Ok(uid)) => Verdict::Lives(uid),
        (None, Err(_)) => Verdict::Nameless,
    }
}

/// The name is free as soon as the directory is put away: whoever wants it does not wait for the rest.
fn forget(cx: &Context, paths: &PodPaths, ownership: Ownership) -> Vec<String> {
    let Ok(record) = record::load::<Record>(&paths.record()) else { return teardown::forget_files(cx, paths) };
    let forgotten = Forgotten::of(cx, paths, &record);
    drop(ownership);
    match forgotten {
        Ok(forgotten) => forgotten.remove(),
        Err(complaint) => vec![complaint],
    }
}

/// Everything that is some pod's, with the pod's uid.
#[derive(Debug)]
struct Found {
    /// Directories, and what they are.
    trees: Vec<(String, PathBuf, &'static str)>,
    cgroups: Vec<(String, PathBuf)>,
    /// By uid and by the name in the machine's register. Pods of other roots in it are not ours to judge.
    networks: Vec<(String, String)>,
}

// === impl Found ===

impl Found {
    fn list(cx: &Context) -> Self {
        let roots = &cx.config.roots;
        let mut trees = Vec::new();
        for (dir, what) in [(roots.data.join("pods"), "data of pod"), (roots.logs.clone(), "logs of pod")] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                trees.push((uid_in(&entry.file_name().to_string_lossy()), entry.path(), what));
            }
        }
        let mut cgroups = Vec::new();
        for class in ["", "burstable", "besteffort"] {
            let parent = if class.is_empty() { roots.cgroup() } else { roots.cgroup().join(class) };
            let groups = groups_in(cx, &parent).into_iter();
            cgroups.extend(groups.filter_map(|name| Some((name.strip_prefix("pod")?.to_owned(), parent.join(&name)))));
        }
        let known = cx.network.known().into_iter().filter(|id| roots.is_ours(id));
        let networks = known.map(|id| (uid_of(roots, &id).to_owned(), id)).collect();
        Self { trees, cgroups, networks }
    }

    fn retain_dead(&mut self, live: &BTreeSet<String>) {
        self.trees.retain(|(uid, ..)| !live.contains(uid));
        self.cgroups.retain(|(uid, _)| !live.contains(uid));
        self.networks.retain(|(uid, _)| !live.contains(uid));
    }

    fn remove(self, cx: &Context, report: &mut Report) {
        for (_, path, what) in self.trees {
            // Its own engine, or the sweep of its directory, may have come first.
            if !path.exists() {
                continue;
            }
            match pod_volume::remove_tree(&path) {
                Ok(()) => report.removed.push(format!("{what} {}", name_of(&path))),
                Err(error) => report.complaints.push(chain(&error)),
            }
        }
        for (_, path) in self.cgroups {
            if cx.cgroups.directories(&path).is_ok_and(|directories| !directories.iter().any(|dir| dir.exists())) {
                continue;
            }
            match cx.cgroups.kill(&path).and_then(|()| cx.cgroups.remove(&path)) {
                Ok(()) => report.removed.push(format!("cgroup {}", path.display())),
                Err(error) => report.complaints.push(chain(&error)),
            }
        }
        let dead: BTreeSet<String> = self.networks.into_iter().map(|(_, id)| id).collect();
        let (swept, failures) = match cx.network.sweep_if(|id| dead.contains(id)) {
            Ok(swept) => (swept, Vec::new()),
            Err(error) => (*error.swept, error.failures),
        };
        report.removed.extend(swept.removed.into_iter().map(|pod| format!("network of pod {pod}")));
        report.removed.extend(swept.links.into_iter().map(|link| format!("link {link}")));
        report.removed.extend(swept.tables.into_iter().map(|table| format!("nftables table {table}")));
        report.complaints.extend(failures);
    }
}

/// Of `UID` and `NAMESPACE_NAME_UID`.
fn uid_in(name: &str) -> String {
    name.rsplit('_').next().unwrap_or(name).to_owned()
}

/// The inverse of [`Roots::network_id`].
fn uid_of<'a>(roots: &Roots, network_id: &'a str) -> &'a str {
    let tagged = if roots.tag.is_empty() { None } else { network_id.strip_prefix(&roots.tag) };
    tagged.map_or(network_id, |rest| rest.trim_start_matches('-'))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Names of the groups right below `parent`, in whichever tree they are.
fn groups_in(cx: &Context, parent: &Path) -> BTreeSet<String> {
    let directories = cx.cgroups.directories(parent).unwrap_or_default();
    let entries = directories.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(dir: &Path) -> PodPaths {
        let paths = Roots::below(dir).pod("default", "web");
        fs::create_dir_all(&paths.run).unwrap();
        paths
    }

    fn verdict(paths: &PodPaths) -> String {
        match judge(paths) {
            Verdict::Lives(uid) => format!("lives {}", uid.unwrap_or_default()),
            Verdict::Nameless => "nameless".into(),
            Verdict::Dead(_) => "dead".into(),
        }
    }

    fn shim(paths: &PodPaths) -> std::os::fd::OwnedFd {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let directory = fs::File::open(&paths.run).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        bind(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{number}/shim.sock")).unwrap()).unwrap();
        listen(&socket, 1).unwrap();
        socket
    }

    #[test]
    fn without_owner_and_shim_a_pod_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let paths = pod(dir.path());
        assert_eq!(verdict(&paths), "dead");
        fs::write(paths.record(), r#"{"uid": "u"}"#).unwrap();
        assert_eq!(verdict(&paths), "dead");
        fs::write(paths.record(), "half of").unwrap();
        assert_eq!(verdict(&paths), "dead");
    }

    #[test]
    fn an_owned_pod_lives_also_before_it_has_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let paths = pod(dir.path());
        let _owner = Ownership::try_take(&paths).unwrap().unwrap();
        assert_eq!(verdict(&paths), "lives ");
        fs::write(paths.record(), r#"{"uid": "u", "unknown": 1}"#).unwrap();
        assert_eq!(verdict(&paths), "lives u");
        fs::write(paths.record(), "nonsense").unwrap();
        assert_eq!(verdict(&paths), "nameless");
    }

    #[test]
    fn a_shim_that_answers_is_life_however_long_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let paths = pod(&dir.path().join("d".repeat(150)));
        fs::write(paths.record(), r#"{"uid": "u"}"#).unwrap();
        let shim = shim(&paths);
        assert_eq!(verdict(&paths), "lives u");
        drop(shim);
        assert_eq!(verdict(&paths), "dead");
    }

    #[test]
    fn uids_are_found_in_names() {
        assert_eq!(uid_in("default_web_3f2a"), "3f2a");
        assert_eq!(uid_in("3f2a"), "3f2a");
        for roots in [Roots::system(), Roots::below(Path::new("/x"))] {
            assert_eq!(uid_of(&roots, &roots.network_id("3f2a-9c")), "3f2a-9c");
        }
    }
}
