//! A batch: changes in order, encoded as they are added, applied all or not at all.

use crate::{
    Chain, Element, Rule, Set, SetData, Table, Target,
    attribute::Writer,
    expression::{write_statements, write_verdict},
    value::{concatenate, concatenated_length},
};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const APPEND: u16 = 0x800;

/// `enum nf_tables_msg_types`.
mod kind {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const DELETE_CHAIN: u16 = 5;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const DELETE_RULE: u16 = 8;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const DELETE_SET: u16 = 11;
    pub(super) const NEW_ELEMENTS: u16 = 12;
    pub(super) const DELETE_ELEMENTS: u16 = 14;
}

/// Elements per message: their list is one attribute, which holds at most 64 KiB, and an element takes up to ~200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 250;
/// Of a comment, as in the nft program.
const COMMENT_LENGTH: usize = 128;

/// Changes to commit together.
#[derive(Debug, Default)]
pub struct Batch {
    writer: Writer,
    /// What each change is, in words, and where its message begins.
    changes: Vec<(String, usize)>,
    defect: Option<String>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Makes the table if it does not exist.
    pub fn add_table(&mut self, table: &Table) {
        let comment = self.comment(table.comment.as_deref());
        self.change(format!("add {table}"), kind::NEW_TABLE, CREATE, table.family, |out| {
            out.text(1, &table.name);
            out.u32(2, 0);
            if let Some(comment) = &comment {
                out.raw(6, comment);
            }
        });
    }

    /// Deletes the table and everything in it. It must exist: to delete it whether or not it does, add it before.
    pub fn delete_table(&mut self, table: &Table) {
        self.change(format!("delete {table}"), kind::DELETE_TABLE, 0, table.family, |out| out.text(1, &table.name));
    }

    /// Makes the chain if it does not exist.
    pub fn add_chain(&mut self, chain: &Chain) {
        self.change(format!("add {chain}"), kind::NEW_CHAIN, CREATE, chain.family, |out| {
            out.text(1, &chain.table);
            out.text(3, &chain.name);
            if let Some(base) = &chain.base {
                out.nest(4, |hook| {
                    hook.u32(1, base.hook.number());
                    hook.raw(2, &base.priority.0.to_be_bytes());
                });
                out.u32(5, base.policy.number());
                out.text(7, base.kind.name());
            }
        });
    }

    /// Deletes the chain, which no rule may jump to any more.
    pub fn delete_chain(&mut self, chain: &Chain) {
        self.change(format!("delete {chain}"), kind::DELETE_CHAIN, 0, chain.family, |out| {
            out.text(1, &chain.table);
            out.text(3, &chain.name);
        });
    }

    /// Deletes all rules of the chain.
    pub fn flush_chain(&mut self, chain: &Chain) {
        self.change(format!("flush {chain}"), kind::DELETE_RULE, 0, chain.family, |out| {
            out.text(1, &chain.table);
            out.text(2, &chain.name);
        });
    }

    /// Puts the rule at the end of its chain.
    pub fn add_rule(&mut self, rule: &Rule) {
        self.rule(rule, CREATE | APPEND);
    }

    /// Puts the rule at the start of its chain.
    pub fn insert_rule(&mut self, rule: &Rule) {
        self.rule(rule, CREATE);
    }

    /// Deletes the rule with this handle (see [`crate::RuleInfo`]).
    pub fn delete_rule(&mut self, chain: &Chain, handle: u64) {
        self.change(format!("delete rule {handle} of {chain}"), kind::DELETE_RULE, 0, chain.family, |out| {
            out.text(1, &chain.table);
            out.text(2, &chain.name);
            out.u64(3, handle);
        });
    }

    /// Makes the set or map if it does not exist.
    pub fn add_set(&mut self, set: &Set) {
        if set.key.is_empty() || set.key_length() > 64 {
            self.defective(format!("the key of {set} must have 1 to 64 bytes"));
        }
        let identifier = self.changes.len() as u32 + 1;
        self.change(format!("add {set}"), kind::NEW_SET, CREATE, set.family, |out| {
            out.text(1, &set.table);
            out.text(2, &set.name);
            out.u32(3, set.flags());
            out.u32(4, type_number(&set.key));
            out.u32(5, set.key_length() as u32);
            match &set.data {
                SetData::None => {}
                SetData::Values(kinds) => {
                    out.u32(6, type_number(kinds));
                    out.u32(7, concatenated_length(kinds) as u32);
                }
                SetData::Verdict => {
                    out.u32(6, 0xffff_ff00); // NFT_DATA_VERDICT
                    out.u32(7, 16);
                }
            }
            if set.intervals && set.key.len() > 1 {
                out.nest(9, |description| {
                    description.nest(2, |fields| {
                        for kind in &set.key {
                            fields.nest(1, |field| field.u32(1, kind.length() as u32));
                        }
                    });
                });
            }
            out.u32(10, identifier);
            out.raw(13, &set_byte_orders(set));
        });
    }

    /// Deletes the set, which no rule may use any more.
    pub fn delete_set(&mut self, set: &Set) {
        self.change(format!("delete {set}"), kind::DELETE_SET, 0, set.family, |out| {
            out.text(1, &set.table);
            out.text(2, &set.name);
        });
    }

    /// Deletes all elements of the set.
    pub fn flush_set(&mut self, set: &Set) {
        self.change(format!("flush {set}"), kind::DELETE_ELEMENTS, 0, set.family, |out| {
            out.text(1, &set.table);
            out.text(2, &set.name);
        });
    }

    /// Adds elements. One that is there already with the same target is fine, with another target it is refused.
    pub fn add_elements(&mut self, set: &Set, elements: &[Element]) {
        self.elements(set, elements, kind::NEW_ELEMENTS, CREATE, "add elements to");
    }

    /// Adds elements none of which may be there already.
    pub fn create_elements(&mut self, set: &Set, elements: &[Element]) {
        self.elements(set, elements, kind::NEW_ELEMENTS, CREATE | EXCLUSIVE, "create elements in");
    }

    /// Deletes elements, all of which must be there.
    pub fn delete_elements(&mut self, set: &Set, elements: &[Element]) {
        self.elements(set, elements, kind::DELETE_ELEMENTS, 0, "delete elements from");
    }

    // --- for the socket ---

    pub(crate) fn defect(&self) -> Option<&str> {
        self.defect.as_deref()
    }

    /// What the change with this number is, in words. Changes are numbered from 1.
    pub(crate) fn change_at(&self, number: u32) -> Option<&str> {
        Some(&self.changes.get((number as usize).checked_sub(1)?)?.0)
    }

    /// The number of the last change, which alone asks for an answer.
    pub(crate) fn last_number(&self) -> u32 {
        self.changes.len() as u32
    }

    /// The datagram: begin, changes, end. Sequence numbers are the changes' numbers above `base`, the begin's is `base`.
    pub(crate) fn datagram(&self, base: u32) -> Vec<u8> {
        const FLAGS: usize = 6;
        const SEQUENCE: usize = 8;
        let mut datagram = Vec::with_capacity(self.writer.len() + 40);
        let mut frame = Writer::default();
        frame.message(BATCH_BEGIN, REQUEST, base, 0, SUBSYSTEM, |_| {});
        datagram.extend_from_slice(frame.bytes());
        let first = datagram.len();
        datagram.extend_from_slice(self.writer.bytes());
        for (number, (_, start)) in (1u32..).zip(&self.changes) {
            let at = first + start + SEQUENCE;
            datagram[at..at + 4].copy_from_slice(&base.wrapping_add(number).to_ne_bytes());
        }
        if let Some((_, last)) = self.changes.last() {
            let at = first + last + FLAGS;
            let value = u16::from_ne_bytes([datagram[at], datagram[at + 1]]) | ACKNOWLEDGE;
            datagram[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        let mut frame = Writer::default();
        frame.message(BATCH_END, REQUEST, base.wrapping_add(self.last_number() + 1), 0, SUBSYSTEM, |_| {});
        datagram.extend_from_slice(frame.bytes());
        datagram
    }

    // --- encoding ---

    fn change(
        &mut self,
        description: String,
        kind: u16,
        flags: u16,
        family: crate::Family,
        body: impl FnOnce(&mut Writer),
    ) {
        let start = self.writer.len();
        self.changes.push((description, start));
        self.writer.message(SUBSYSTEM << 8 | kind, REQUEST | flags, 0, family.number(), 0, body);
    }

    fn defective(&mut self, why: String) {
        self.defect.get_or_insert(why);
    }

    fn rule(&mut self, rule: &Rule, flags: u16) {
        if let Some(why) = rule.defect() {
            self.defective(why);
        }
        let comment = self.comment(rule.comment.as_deref());
        let description = format!("add a rule to chain {} {} {}", rule.family, rule.table, rule.chain);
        self.change(description, kind::NEW_RULE, flags, rule.family, |out| {
            out.text(1, &rule.table);
            out.text(2, &rule.chain);
            out.nest(4, |expressions| write_statements(expressions, rule));
            if let Some(comment) = &comment {
                out.raw(7, comment);
            }
        });
    }

    fn elements(&mut self, set: &Set, elements: &[Element], kind: u16, flags: u16, what: &str) {
        if let Some(why) = elements.iter().find_map(|element| set.defect(element)) {
            self.defective(why);
            return;
        }
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.change(format!("{what} {set}"), kind, flags, set.family, |out| {
                out.text(1, &set.table);
                out.text(2, &set.name);
                out.nest(3, |list| part.iter().for_each(|element| write_element(list, set, element)));
            });
        }
    }

    /// A comment as nft's user data: kind 0, length, text with its final zero.
    fn comment(&mut self, comment: Option<&str>) -> Option<Vec<u8>> {
        let comment = comment?;
        if comment.len() >= COMMENT_LENGTH {
            self.defective(format!("comment `{comment}` has more than {} bytes", COMMENT_LENGTH - 1));
            return None;
        }
        let mut bytes = vec![0, comment.len() as u8 + 1];
        bytes.extend_from_slice(comment.as_bytes());
        bytes.push(0);
        Some(bytes)
    }
}

/// The comment in an object's user data.
pub(crate) fn read_comment(mut data: &[u8]) -> Option<String> {
    loop {
        let (kind, length) = (*data.first()?, usize::from(*data.get(1)?));
        let value = data.get(2..2 + length)?;
        if kind == 0 {
            return Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned());
        }
        data = &data[2 + length..];
    }
}

/// nft's number of a data type; a concatenation packs six bits per part, the first uppermost.
fn type_number(kinds: &[crate::Kind]) -> u32 {
    kinds.iter().fold(0, |number, kind| number << 6 | kind.number())
}

/// The byte orders of key and data, by which the nft program shows the elements (`NFTNL_UDATA_SET_*`).
fn set_byte_orders(set: &Set) -> Vec<u8> {
    let order = |kinds: &[crate::Kind]| match kinds {
        [single] if !single.is_big_endian() => 1u32,
        [_] => 2,
        _ => 0,
    };
    let mut bytes = vec![0, 4];
    bytes.extend_from_slice(&order(&set.key).to_ne_bytes());
    if let SetData::Values(kinds) = &set.data {
        bytes.extend_from_slice(&[1, 4]);
        bytes.extend_from_slice(&order(kinds).to_ne_bytes());
    }
    bytes
}

/// One `NFTA_LIST_ELEM`, or two for a range of a single key: the kernel's interval tree wants the first key and, as an
/// element of its own flagged as an end, the first one behind the range. Concatenated ranges carry both ends.
fn write_element(list: &mut Writer, set: &Set, element: &Element) {
    const LIST_ELEMENT: u16 = 1;
    let behind = match &element.end {
        None if set.intervals && set.key.len() == 1 => successor(concatenate(&element.key)),
        Some(end) if set.key.len() == 1 => successor(concatenate(end)),
        _ => None,
    };
    list.nest(LIST_ELEMENT, |out| {
        out.nest(1, |key| key.raw(1, &concatenate(&element.key)));
        match &element.target {
            Target::None => {}
            Target::Values(values) => out.nest(2, |data| data.raw(1, &concatenate(values))),
            Target::Verdict(verdict) => out.nest(2, |data| write_verdict(data, verdict)),
        }
        if let Some(timeout) = element.timeout {
            out.u64(4, timeout.as_millis() as u64);
        }
        if set.key.len() > 1 && set.intervals {
            let end = element.end.as_ref().unwrap_or(&element.key);
            out.nest(10, |key| key.raw(1, &concatenate(end)));
        }
    });
    if let Some(behind) = behind {
        list.nest(LIST_ELEMENT, |out| {
            out.nest(1, |key| key.raw(1, &behind));
            out.u32(3, 1); // NFT_SET_ELEM_INTERVAL_END
        });
    }
}

/// The next key, or none behind the last.
fn successor(mut key: Vec<u8>) -> Option<Vec<u8>> {
    for byte in key.iter_mut().rev() {
        let (next, overflow) = byte.overflowing_add(1);
        *byte = next;
        if !overflow {
            return Some(key);
        }
    }
    None
}

/// The key before, for turning an exclusive end into an inclusive one.
pub(crate) fn predecessor(mut key: Vec<u8>) -> Option<Vec<u8>> {
    for byte in key.iter_mut().rev() {
        let (previous, underflow) = byte.overflowing_sub(1);
        *byte = previous;
        if !underflow {
            return Some(key);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Field, Kind, Test, Value};

    #[test]
    fn successors_carry_and_end() {
        assert_eq!(successor(vec![1, 0xff]), Some(vec![2, 0]));
        assert_eq!(successor(vec![0xff, 0xff]), None);
        assert_eq!(predecessor(vec![2, 0]), Some(vec![1, 0xff]));
        assert_eq!(predecessor(vec![0, 0]), None);
    }

    #[test]
    fn comments_read_back_and_long_ones_are_refused() {
        let mut batch = Batch::new();
        let bytes = batch.comment(Some("hello")).unwrap();
        assert_eq!(read_comment(&bytes).as_deref(), Some("hello"));
        assert_eq!(read_comment(&[7, 1, 0, 0, 2, b'x', 0]).as_deref(), Some("x"), "other user data is skipped");
        assert_eq!(batch.comment(Some(&"x".repeat(128))), None);
        assert!(batch.defect().is_some());
    }

    #[test]
    fn a_test_of_another_kind_is_refused_before_the_kernel_sees_it() {
        let table = Table::new(Family::Ip, "t");
        let chain = Chain::new(&table, "c");
        let mut batch = Batch::new();
        batch.add_rule(&Rule::new(&chain).test(Field::Ipv4Source, Test::is(Value::Port(1))));
        assert!(batch.defect().unwrap().contains("Ipv4Source"));
    }

    #[test]
    fn concatenated_type_numbers_pack_six_bits() {
        assert_eq!(type_number(&[Kind::Ipv4Address, Kind::Port]), 7 << 6 | 13);
    }
}
