//! Profiles in JSON: Docker's (`names`, `includes`, `excludes`) and OCI's (runtime-spec, config-linux, "Seccomp"), which is
//! a subset of it.

use serde::Deserialize;

use super::policy::{Action, Comparison, Condition, Policy, Rule};
use crate::capability;

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("the seccomp profile is malformed")]
    Json(#[from] serde_json::Error),
    #[error("the seccomp profile has an unknown action `{0}`")]
    Action(String),
    #[error("the seccomp profile has an unknown comparison `{0}`")]
    Comparison(String),
    #[error("the seccomp profile asks about argument {0}; there are six, from 0")]
    Argument(u32),
    #[error("the seccomp profile asks for `{0}`, which is not supported")]
    Unsupported(&'static str),
    #[error("the seccomp profile has `{0}`, which is not a kernel version")]
    KernelVersion(String),
}

/// Unknown fields are ignored, as by every runtime: profiles carry comments.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    /// Docker's older form.
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    includes: Option<Conditions>,
    excludes: Option<Conditions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Who the profile is for.
struct Subject {
    capabilities: u64,
    kernel: (u32, u32),
}

const EPERM: u16 = 1;

pub(super) fn parse(json: &[u8], capabilities: u64) -> Result<Policy, ProfileError> {
    let profile: Profile = serde_json::from_slice(json)?;
    if !profile.listener_path.is_empty() {
        return Err(ProfileError::Unsupported("listenerPath"));
    }
    let release = rustix::system::uname();
    let kernel = version(&release.release().to_string_lossy()).unwrap_or((0, 0));
    let subject = Subject { capabilities, kernel };
    let mut policy = Policy::new(action(&profile.default_action, profile.default_errno_ret)?);
    for entry in profile.syscalls.unwrap_or_default() {
        if !subject.concerns(&entry)? {
            continue;
        }
        let action = action(&entry.action, entry.errno_ret)?;
        for conditions in alternatives(&entry.args.unwrap_or_default())? {
            let rule = Rule { conditions, action };
            entry.names.iter().chain(&entry.name).for_each(|name| policy.add(name, &rule));
        }
    }
    Ok(policy)
}

impl Subject {
    fn concerns(&self, entry: &Entry) -> Result<bool, ProfileError> {
        if let Some(includes) = &entry.includes {
            let caps = includes.caps.iter().flatten().all(|name| self.has(name));
            let arches = includes
                .arches
                .as_ref()
                .is_none_or(|arches| arches.is_empty() || arches.iter().any(|name| is_native(name)));
            let kernel = self.is_at_least(includes.min_kernel.as_deref())?.unwrap_or(true);
            if !(caps && arches && kernel) {
                return Ok(false);
            }
        }
        if let Some(excludes) = &entry.excludes {
            let caps = excludes.caps.iter().flatten().any(|name| self.has(name));
            let arches = excludes.arches.iter().flatten().any(|name| is_native(name));
            let kernel = self.is_at_least(excludes.min_kernel.as_deref())?.unwrap_or(false);
            if caps || arches || kernel {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has(&self, name: &str) -> bool {
        capability::number(name).is_some_and(|number| self.capabilities >> number & 1 == 1)
    }

    fn is_at_least(&self, wanted: Option<&str>) -> Result<Option<bool>, ProfileError> {
        let Some(text) = wanted.filter(|text| !text.is_empty()) else { return Ok(None) };
        let wanted = version(text).ok_or_else(|| ProfileError::KernelVersion(text.to_owned()))?;
        Ok(Some(self.kernel >= wanted))
    }
}

/// Go's names, as Docker uses them.
fn is_native(name: &str) -> bool {
    name == if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// `6.18` of `6.18.44-cloud`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, ProfileError> {
    let number = errno.unwrap_or(EPERM);
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::ALLOW,
        "SCMP_ACT_ERRNO" => Action::errno(number),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS,
        "SCMP_ACT_TRAP" => Action::TRAP,
        "SCMP_ACT_TRACE" => Action::trace(number),
        "SCMP_ACT_LOG" => Action::LOG,
        "SCMP_ACT_NOTIFY" => return Err(ProfileError::Unsupported("SCMP_ACT_NOTIFY")),
        unknown => return Err(ProfileError::Action(unknown.to_owned())),
    })
}

/// All conditions of an entry must hold; but conditions on the same argument are alternatives, each a rule of its own (as
/// runc reads them).
fn alternatives(arguments: &[Argument]) -> Result<Vec<Vec<Condition>>, ProfileError> {
    let conditions = arguments.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(index, condition)| conditions[..index].iter().any(|other| other.argument == condition.argument));
    Ok(if repeated { conditions.into_iter().map(|condition| vec![condition]).collect() } else { vec![conditions] })
}

fn condition(argument: &Argument) -> Result<Condition, ProfileError> {
    let index = u8::try_from(argument.index).ok().filter(|index| *index < 6);
    let index = index.ok_or(ProfileError::Argument(argument.index))?;
    let value = argument.value;
    let comparison = match argument.op.as_str() {
        "SCMP_CMP_NE" => Comparison::NotEqual(value),
        "SCMP_CMP_LT" => Comparison::Less(value),
        "SCMP_CMP_LE" => Comparison::LessOrEqual(value),
        "SCMP_CMP_EQ" => Comparison::Equal(value),
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual(value),
        "SCMP_CMP_GT" => Comparison::Greater(value),
        "SCMP_CMP_MASKED_EQ" => Comparison::MaskedEqual { mask: value, value: argument.value_two },
        unknown => return Err(ProfileError::Comparison(unknown.to_owned())),
    };
    Ok(Condition { argument: index, comparison })
}
