//! Services of a node: their addresses lead to pods, their names to addresses.
//!
//! Two mechanisms that know nothing of Kubernetes objects: [`Balancer`] keeps an nftables table in which every
//! [`Frontend`] is translated to one of its backends, and [`dns`] answers the names of a [`dns::Zone`].

#![forbid(unsafe_code)]

mod balance;
pub mod dns;

pub use balance::{BalanceError, Balancer, Frontend, Protocol};
