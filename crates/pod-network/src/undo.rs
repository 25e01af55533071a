//! Undoing a pod's network: the one way back, for a failed attach, a detach and a sweep.

use nft::Netfilter;

use crate::{
    attachment::chain,
    checkpoint, forward_filter, forwarding, link,
    record::Record,
    register::Register,
    route_socket::RouteSocket,
    translation::{Translation, forget_flows_of},
};

/// Removes everything the record speaks of, the record last but one: what a crash or a failure leaves is found again.
/// Returns what could not be removed, each with its causes. The caller holds the lock.
pub(crate) fn undo(register: &Register, netfilter: &Netfilter, record: &Record) -> Vec<String> {
    let mut failures = Vec::new();
    let ip = record.attachment.ip;
    let removed = RouteSocket::open().map_err(link::LinkError::Socket).and_then(|routes| {
        let index = link::retire(&routes, &record.attachment)?;
        checkpoint::pass("link retired");
        if record.namespace_is_held() {
            return link::remove(&routes, &record.attachment.host_link);
        }
        index.into_iter().for_each(link::remove_later);
        Ok(())
    });
    failures.extend(removed.err().map(|error| chain(&error)));
    checkpoint::pass("link removed");
    match withdraw(register, netfilter, record) {
        Ok(()) => {}
        Err(error) => failures.push(format!("failed to withdraw address translation: {}", chain(&*error))),
    }
    checkpoint::pass("translation withdrawn");
    if !failures.is_empty() {
        return failures;
    }
    // The record goes before the address: an address without a record is free for a sweep, while a record whose address
    // another pod has by now would withdraw that pod's ports.
    let forgotten = register.remove_record(&record.pod_id).and_then(|()| {
        checkpoint::pass("record removed");
        register.release(ip, &record.pod_id)
    });
    failures.extend(forgotten.err().map(|error| chain(&error)));
    failures
}

fn withdraw(
    register: &Register,
    netfilter: &Netfilter,
    record: &Record,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ip = record.attachment.ip;
    let others: Vec<_> = register.addresses_in_use()?.into_iter().filter(|other| *other != ip).collect();
    let translation = Translation::of(record.cidr);
    if others.iter().any(|other| record.cidr.contains(other)) {
        if !record.ports.is_empty() {
            translation.withdraw(netfilter, ip)?;
        }
    } else {
        // In this order: a sweep finds the network by its table.
        forward_filter::close(netfilter, record.cidr)?;
        checkpoint::pass("way through closed");
        translation.remove(netfilter)?;
    }
    forget_flows_of(netfilter, ip, &record.ports);
    if others.is_empty() {
        checkpoint::pass("last pod undone");
        forwarding::restore(register.directory())?;
    }
    Ok(())
}
