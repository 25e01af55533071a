//! A pod's link: a veth pair with one end in the pod's network namespace.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    time::Duration,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use crate::{
    Attachment,
    route_socket::{Change, RouteSocket},
};

/// The pod's end of its link.
const POD_LINK: &str = "eth0";
/// `lo` has this index in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("failed to open a routing socket")]
    Socket(#[source] io::Error),
    #[error("failed to make the link `{link}` with `eth0` in the pod")]
    Create {
        link: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to give the host's end `{link}` its {what}")]
    HostEnd {
        link: String,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("failed to enter the pod's network namespace")]
    Enter(#[source] io::Error),
    #[error("failed to give the pod's end `eth0` its {what}")]
    PodEnd {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("failed to write `{path}`")]
    Setting {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to remove the link `{link}`")]
    Remove {
        link: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to list links")]
    List(#[source] io::Error),
}

/// What a pod's link is to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) host_link: &'a str,
    /// Shown by `ip link`, and by which a register finds links it no longer knows.
    pub(crate) alias: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mtu: Option<u32>,
    /// Whether connections to the host's 127.0.0.1 are translated to this pod.
    pub(crate) from_loopback: bool,
}

/// Makes the pair and configures both ends.
pub(crate) fn connect(routes: &RouteSocket, namespace: &File, plan: &Plan<'_>) -> Result<(), LinkError> {
    create(routes, namespace, plan)?;
    crate::checkpoint::pass("link made");
    // The two ends do not depend on each other, and entering a namespace takes a thread of its own anyway.
    std::thread::scope(|scope| {
        let pod_end = scope.spawn(|| configure_pod_end(namespace, plan));
        let host_end = configure_host_end(routes, plan);
        let pod_end = pod_end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        host_end.and(pod_end)
    })?;
    await_carrier(routes, plan.host_link);
    Ok(())
}

/// Waits until the host's end can send.
///
/// That the pod's end came up reaches the host's end by a kernel worker, before which everything sent is dropped: the
/// answer to the pod's first ARP request too, and then its first connection takes a second. Since Linux 6.8 asking for
/// the link's state lets the worker run first; before, it is asked again for a while. A link that stays down is no error
/// here, the pod's connections will say so.
fn await_carrier(routes: &RouteSocket, link: &str) {
    const PAUSE: Duration = Duration::from_micros(200);
    const ATTEMPTS: u32 = 500;
    for _ in 0..ATTEMPTS {
        let Ok(message) = find(routes, link) else { return };
        if message.attributes.contains(&LinkAttribute::OperState(State::Up)) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// One message: both ends, each in its namespace and named, the host's end up. (The pod's end cannot be yet: it is made
/// first, and an end without the other refuses with ENOTCONN.)
fn create(routes: &RouteSocket, namespace: &File, plan: &Plan<'_>) -> Result<(), LinkError> {
    let end = |name: &str| {
        let mut end = LinkMessage::default();
        end.attributes.push(LinkAttribute::IfName(name.to_owned()));
        end.attributes.extend(plan.mtu.map(LinkAttribute::Mtu));
        end
    };
    let mut pod_end = end(POD_LINK);
    pod_end.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut host_end = end(plan.host_link);
    let peer = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(pod_end)));
    host_end.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), peer]));
    host_end.header.flags = LinkFlags::Up;
    host_end.header.change_mask = LinkFlags::Up;
    routes
        .change(vec![(Change::Create, Message::NewLink(host_end))])
        .map_err(|(_, source)| LinkError::Create { link: plan.host_link.to_owned(), source })
}

fn configure_host_end(routes: &RouteSocket, plan: &Plan<'_>) -> Result<(), LinkError> {
    let fail = |what| move |source| LinkError::HostEnd { link: plan.host_link.to_owned(), what, source };
    let index = find(routes, plan.host_link).map_err(fail("index"))?.header.index;
    let mut named = LinkMessage::default();
    named.header.index = index;
    named.attributes.push(LinkAttribute::IfAlias(plan.alias.clone()));
    let steps = ["address", "route", "alias"];
    let changes = vec![
        (Change::Ensure, address(index, plan.gateway)),
        (Change::Ensure, route(index, Some(plan.address), None)),
        (Change::Alter, Message::SetLink(named)),
    ];
    routes.change(changes).map_err(|(step, source)| fail(steps[step])(source))?;
    // A packet from here must have the address routed here: pods cannot speak in each other's name (RFC 3704 §2.2).
    write_setting(plan.host_link, "rp_filter")?;
    if plan.from_loopback {
        write_setting(plan.host_link, "route_localnet")?;
    }
    Ok(())
}

fn configure_pod_end(namespace: &File, plan: &Plan<'_>) -> Result<(), LinkError> {
    let fail = |what| move |source| LinkError::PodEnd { what, source };
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).map_err(|e| LinkError::Enter(e.into()))?;
    let routes = RouteSocket::open().map_err(LinkError::Socket)?;
    let index = find(&routes, POD_LINK).map_err(fail("index"))?.header.index;
    let steps = ["loopback", "address", "state", "route to the gateway", "default route"];
    let changes = vec![
        (Change::Alter, up(LOOPBACK)),
        (Change::Ensure, address(index, plan.address)),
        (Change::Alter, up(index)),
        (Change::Ensure, route(index, Some(plan.gateway), None)),
        (Change::Ensure, route(index, None, Some(plan.gateway))),
    ];
    routes.change(changes).map_err(|(step, source)| fail(steps[step])(source))
}

/// Takes the host's end out of use without removing the pair: nothing leads to it, and what comes from it is dropped for
/// want of a route back. That there is no such link, or nothing on it, is fine. Returns the link's index if it is there.
pub(crate) fn retire(routes: &RouteSocket, plan: &Attachment) -> Result<Option<u32>, LinkError> {
    let fail = |source| LinkError::Remove { link: plan.host_link.clone(), source };
    let index = match find(routes, &plan.host_link) {
        Ok(link) => link.header.index,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    for message in [route(index, Some(plan.ip), None), address(index, plan.gateway)] {
        let message = match message {
            Message::NewRoute(route) => Message::DelRoute(route),
            Message::NewAddress(address) => Message::DelAddress(address),
            other => other,
        };
        match routes.change(vec![(Change::Alter, message)]) {
            Err((_, error)) if !is_absent(&error) => return Err(fail(error)),
            _ => {}
        }
    }
    Ok(Some(index))
}

/// Removes the pair, wherever its other end is; that there is none is fine.
pub(crate) fn remove(routes: &RouteSocket, link: &str) -> Result<(), LinkError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(link.to_owned()));
    delete(routes, message).map_err(|source| LinkError::Remove { link: link.to_owned(), source })
}

/// Removes a pair on a thread of its own: the kernel makes whoever removes a link wait 10 to 30 ms. By its index, which
/// is not given out again soon: the name may be another pod's link by then.
///
/// For links already retired whose namespace has lost its processes. It would take the link along by itself, but only
/// when its last socket is gone, and connections that were cut off linger for up to two minutes.
pub(crate) fn remove_later(index: u32) {
    let work = move || {
        let mut message = LinkMessage::default();
        message.header.index = index;
        // A failure leaves the link to its namespace, or to the next sweep, which finds it by its alias.
        let _ = RouteSocket::open().map(|routes| delete(&routes, message));
    };
    // Without a thread the same holds.
    let _ = std::thread::Builder::new().name("remove-link".to_owned()).spawn(work);
}

fn delete(routes: &RouteSocket, link: LinkMessage) -> io::Result<()> {
    match routes.change(vec![(Change::Alter, Message::DelLink(link))]) {
        Err((_, error)) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn exists(routes: &RouteSocket, link: &str) -> bool {
    find(routes, link).is_ok()
}

/// The links whose alias begins with `prefix`: name, and the rest of the alias.
pub(crate) fn with_alias(routes: &RouteSocket, prefix: &str) -> Result<Vec<(String, String)>, LinkError> {
    let links = routes.dump(Message::GetLink(LinkMessage::default())).map_err(LinkError::List)?;
    let named = |message| {
        let Message::NewLink(link) = message else { return None };
        let rest = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => alias.strip_prefix(prefix).map(str::to_owned),
            _ => None,
        })?;
        Some((name(&link)?, rest))
    };
    Ok(links.into_iter().filter_map(named).collect())
}

pub(crate) fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

pub(crate) fn find(routes: &RouteSocket, link: &str) -> io::Result<LinkMessage> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::IfName(link.to_owned()));
    ask(routes, question)
}

pub(crate) fn find_index(routes: &RouteSocket, index: u32) -> io::Result<LinkMessage> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    ask(routes, question)
}

fn ask(routes: &RouteSocket, question: LinkMessage) -> io::Result<LinkMessage> {
    match routes.ask(Message::GetLink(question))? {
        Message::NewLink(link) => Ok(link),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn up(index: u32) -> Message {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    Message::SetLink(link)
}

/// No such link, route or address; these have no [`io::ErrorKind`] or one that says something else.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let absent = [Errno::NODEV, Errno::SRCH, Errno::ADDRNOTAVAIL];
    absent.iter().any(|absent| error.raw_os_error() == Some(absent.raw_os_error()))
}

/// The address alone, without a network around it.
fn address(index: u32, address: Ipv4Addr) -> Message {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(IpAddr::V4(address)), AddressAttribute::Address(IpAddr::V4(address))];
    Message::NewAddress(message)
}

/// To one address on the link itself, or (destination none) to everything through a gateway.
fn route(index: u32, destination: Option<Ipv4Addr>, gateway: Option<Ipv4Addr>) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if let Some(destination) = destination {
        message.header.destination_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination)));
    }
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    Message::NewRoute(message)
}

fn write_setting(link: &str, setting: &str) -> Result<(), LinkError> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{link}/{setting}"));
    std::fs::write(&path, "1").map_err(|source| LinkError::Setting { path, source })
}
