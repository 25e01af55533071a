//! `outrigger down`: pods stopped in order and removed, by the engine that drives them or, without one, by ourselves.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use pod_engine::control::{Reply, Request, ask};
use pod_engine::{Message, News, Roots, record};

use crate::cli::{Down, Global};
use crate::exit::{self, FAILED};
use crate::host::{self, OwnEngine};
use crate::manifest;
use crate::narrate::Tone;
use crate::orphans;
use crate::terminal::label::PodKey;
use crate::terminal::view::{Terminal, terminal};

pub(crate) fn run(global: &Global, arguments: Down) -> anyhow::Result<u8> {
    let roots = host::roots(global);
    let keys = targets(&roots, &arguments)?;
    orphans::tell(&roots, &keys);
    let grace = if arguments.force { Some(0) } else { arguments.grace_period };
    host::block_on(async {
        let mut taking = Taking { view: terminal().expecting_ends(), left: Vec::new(), code: exit::OK };
        let engines = taking.sort(&roots, &keys, arguments.ignore_not_found)?;
        for (socket, pods) in engines {
            match socket {
                Some(socket) => taking.by_owner(&roots, arguments.network.pod_cidr, socket, pods, grace).await?,
                None => taking.by_ourselves(&roots, arguments.network.pod_cidr, &pods, grace).await?,
            }
        }
        Ok(taking.code)
    })?
}

/// The pods that are meant, each once, in the order they were named.
fn targets(roots: &Roots, arguments: &Down) -> anyhow::Result<Vec<PodKey>> {
    let namespace = arguments.namespace.as_deref();
    if arguments.all {
        let listed = manifest::known(roots)?;
        let keys = listed.iter().map(|pod| manifest::key(&pod.record.pod));
        return Ok(keys.filter(|key| namespace.is_none_or(|namespace| key.0 == namespace)).collect());
    }
    let default = namespace.unwrap_or("default");
    let (files, names): (Vec<_>, Vec<_>) = arguments.targets.iter().partition(|word| manifest::looks_like_file(word));
    let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
    let mut keys: Vec<PodKey> = Vec::new();
    if !files.is_empty() || !arguments.filenames.is_empty() {
        keys = manifest::read(&files, &arguments.filenames, default)?.keys();
    }
    keys.extend(names.into_iter().map(|name| (default.to_owned(), manifest::pod_name(name).to_owned())));
    let mut seen = std::collections::BTreeSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    Ok(keys)
}

struct Taking {
    view: Terminal,
    /// Pods that are not gone yet.
    left: Vec<PodKey>,
    code: u8,
}

impl Taking {
    /// Which engine takes which pods down; `None` is ours.
    fn sort(
        &mut self,
        roots: &Roots,
        keys: &[PodKey],
        ignore_not_found: bool,
    ) -> anyhow::Result<BTreeMap<Option<PathBuf>, Vec<PodKey>>> {
        let mut engines: BTreeMap<Option<PathBuf>, Vec<PodKey>> = BTreeMap::new();
        for key in keys {
            let Some(known) = record::find(roots, &key.0, &key.1)? else {
                if !ignore_not_found {
                    self.fail(&not_found(key));
                }
                continue;
            };
            self.view.expect(key.clone(), manifest::containers(&known.record.pod));
            self.view.know(key.clone(), known.status);
            let owner = known.owner.filter(|_| known.owned);
            engines.entry(owner).or_default().push(key.clone());
            self.left.push(key.clone());
        }
        Ok(engines)
    }

    async fn by_owner(
        &mut self,
        roots: &Roots,
        pod_cidr: ipnet::Ipv4Net,
        socket: PathBuf,
        pods: Vec<PodKey>,
        grace: Option<u64>,
    ) -> anyhow::Result<()> {
        if let Ok(mut replies) = ask(&socket, &Request::Stop { pods: pods.clone(), grace }).await {
            while pods.iter().any(|key| self.left.contains(key)) {
                match replies.next().await {
                    Ok(Some(Reply::News(message))) => self.hear(message),
                    Ok(Some(Reply::Refused { namespace, name, message })) => {
                        // It may have ended between our look and the request.
                        let key = (namespace, name);
                        let gone = record::find(roots, &key.0, &key.1)?.is_none();
                        if gone { self.gone(&key) } else { self.refused(roots, &key, &message) }
                    }
                    Ok(Some(Reply::End) | None) | Err(_) => break,
                }
            }
        }
        // The engine ended or died meanwhile: what is left is nobody's.
        let left: Vec<PodKey> = pods.into_iter().filter(|key| self.left.contains(key)).collect();
        if left.is_empty() { Ok(()) } else { self.by_ourselves(roots, pod_cidr, &left, grace).await }
    }

    /// An engine that let go of a pod in this moment is no failure: it is taken down like any other without owner.
    fn refused(&mut self, roots: &Roots, key: &PodKey, message: &str) {
        if record::find(roots, &key.0, &key.1).ok().flatten().is_some_and(|known| known.owned) {
            self.left.retain(|other| other != key);
            self.fail(message);
        }
    }

    async fn by_ourselves(
        &mut self,
        roots: &Roots,
        pod_cidr: ipnet::Ipv4Net,
        pods: &[PodKey],
        grace: Option<u64>,
    ) -> anyhow::Result<()> {
        let own = OwnEngine::open(roots, pod_cidr)?;
        let mut feed = own.engine.feed().subscribe();
        for key in pods {
            let taken = own.engine.adopt(&key.0, &key.1).and_then(|()| own.engine.stop(&key.0, &key.1, grace));
            if let Err(error) = taken {
                self.left.retain(|other| other != key);
                self.fail(&format!("{:#}", anyhow::Error::new(error)));
            }
        }
        while pods.iter().any(|key| self.left.contains(key)) {
            let Some(message) = feed.recv().await else { break };
            self.hear(message);
        }
        Ok(())
    }

    fn hear(&mut self, message: Message) {
        let key = (message.namespace.clone(), message.name.clone());
        match message.news {
            News::Removed => self.gone(&key),
            // A terminal that is gone must not keep pods from being stopped.
            _ => {
                let _ = self.view.hear(message).and_then(|()| self.view.flush());
            }
        }
    }

    fn gone(&mut self, key: &PodKey) {
        if self.left.contains(key) {
            self.left.retain(|other| other != key);
            let _ = writeln!(io::stdout(), "pod \"{}\" deleted", key.1);
        }
    }

    fn fail(&mut self, message: &str) {
        self.code = FAILED;
        let _ = self.view.say(Tone::Bad, &format!("error: {message}"));
    }
}

fn not_found(key: &PodKey) -> String {
    if key.0 == "default" {
        format!("pods \"{}\" not found", key.1)
    } else {
        format!("pods \"{}\" not found in namespace \"{}\"", key.1, key.0)
    }
}
