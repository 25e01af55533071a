//! Typed nftables over netlink: one atomic transaction.
