//! Trace context: whose work a request is part of. It is read from the request, or begun here, and passed on to the
//! application with a span of its own for every try, as W3C Trace Context (`traceparent`, `tracestate`) and as B3.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use crate::head::Field;
use crate::head::field::{leave_out, values};
use crate::hex;

mod b3;
#[cfg(test)]
mod tests;
mod w3c;

/// How a context is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `traceparent` and `tracestate` (W3C Trace Context).
    W3c,
    /// One field, `b3`.
    B3,
    /// `X-B3-TraceId` and its like.
    B3Multi,
}

/// What is done about traces.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// The first that is there and good counts; all are written.
    pub formats: Vec<Format>,
    pub sampler: Sampler,
}

/// Which traces are recorded ("Sampling" in OpenTelemetry's trace SDK specification).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whoever began the trace has decided.
    pub parent_based: bool,
    /// The share of all others, from 0 to 1.
    pub ratio: f64,
}

impl Sampler {
    /// As `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` name them; `None`: there is no such sampler.
    pub fn named(name: &str, argument: Option<&str>) -> Option<Sampler> {
        let (parent_based, rest) = match name.strip_prefix("parentbased_") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let ratio = match rest {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => {
                argument.map_or(Some(1.0), |text| text.trim().parse().ok().filter(|r| (0.0..=1.0).contains(r)))?
            }
            _ => return None,
        };
        Some(Sampler { parent_based, ratio })
    }

    /// The same trace is decided alike everywhere: by its random part.
    fn takes(self, trace: [u8; 16]) -> bool {
        let mut low = [0; 8];
        low.copy_from_slice(&trace[8..]);
        let bound = (self.ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64;
        u64::from_be_bytes(low) >> 1 < bound
    }
}

/// A context as somebody else has sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// `None`: only a decision was sent (B3).
    pub ids: Option<([u8; 16], [u8; 8])>,
    /// `None`: left to us (B3).
    pub sampled: Option<bool>,
    /// B3's way to say: whatever it costs.
    pub debug: bool,
    /// The trace's identity is random (W3C Trace Context level 2).
    pub random: bool,
}

/// One exchange's place in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    pub trace: [u8; 16],
    /// The exchange's own span.
    pub span: [u8; 8],
    /// All zeros: the trace begins here.
    pub parent: [u8; 8],
    pub sampled: bool,
    pub debug: bool,
    pub random: bool,
    /// `tracestate`, joined.
    pub state: Vec<u8>,
    /// The present try's span.
    pub attempt: [u8; 8],
    /// Where it stands in the head as it goes on.
    at: [u16; 3],
}

/// Where identities come from. Keys from the system's random numbers make them unforeseeable and unlike every other
/// process's.
#[derive(Debug, Default)]
pub struct Identities {
    keys: RandomState,
    count: u64,
}

impl Identities {
    fn next(&mut self) -> [u8; 8] {
        loop {
            self.count += 1;
            let id = self.keys.hash_one(self.count).to_be_bytes();
            if id != [0; 8] {
                return id;
            }
        }
    }
}

impl Tracing {
    /// Finds out where a request belongs; fields that will be written anew are not kept.
    pub fn begin(&self, bytes: &[u8], fields: &mut [Field], identities: &mut Identities) -> Traced {
        let mut found: Option<(Context, Format)> = None;
        for format in &self.formats {
            let read = match format {
                Format::W3c => w3c::parent(bytes, fields),
                Format::B3 => b3::single(bytes, fields),
                Format::B3Multi => b3::multi(bytes, fields),
            };
            if let Some(context) = read
                && found.as_ref().is_none_or(|(before, _)| before.ids.is_none() && context.ids.is_some())
            {
                found = Some((context, *format));
            }
        }
        let by_w3c = matches!(found, Some((_, Format::W3c)));
        let context = found.map(|(context, _)| context).unwrap_or_default();
        let (trace, parent) = context.ids.unwrap_or_else(|| {
            let mut trace = [0; 16];
            trace[..8].copy_from_slice(&identities.next());
            trace[8..].copy_from_slice(&identities.next());
            (trace, [0; 8])
        });
        let decided = context.sampled.filter(|_| self.sampler.parent_based);
        let state = if self.formats.contains(&Format::W3c) { w3c::state(bytes, fields, by_w3c) } else { Vec::new() };
        leave_out(bytes, fields, |name| self.is_ours(name));
        Traced {
            trace,
            span: identities.next(),
            parent,
            sampled: context.debug || decided.unwrap_or_else(|| self.sampler.takes(trace)),
            debug: context.debug,
            random: context.random || parent == [0; 8],
            state,
            attempt: [0; 8],
            at: [0; 3],
        }
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        if !matches!(name.len(), 2 | 10 | 11 | 12 | 17) {
            return false;
        }
        self.formats.iter().any(|format| {
            let names: &[&[u8]] = match format {
                Format::W3c => &[b"traceparent", b"tracestate"],
                Format::B3 => &[b"b3"],
                Format::B3Multi => &b3::MULTI,
            };
            names.iter().any(|other| name.eq_ignore_ascii_case(other))
        })
    }

    /// Puts the context's lines at the end of a head, before its empty line.
    pub fn write(&self, traced: &mut Traced, out: &mut Vec<u8>) {
        out.truncate(out.len().saturating_sub(2));
        for (index, format) in self.formats.iter().take(traced.at.len()).enumerate() {
            let at = match format {
                Format::W3c => w3c::write(traced, out),
                Format::B3 => b3::write_single(traced, out),
                Format::B3Multi => b3::write_multi(traced, out),
            };
            // Heads are shorter than 64 KiB; what is not is refused before it is sent.
            traced.at[index] = u16::try_from(at).unwrap_or(0);
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Traced {
    /// A new try has a span of its own: `head` says so from here on.
    pub fn begin_attempt(&mut self, identities: &mut Identities, head: &mut [u8]) {
        self.attempt = identities.next();
        let text = hex::sixteen(self.attempt);
        for at in self.at.into_iter().filter(|at| *at != 0) {
            if let Some(place) = head.get_mut(usize::from(at)..usize::from(at) + 16) {
                place.copy_from_slice(&text);
            }
        }
    }

    /// The W3C trace flags.
    pub fn flags(&self) -> u8 {
        u8::from(self.sampled) | u8::from(self.random) << 1
    }
}

/// Reads exactly `N` bytes of digits; upper case only where `any_case`.
fn read_hex<const N: usize>(text: &[u8], any_case: bool) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' if any_case => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The value of the only field of one name; two are none.
fn only<'a>(bytes: &'a [u8], fields: &[Field], name: &[u8]) -> Option<&'a [u8]> {
    let mut all = values(bytes, fields, name);
    all.next().filter(|_| all.next().is_none())
}
