//! Which of an index's images fits this machine.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Operating system and CPU as Go and OCI name them (image-spec, `platform`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// `v7` of `arm/v7`; `None` where the architecture alone says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this process runs on.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: host_variant() }
    }

    /// How well an image for `offered` runs here: higher is better, `None` is not at all. A machine runs the images of
    /// lower variants of its architecture too.
    pub(crate) fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let offered = level(&offered.architecture, offered.variant.as_deref())?;
        let own = level(&self.architecture, self.variant.as_deref())?;
        (offered <= own).then_some(offered)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// A variant as a number. No variant is the architecture's first: amd64 v1, arm64 v8; for arm it is v7, what
/// containerd assumes.
fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
    match (architecture, variant) {
        (_, Some(variant)) if !variant.is_empty() => variant.strip_prefix('v')?.parse().ok(),
        ("arm64", _) => Some(8),
        ("arm", _) => Some(7),
        _ => Some(1),
    }
}

#[cfg(target_arch = "x86_64")]
fn host_variant() -> Option<String> {
    use std::arch::is_x86_feature_detected as has;
    // The x86-64 psABI's levels, by the features that came last to each.
    let v2 = has!("sse4.2") && has!("popcnt") && has!("ssse3");
    let v3 = v2 && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("lzcnt") && has!("movbe");
    match (v3, v2) {
        (true, _) => Some("v3".into()),
        (_, true) => Some("v2".into()),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform { os: parts.next().unwrap(), architecture: parts.next().unwrap(), variant: parts.next() }
    }

    #[test]
    fn lower_variants_run_and_higher_ones_do_not() {
        for (host, offered, runs) in [
            ("linux/amd64/v3", "linux/amd64", true),
            ("linux/amd64/v2", "linux/amd64/v3", false),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64", "linux/arm64/v9", false),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/amd64", "unknown/unknown", false),
        ] {
            assert_eq!(platform(host).rank(&platform(offered)).is_some(), runs, "{host} {offered}");
        }
    }
}
