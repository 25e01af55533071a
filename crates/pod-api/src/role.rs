//! Which part a container plays in its pod. Native sidecars are spelled as init containers (KEP-753), so nearly every
//! rule about a pod asks this question first.

use k8s_openapi::api::core::v1::{Container, PodSpec};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// An entry of `spec.containers`.
    Main,
    /// An init container that must end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the mains for the pod's whole life.
    Sidecar,
}

/// Whether an entry of `spec.initContainers` is a sidecar.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// Init containers and sidecars in spec order, then the mains.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = (Role, &Container)> {
    let role = |container| if is_sidecar(container) { Role::Sidecar } else { Role::Init };
    let inits = spec.init_containers.iter().flatten().map(move |container| (role(container), container));
    inits.chain(spec.containers.iter().map(|container| (Role::Main, container)))
}

/// The container of that name, whatever its part. Ephemeral containers are another type and not searched.
pub fn find<'a>(spec: &'a PodSpec, name: &str) -> Option<(Role, &'a Container)> {
    containers(spec).find(|(_, container)| container.name == name)
}
