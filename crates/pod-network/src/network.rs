//! The network of a machine's pods: attach, detach, sweep.

use std::{collections::BTreeSet, fs::File, path::Path};

use nft::Netfilter;

use crate::{
    AttachError, Attachment, Config, DetachError, HostPort, LinkError, OpenError, SweepError, Swept,
    attachment::chain,
    checkpoint, forward_filter, forwarding, host, host_port,
    kept_socket::{KeptSocket, own_namespace},
    link, pool,
    record::{NamespaceId, Record, link_names},
    register::{Entry, Register, RegisterError, is_valid_id},
    route_socket::RouteSocket,
    translation::{Translation, forget_flows_to, installed_networks},
    undo::undo,
};

/// The pod network as one engine uses it. Engines with other networks may share the directory.
#[derive(Debug, Clone)]
pub struct Network {
    register: Register,
    config: Config,
    socket: KeptSocket,
}

impl Network {
    /// Prepares the directory, which must be the same for all engines of the machine. Changes nothing in the kernel.
    pub fn open(directory: &Path, config: Config) -> Result<Self, OpenError> {
        let cidr = config.cidr.trunc();
        if cidr.prefix_len() > 30 {
            return Err(OpenError::TooSmall(cidr));
        }
        let (first, last) = (cidr.network(), cidr.broadcast());
        if first.octets()[0] == 0 || first.is_loopback() || last.is_multicast() || last.octets()[0] > 224 {
            return Err(OpenError::NotUnicast(cidr));
        }
        let register = Register::open(directory)
            .map_err(|RegisterError { path, source, .. }| OpenError::Directory { path, source })?;
        Ok(Self { register, config: Config { cidr, ..config }, socket: KeptSocket::default() })
    }

    /// Connects the pod whose network namespace is the file `namespace` (`/proc/PID/ns/net`) and publishes its ports.
    ///
    /// All or nothing: on failure nothing is left. Called again for a pod that is attached just so, it only answers;
    /// anything else that is left of the pod is removed first.
    pub fn attach(&self, pod_id: &str, namespace: &Path, ports: &[HostPort]) -> Result<Attachment, AttachError> {
        if !is_valid_id(pod_id) {
            return Err(AttachError::PodId(pod_id.to_owned()));
        }
        let (file, namespace_id) = open_namespace(namespace)?;
        let _lock = self.register.lock()?;
        let routes = RouteSocket::open().map_err(LinkError::Socket)?;
        let netfilter = self.socket.borrow().map_err(AttachError::Translation)?;
        if let Some(earlier) = self.register.record(pod_id)? {
            let same = earlier.complete
                && earlier.cidr == self.config.cidr
                && earlier.namespace == namespace_id
                && earlier.ports == ports
                && link::exists(&routes, &earlier.attachment.host_link);
            if same {
                self.repair(&netfilter, &self.register.records()?).map_err(AttachError::Translation)?;
                return Ok(earlier.attachment);
            }
            let failures = undo(&self.register, &netfilter, &earlier);
            if !failures.is_empty() {
                return Err(AttachError::Leftovers { pod_id: pod_id.to_owned(), failures });
            }
        }

        // Everything that can be refused is, before anything is changed.
        if !ports.is_empty() {
            host_port::check(ports, &self.register.records()?)?;
        }
        let translation = Translation::of(self.config.cidr);
        let installed = translation.is_installed(&netfilter).map_err(AttachError::Translation)?;
        if !installed {
            self.check_overlap(&routes)?;
        }

        // From here on a crash is found by the address, from the record on everything.
        let record = self.reserve(pod_id, (namespace, namespace_id), ports, &routes)?;
        let attached = self.connect(&record, &file, &routes).and_then(|record| {
            let published = if installed {
                if record.ports.is_empty() { Ok(()) } else { translation.publish(&netfilter, &record) }
            } else {
                translation.install(&netfilter, &self.register.records()?)
            };
            published.and_then(|()| forward_filter::open(&netfilter, record.cidr)).map_err(AttachError::Translation)?;
            checkpoint::pass("ports published");
            forget_flows_to(&netfilter, &record.ports);
            let record = Record { complete: true, ..record };
            self.register.write_record(&record)?;
            checkpoint::pass("record completed");
            Ok(record.attachment)
        });
        attached.inspect_err(|_| {
            // What cannot be undone now stays recorded for the next sweep; the reason for failing says more.
            undo(&self.register, &netfilter, &record);
        })
    }

    /// Removes everything of the pod; that there is nothing is fine.
    ///
    /// Best called when the pod's processes are dead: the link then is only taken out of use, and removed by a thread
    /// that nobody waits for. If the namespace is still where it was at [`Network::attach`], it may be attached again,
    /// so the link is removed before this returns, for which the kernel makes the caller wait 10 to 30 ms.
    pub fn detach(&self, pod_id: &str) -> Result<(), DetachError> {
        let fail = |failures| DetachError { pod_id: pod_id.to_owned(), failures };
        if !is_valid_id(pod_id) {
            return Ok(());
        }
        let find = || {
            let lock = self.register.lock()?;
            Ok((lock, self.register.record(pod_id)?))
        };
        let (_lock, record) = find().map_err(|error: RegisterError| fail(vec![chain(&error)]))?;
        let Some(record) = record else {
            return self.register.remove_record(pod_id).map_err(|error| fail(vec![chain(&error)]));
        };
        let netfilter = self.socket.borrow().map_err(|error| fail(vec![chain(&*error)]))?;
        let failures = undo(&self.register, &netfilter, &record);
        if failures.is_empty() { Ok(()) } else { Err(fail(failures)) }
    }

    /// Ids of the pods that have, or may have, something here: of all engines of the machine. Unordered.
    pub fn known(&self) -> Vec<String> {
        self.register.pod_ids().unwrap_or_default()
    }

    /// Removes what belongs to pods not in `live`, after a crash or a power cut; see [`Network::sweep_if`].
    pub fn sweep(&self, live: &BTreeSet<String>) -> Result<Swept, SweepError> {
        self.sweep_if(|pod_id| !live.contains(pod_id))
    }

    /// Removes everything of the pods that `is_dead` says yes to and what belongs to no pod at all, and puts back the
    /// translation of pods that live. The question is asked under the lock, so a pod that another engine is just
    /// attaching is never among them half known.
    pub fn sweep_if(&self, is_dead: impl Fn(&str) -> bool) -> Result<Swept, SweepError> {
        let mut swept = Swept::default();
        let mut failures = Vec::new();
        if let Err(error) = self.sweep_into(is_dead, &mut swept, &mut failures) {
            failures.push(chain(&*error));
        }
        if failures.is_empty() { Ok(swept) } else { Err(SweepError { failures, swept: Box::new(swept) }) }
    }

    fn sweep_into(
        &self,
        is_dead: impl Fn(&str) -> bool,
        swept: &mut Swept,
        failures: &mut Vec<String>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _lock = self.register.lock()?;
        let netfilter = self.socket.borrow()?;
        // Of another version of this program, or cut short by a power cut. If the pod lives, what is its is left alone.
        let mut unreadable = BTreeSet::new();
        for entry in self.register.entries()? {
            match entry {
                Entry::Known(record) if is_dead(&record.pod_id) => {
                    let failed = undo(&self.register, &netfilter, &record);
                    if failed.is_empty() {
                        swept.removed.push(record.pod_id);
                    }
                    failures.extend(failed);
                }
                Entry::Unreadable { pod_id } if is_dead(&pod_id) => {
                    self.register.remove_record(&pod_id)?;
                    swept.removed.push(pod_id);
                }
                Entry::Unreadable { pod_id } => {
                    unreadable.insert(pod_id);
                }
                Entry::Known(_) => {}
            }
        }
        let records = self.register.records()?;
        for address in self.register.addresses_in_use()? {
            if !records.iter().any(|record| record.attachment.ip == address)
                && let Some(owner) = self.register.owner(address)?
                && !unreadable.contains(&owner)
            {
                self.register.release(address, &owner)?;
                swept.addresses.push(address);
            }
        }
        let routes = RouteSocket::open()?;
        for (name, pod_id) in link::with_alias(&routes, &self.alias(""))? {
            if !records.iter().any(|record| record.attachment.host_link == name) && !unreadable.contains(&pod_id) {
                link::remove(&routes, &name)?;
                swept.links.push(name);
            }
        }
        for cidr in installed_networks(&netfilter)? {
            let translation = Translation::of(cidr);
            let needed = !unreadable.is_empty() || records.iter().any(|record| record.cidr == cidr);
            if !needed {
                forward_filter::close(&netfilter, cidr)?;
                if translation.remove(&netfilter)? {
                    swept.tables.push(translation.name().to_owned());
                }
            }
        }
        swept.repaired = self.repair(&netfilter, &records)?;
        if self.register.pod_ids()?.is_empty() {
            forwarding::restore(self.register.directory())?;
        }
        Ok(())
    }

    /// Puts back the tables of these pods' networks where someone flushed them. Returns their names.
    fn repair(
        &self,
        netfilter: &Netfilter,
        records: &[Record],
    ) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
        let networks: BTreeSet<_> = records.iter().map(|record| record.cidr).collect();
        let mut repaired = Vec::new();
        for cidr in networks {
            let translation = Translation::of(cidr);
            if !translation.is_installed(netfilter)? {
                translation.install(netfilter, records)?;
                repaired.push(translation.name().to_owned());
            }
            forward_filter::open(netfilter, cidr)?;
        }
        Ok(repaired)
    }

    /// No route of the machine may lead to the pods' addresses, except those to pods.
    fn check_overlap(&self, routes: &RouteSocket) -> Result<(), AttachError> {
        let cidr = self.config.cidr;
        // Links this register made and then lost (someone emptied the directory) are removed rather than respected.
        let ours: Vec<_> = self.register.records()?.into_iter().map(|record| record.attachment.host_link).collect();
        for (name, _) in link::with_alias(routes, &self.alias(""))? {
            if !ours.contains(&name) {
                link::remove(routes, &name)?;
            }
        }
        match host::overlap(routes, cidr, &ours).map_err(LinkError::List)? {
            Some((taken, link)) => Err(AttachError::Overlap { cidr, taken, link }),
            None => Ok(()),
        }
    }

    /// Claims an address and writes the record.
    fn reserve(
        &self,
        pod_id: &str,
        (namespace_path, namespace): (&Path, NamespaceId),
        ports: &[HostPort],
        routes: &RouteSocket,
    ) -> Result<Record, AttachError> {
        let cidr = self.config.cidr;
        // Checked before it is recorded: undoing removes the link of the recorded name.
        let free = link_names(pod_id).find(|name| !link::exists(routes, name));
        let host_link = free.ok_or_else(|| LinkError::Create {
            link: link_names(pod_id).last().unwrap_or_default(),
            source: std::io::ErrorKind::AlreadyExists.into(),
        })?;
        let in_use = self.register.addresses_in_use()?;
        let ip = pool::lowest_free(cidr, &in_use).ok_or(AttachError::Exhausted(cidr))?;
        if !self.register.claim(ip, pod_id)? {
            // Only someone who works without the lock could have been faster.
            return Err(AttachError::Exhausted(cidr));
        }
        checkpoint::pass("address claimed");
        let attachment = Attachment { ip, gateway: pool::gateway(cidr), host_link };
        let ports = ports.to_vec();
        let (pod_id, namespace_path) = (pod_id.to_owned(), namespace_path.to_owned());
        let record = Record { pod_id, cidr, attachment, namespace_path, namespace, ports, complete: false };
        if let Err(error) = self.register.write_record(&record) {
            let _ = self.register.release(ip, &record.pod_id);
            return Err(error.into());
        }
        checkpoint::pass("record written");
        Ok(record)
    }

    /// Switches forwarding on and makes the link.
    fn connect(&self, record: &Record, namespace: &File, routes: &RouteSocket) -> Result<Record, AttachError> {
        forwarding::ensure(self.register.directory())
            .map_err(|source| AttachError::Setting { path: forwarding::SETTING.into(), source })?;
        checkpoint::pass("forwarding on");
        let plan = link::Plan {
            host_link: &record.attachment.host_link,
            alias: self.alias(&record.pod_id),
            address: record.attachment.ip,
            gateway: record.attachment.gateway,
            mtu: self.config.mtu.or_else(|| host::uplink_mtu(routes)),
            from_loopback: !record.ports.is_empty(),
        };
        link::connect(routes, namespace, &plan)?;
        checkpoint::pass("link configured");
        Ok(record.clone())
    }

    /// What a pod's link is described by: the register it is in, and the pod.
    fn alias(&self, pod_id: &str) -> String {
        format!("outrigger {} pod {pod_id}", self.register.directory().display())
    }
}

/// The namespace as a file, and as what it will be known by.
fn open_namespace(path: &Path) -> Result<(File, NamespaceId), AttachError> {
    let fail = |source| AttachError::Namespace { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let namespace = NamespaceId::of(&file.metadata().map_err(fail)?);
    if namespace == own_namespace().map_err(fail)? {
        return Err(AttachError::HostNamespace(path.to_owned()));
    }
    Ok((file, namespace))
}

impl From<RegisterError> for AttachError {
    fn from(RegisterError { path, source, .. }: RegisterError) -> Self {
        AttachError::Register { path, source }
    }
}
