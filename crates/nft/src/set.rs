//! Sets and maps: keys, optionally leading to values or verdicts, that rules look up and programs change at run time.

use std::time::Duration;

use crate::{
    Family, Kind, Table, Value, Verdict,
    value::{concatenate, concatenated_length},
};

/// A named set (no data), map (values) or verdict map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub family: Family,
    pub table: String,
    pub name: String,
    /// What a key consists of; several kinds make a concatenation.
    pub key: Vec<Kind>,
    pub data: SetData,
    /// Elements may be ranges ([`Element::range`], [`Element::network`]).
    pub intervals: bool,
    /// Elements may expire ([`Element::timeout`]).
    pub timeouts: bool,
}

/// What the elements of a set lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetData {
    /// Nothing: membership is the answer.
    None,
    Values(Vec<Kind>),
    Verdict,
}

/// One element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<Value>,
    /// The last key of a range, inclusive.
    pub end: Option<Vec<Value>>,
    pub target: Target,
    /// Removed by the kernel after this time; needs [`Set::timeouts`].
    pub timeout: Option<Duration>,
}

/// What an element leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    None,
    Values(Vec<Value>),
    Verdict(Verdict),
}

impl Set {
    /// A set of keys of one or several kinds.
    pub fn new(table: &Table, name: impl Into<String>, key: impl Into<Vec<Kind>>) -> Self {
        Self {
            family: table.family,
            table: table.name.clone(),
            name: name.into(),
            key: key.into(),
            data: SetData::None,
            intervals: false,
            timeouts: false,
        }
    }

    /// A map from keys to values.
    pub fn map(
        table: &Table,
        name: impl Into<String>,
        key: impl Into<Vec<Kind>>,
        values: impl Into<Vec<Kind>>,
    ) -> Self {
        Self { data: SetData::Values(values.into()), ..Self::new(table, name, key) }
    }

    /// A map from keys to verdicts.
    pub fn verdict_map(table: &Table, name: impl Into<String>, key: impl Into<Vec<Kind>>) -> Self {
        Self { data: SetData::Verdict, ..Self::new(table, name, key) }
    }

    /// Allows ranges.
    #[must_use]
    pub fn with_intervals(self) -> Self {
        Self { intervals: true, ..self }
    }

    /// Allows elements that expire.
    #[must_use]
    pub fn with_timeouts(self) -> Self {
        Self { timeouts: true, ..self }
    }

    /// `NFT_SET_*`.
    pub(crate) fn flags(&self) -> u32 {
        let mut flags = 0;
        if self.intervals {
            flags |= 0x4;
            if self.key.len() > 1 {
                flags |= 0x80;
            }
        }
        if self.data != SetData::None {
            flags |= 0x8;
        }
        if self.timeouts {
            flags |= 0x10;
        }
        flags
    }

    pub(crate) fn key_length(&self) -> usize {
        concatenated_length(&self.key)
    }

    /// Whether an element fits, and why not.
    pub(crate) fn defect(&self, element: &Element) -> Option<String> {
        let fits = |values: &[Value], kinds: &[Kind]| values.iter().map(Value::kind).eq(kinds.iter().copied());
        if !fits(&element.key, &self.key) || element.end.as_ref().is_some_and(|end| !fits(end, &self.key)) {
            return Some(format!("element {:?} has not the kinds {:?} of {self}", element.key, self.key));
        }
        let target_fits = match (&element.target, &self.data) {
            (Target::None, SetData::None) | (Target::Verdict(_), SetData::Verdict) => true,
            (Target::Values(values), SetData::Values(kinds)) => fits(values, kinds),
            _ => false,
        };
        if !target_fits {
            return Some(format!("target {:?} does not fit {self}", element.target));
        }
        if element.end.is_some() && !self.intervals {
            return Some(format!("{self} takes no ranges"));
        }
        if element.timeout.is_some() && !self.timeouts {
            return Some(format!("elements of {self} do not expire"));
        }
        if element.end.as_ref().is_some_and(|end| concatenate(end) < concatenate(&element.key)) {
            return Some(format!("range {:?} to {:?} ends before it begins", element.key, element.end));
        }
        element.key.iter().chain(element.end.iter().flatten()).find_map(Value::defect)
    }
}

impl std::fmt::Display for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.data == SetData::None { "set" } else { "map" };
        write!(f, "{what} {} {} {}", self.family, self.table, self.name)
    }
}

impl Element {
    pub fn new(key: impl Into<Vec<Value>>) -> Self {
        Self { key: key.into(), end: None, target: Target::None, timeout: None }
    }

    /// All keys from `first` to `last`, both included.
    pub fn range(first: impl Into<Value>, last: impl Into<Value>) -> Self {
        Self { end: Some(vec![last.into()]), ..Self::new([first.into()]) }
    }

    /// All addresses that share the first `prefix` bits with `address`. A prefix longer than the address counts as its
    /// full length.
    pub fn network(address: impl Into<Value>, prefix: u8) -> Self {
        let address = address.into();
        let kind = address.kind();
        let mut first = address.encode();
        let mut last = first.clone();
        for (index, mask) in prefix_mask(first.len(), prefix).into_iter().enumerate() {
            first[index] &= mask;
            last[index] |= !mask;
        }
        let first = kind.decode(&first).unwrap_or_else(|| address.clone());
        let last = kind.decode(&last).unwrap_or(address);
        if first == last { Self::new([first]) } else { Self::range(first, last) }
    }

    /// The element of a map.
    #[must_use]
    pub fn to(self, values: impl Into<Vec<Value>>) -> Self {
        Self { target: Target::Values(values.into()), ..self }
    }

    /// The element of a verdict map.
    #[must_use]
    pub fn to_verdict(self, verdict: Verdict) -> Self {
        Self { target: Target::Verdict(verdict), ..self }
    }

    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

/// A mask of `length` bytes whose first `prefix` bits are set.
pub(crate) fn prefix_mask(length: usize, prefix: u8) -> Vec<u8> {
    (0..length)
        .map(|index| match usize::from(prefix).saturating_sub(index * 8) {
            0 => 0,
            bits if bits >= 8 => 0xff,
            bits => !(0xffu8 >> bits),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_masks_and_ranges() {
        assert_eq!(prefix_mask(4, 0), [0, 0, 0, 0]);
        assert_eq!(prefix_mask(4, 12), [255, 240, 0, 0]);
        assert_eq!(prefix_mask(4, 32), [255, 255, 255, 255]);
        let network = Element::network([10, 1, 2, 3], 12);
        assert_eq!(network.key, [Value::from([10, 0, 0, 0])]);
        assert_eq!(network.end, Some(vec![Value::from([10, 15, 255, 255])]));
        assert_eq!(Element::network([10, 1, 2, 3], 32), Element::new([[10, 1, 2, 3].into()]));
    }

    #[test]
    fn elements_that_do_not_fit_are_named() {
        let table = Table::new(Family::Ip, "t");
        let ports = Set::new(&table, "ports", [Kind::Port]);
        assert_eq!(ports.defect(&Element::new([Value::Port(1)])), None);
        assert!(ports.defect(&Element::new([[1, 2, 3, 4].into()])).is_some());
        assert!(ports.defect(&Element::range(Value::Port(1), Value::Port(2))).is_some());
        assert!(ports.defect(&Element::new([Value::Port(1)]).to([Value::Port(2)])).is_some());
        let ranges = ports.with_intervals();
        assert_eq!(ranges.defect(&Element::range(Value::Port(1), Value::Port(300))), None);
        assert!(ranges.defect(&Element::range(Value::Port(300), Value::Port(1))).is_some());
    }
}
