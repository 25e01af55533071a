//! What a pod asks for and may use, and the cgroup numbers that follow from it.
//!
//! Sidecars add to the mains for the whole life of the pod; a plain init container only counts while it is the largest
//! (KEP-753, "Resources calculation for scheduling and pod admission"). Millicores and bytes everywhere.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{self, Amount, QuantityError};
use crate::role::{Role, containers};

/// cgroup v1 `cpu.shares` of a container without a request, and the smallest the kernel takes.
pub const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// `cpu.cfs_period_us`.
pub const CPU_PERIOD_US: i64 = 100_000;
/// The kernel refuses smaller quotas.
const MIN_QUOTA_US: i64 = 1000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{owner} has an unreadable {list} of `{resource}`: \"{value}\"")]
pub struct ResourceError {
    /// `container "app"` or `pod`.
    pub owner: String,
    /// `request` or `limit`.
    pub list: &'static str,
    pub resource: String,
    pub value: String,
    #[source]
    pub source: QuantityError,
}

/// One container's own numbers. A request that is not written is the limit (API defaulting); an absent one stays
/// `None`, which is not the same as an explicit zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerResources {
    pub cpu_request_millis: Option<i64>,
    pub cpu_limit_millis: Option<i64>,
    pub memory_request: Option<i64>,
    pub memory_limit: Option<i64>,
    pub ephemeral_storage_request: Option<i64>,
    pub ephemeral_storage_limit: Option<i64>,
    /// By page size as in the resource name (`2Mi` of `hugepages-2Mi`), bytes.
    pub hugepage_limits: BTreeMap<String, i64>,
}

impl ContainerResources {
    pub fn of(container: &Container) -> Result<ContainerResources, ResourceError> {
        let owner = format!("container \"{}\"", container.name);
        container.resources.as_ref().map_or(Ok(ContainerResources::default()), |resources| of(&owner, resources))
    }

    /// A limit of zero is no limit.
    pub fn has_cpu_limit(&self) -> bool {
        self.cpu_limit_millis.is_some_and(|millis| millis > 0)
    }

    /// A limit of zero is no limit.
    pub fn has_memory_limit(&self) -> bool {
        self.memory_limit.is_some_and(|bytes| bytes > 0)
    }
}

/// The pod's sum: what scheduling counts and what the pod's cgroup gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodResources {
    pub cpu_request_millis: i64,
    pub memory_request: i64,
    /// By the formula over those containers that have a limit; `None` if none has. Not a promise to enforce it: see
    /// [`PodResources::cgroup_cpu_limit_millis`].
    pub cpu_limit_millis: Option<i64>,
    pub memory_limit: Option<i64>,
    pub ephemeral_storage_limit: Option<i64>,
    /// Every container has a CPU limit, or the pod itself has.
    pub cpu_limit_applies: bool,
    /// Every container has a memory limit, or the pod itself has.
    pub memory_limit_applies: bool,
}

impl PodResources {
    /// The quota of the pod's cgroup: a pod with one unlimited container is not limited.
    pub fn cgroup_cpu_limit_millis(&self) -> Option<i64> {
        self.cpu_limit_millis.filter(|_| self.cpu_limit_applies)
    }

    /// The memory limit of the pod's cgroup, by the same rule.
    pub fn cgroup_memory_limit(&self) -> Option<i64> {
        self.memory_limit.filter(|_| self.memory_limit_applies)
    }
}

/// Requests and limits of the whole pod, sidecars and plain inits included; `spec.resources` (KEP-2837) replaces the
/// sum where it is set, `spec.overhead` is added.
pub fn pod_effective(spec: &PodSpec) -> Result<PodResources, ResourceError> {
    let mut members = Vec::new();
    for (role, container) in containers(spec) {
        members.push((role, ContainerResources::of(container)?));
    }
    let pod_level = spec.resources.as_ref().map(|resources| of("pod", resources)).transpose()?;
    let pod_level = pod_level.unwrap_or_default();
    let overhead = overhead(spec)?;

    let sum = |amount: fn(&ContainerResources) -> Option<i64>| effective(&members, amount);
    let container_cpu = sum(|c| c.cpu_request_millis);
    let container_memory = sum(|c| c.memory_request);
    let own_request = |resource: &str| {
        let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests.is_some_and(|requests| requests.contains_key(resource))
    };
    // A pod-level request that is only implied by the pod-level limit gives way to what the containers ask for.
    let request = |resource, pod_level: Option<i64>, containers: Option<i64>| match (pod_level, containers) {
        (Some(request), _) if own_request(resource) => request,
        (_, Some(sum)) => sum,
        (pod_level, None) => pod_level.unwrap_or(0),
    };
    let every = |has: fn(&ContainerResources) -> bool| members.iter().all(|(_, c)| has(c)) && !members.is_empty();

    Ok(PodResources {
        cpu_request_millis: request("cpu", pod_level.cpu_request_millis, container_cpu)
            .saturating_add(overhead.cpu_request_millis.unwrap_or(0)),
        memory_request: request("memory", pod_level.memory_request, container_memory)
            .saturating_add(overhead.memory_request.unwrap_or(0)),
        cpu_limit_millis: pod_level
            .cpu_limit_millis
            .or_else(|| sum(|c| c.cpu_limit_millis))
            .map(|limit| limit.saturating_add(overhead.cpu_request_millis.unwrap_or(0))),
        memory_limit: pod_level
            .memory_limit
            .or_else(|| sum(|c| c.memory_limit))
            .map(|limit| limit.saturating_add(overhead.memory_request.unwrap_or(0))),
        ephemeral_storage_limit: sum(|c| c.ephemeral_storage_limit),
        cpu_limit_applies: pod_level.has_cpu_limit() || every(ContainerResources::has_cpu_limit),
        memory_limit_applies: pod_level.has_memory_limit() || every(ContainerResources::has_memory_limit),
    })
}

/// What the containers alone ask for, without pod-level resources and overhead.
pub(crate) fn containers_memory_request(spec: &PodSpec) -> Result<i64, ResourceError> {
    let mut members = Vec::new();
    for (role, container) in containers(spec) {
        members.push((role, ContainerResources::of(container)?));
    }
    Ok(effective(&members, |c| c.memory_request).unwrap_or(0))
}

/// `max(each init's request on top of the sidecars before it, all sidecars + all mains)`; `None` when nobody has one.
fn effective(members: &[(Role, ContainerResources)], amount: fn(&ContainerResources) -> Option<i64>) -> Option<i64> {
    let (mut sidecars, mut mains, mut peak, mut any) = (0i64, 0i64, 0i64, false);
    for (role, resources) in members {
        let own = amount(resources);
        any |= own.is_some();
        let own = own.unwrap_or(0);
        match role {
            Role::Init => peak = peak.max(sidecars.saturating_add(own)),
            Role::Sidecar => {
                sidecars = sidecars.saturating_add(own);
                peak = peak.max(sidecars);
            }
            Role::Main => mains = mains.saturating_add(own),
        }
    }
    any.then(|| peak.max(sidecars.saturating_add(mains)))
}

/// The pod-level section alone, requests defaulted from limits.
pub(crate) fn pod_level(spec: &PodSpec) -> Result<Option<ContainerResources>, ResourceError> {
    spec.resources.as_ref().map(|resources| of("pod", resources)).transpose()
}

fn overhead(spec: &PodSpec) -> Result<ContainerResources, ResourceError> {
    of("overhead", &ResourceRequirements { requests: spec.overhead.clone(), ..Default::default() })
}

fn of(owner: &str, resources: &ResourceRequirements) -> Result<ContainerResources, ResourceError> {
    let read = |list, quantities: Option<&BTreeMap<String, Quantity>>, resource: &str| {
        let Some(written) = quantities.and_then(|quantities| quantities.get(resource)) else { return Ok(None) };
        let parsed = quantity::parse(&written.0).map(|(amount, _)| Some(amount));
        parsed.map_err(|source| ResourceError {
            owner: owner.to_owned(),
            list,
            resource: resource.to_owned(),
            value: written.0.clone(),
            source,
        })
    };
    let pair = |resource| -> Result<(Option<Amount>, Option<Amount>), ResourceError> {
        let limit = read("limit", resources.limits.as_ref(), resource)?;
        let request = read("request", resources.requests.as_ref(), resource)?;
        Ok((request.or(limit), limit))
    };
    let (cpu_request, cpu_limit) = pair("cpu")?;
    let (memory_request, memory_limit) = pair("memory")?;
    let (storage_request, storage_limit) = pair("ephemeral-storage")?;
    let mut hugepage_limits = BTreeMap::new();
    for name in resources.limits.iter().flatten().map(|(name, _)| name) {
        if let Some(size) = name.strip_prefix("hugepages-")
            && let Some(limit) = read("limit", resources.limits.as_ref(), name)?
        {
            hugepage_limits.insert(size.to_owned(), limit.whole());
        }
    }
    Ok(ContainerResources {
        cpu_request_millis: cpu_request.map(Amount::millis),
        cpu_limit_millis: cpu_limit.map(Amount::millis),
        memory_request: memory_request.map(Amount::whole),
        memory_limit: memory_limit.map(Amount::whole),
        ephemeral_storage_request: storage_request.map(Amount::whole),
        ephemeral_storage_limit: storage_limit.map(Amount::whole),
        hugepage_limits,
    })
}

/// `cpu.shares` (cgroup v1) of a request in millicores: 1024 a core.
pub fn cpu_shares(millis: i64) -> u64 {
    (u64::try_from(millis).unwrap_or(0).saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// `cpu.cfs_quota_us` of a limit in millicores, for [`CPU_PERIOD_US`]; −1 (no quota) for a limit of zero.
pub fn cpu_quota_us(millis: i64) -> i64 {
    if millis <= 0 {
        return -1;
    }
    (millis.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_QUOTA_US)
}

/// `cpu.weight` (cgroup v2) of a container: opencontainers/cgroups' curve through 2 → 1, 1024 → 100, 262144 → 10000, so
/// that one core keeps the kernel's default weight.
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=MIN_SHARES => 1,
        MAX_SHARES.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// `cpu.weight` of a pod-level cgroup: the kubelet's straight line through 2 → 1 and 262144 → 10000.
pub fn cpu_weight_linear(shares: u64) -> u64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests;
