//! A pod's network: namespace, link, address, egress, host ports.
