//! Names of services, as pods ask for them: an authoritative answer for the cluster's domain, the host's own resolvers for
//! everything else.
//!
//! Source: the Kubernetes DNS specification 1.1.0 (kubernetes/dns, `docs/specification.md`), with CoreDNS' choice where it
//! leaves one (a TTL of 5 s, `pod` names for any address).

mod answer;
mod server;
mod upstream;
mod zone;

pub use server::{BindError, Resolver};
pub use zone::{Endpoint, Port, Service, Zone};
