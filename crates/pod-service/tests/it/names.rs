//! Names: a pod asks the service address of the name server.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use pod_service::dns::{Resolver, Service, Zone};
use pod_service::{Balancer, Frontend, Protocol};

use crate::world::{GATEWAY, Space, host_with};

/// A query as dig would send it (RFC 1035 §4).
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn zone(last: u8) -> Zone {
    let service = Service { address: Some(Ipv4Addr::new(10, 96, 0, last)), ..Service::default() };
    Zone { domain: "cluster.local".into(), services: BTreeMap::from([(("default".into(), "web".into()), service)]) }
}

/// The last four bytes of an answer with one address; the code of one without.
fn ask(pod: &Space, name: &str) -> Result<[u8; 4], u8> {
    pod.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        socket.connect("10.96.0.10:53").unwrap();
        socket.send(&query(name)).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        if answer[7] == 1 { Ok(answer[length - 4..length].try_into().unwrap()) } else { Err(answer[3] & 15) }
    })
}

#[test]
fn a_pod_asks_the_service_address_of_the_resolver() {
    let (pod, elsewhere) = (Space::new(), Space::new());
    let host = host_with(&[&pod, &elsewhere]);
    let (sender, receiver) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::scope(|scope| {
        let host = &host;
        scope.spawn(move || {
            host.inside(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                tokio::task::LocalSet::new().block_on(&runtime, async {
                    let gateway: Ipv4Addr = GATEWAY.parse().unwrap();
                    let resolver = Resolver::new(zone(7), std::path::Path::new("/dev/null"), &[]);
                    // The host's own resolver has the port.
                    let _taken = UdpSocket::bind("0.0.0.0:53").unwrap();
                    let (port, task) = resolver.serve(std::net::SocketAddrV4::new(gateway, 53)).unwrap();
                    sender.send((resolver, port)).unwrap();
                    let _ = stopped.await;
                    task.abort();
                });
            });
        });
        let (resolver, port) = receiver.recv().unwrap();
        let mut balancer = Balancer::new("", "10.96.0.0/16".parse().unwrap());
        let backends = [format!("{GATEWAY}:{port}").parse().unwrap()].into();
        let frontend = Frontend { protocol: Protocol::Udp, address: "10.96.0.10:53".parse().unwrap(), backends };
        host.inside(|| balancer.apply([frontend].into()).unwrap());

        let first = ask(&pod, "web.default.svc.cluster.local");
        let missing = ask(&pod, "gone.default.svc.cluster.local");
        // Nobody to forward to: SERVFAIL at once, so that the pod's resolver goes on.
        let foreign = ask(&pod, "example.com");
        resolver.set_zone(zone(8));
        let second = ask(&pod, "web.default.svc.cluster.local");
        drop(stop);
        host.inside(|| balancer.remove().unwrap());
        (first, missing, foreign, second)
    });
    assert_eq!(serving, (Ok([10, 96, 0, 7]), Err(3), Err(2), Ok([10, 96, 0, 8])));
}
