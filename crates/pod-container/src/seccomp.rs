//! Compiles seccomp profiles to the classic BPF programs a [`crate::spec::ProcessSpec`] carries.
//!
//! [`runtime_default`] is the profile of containerd and Docker; [`from_profile`] reads a profile in their JSON, or in the
//! OCI runtime's `linux.seccomp`. Both become a `Policy` and then one program: an architecture check, a binary search
//! over the system call's number, and at its leaves the checks of arguments. Where one call has several rules, those with
//! conditions are tried first, in order. Programs of a foreign architecture (32-bit ones on a 64-bit kernel) are killed:
//! their calls have other numbers, and no profile here is written for them.

mod bpf;
mod policy;
mod profile;
mod standard;
mod syscall;
#[cfg(test)]
mod tests;

pub use profile::ProfileError;

/// The `RuntimeDefault` profile for a process with these capabilities (a mask, see [`crate::capability`]).
pub fn runtime_default(capabilities: u64) -> Vec<Vec<u8>> {
    vec![bpf::compile(&standard::policy(capabilities))]
}

/// A `Localhost` profile, for a process with these capabilities.
///
/// # Errors
/// When the text is not such a profile, or asks for what cannot be done here (notification of a listener).
pub fn from_profile(json: &[u8], capabilities: u64) -> Result<Vec<Vec<u8>>, ProfileError> {
    Ok(vec![bpf::compile(&profile::parse(json, capabilities)?)])
}
