//! A pod's volumes on disk and in memory.
