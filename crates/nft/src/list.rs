//! What exists: for idempotence, for repair after someone flushed the rules, and for cleaning up.

use crate::{
    Base, Chain, ChainType, Element, Family, Hook, ListError, Netfilter, Policy, Priority, Set, SetData, Table, Target,
    attribute::{Attributes, Message},
    batch::{predecessor, read_comment},
    value::split,
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GET*`.
const GET_TABLE: u16 = 10 << 8 | 1;
const GET_CHAIN: u16 = 10 << 8 | 4;
const GET_RULE: u16 = 10 << 8 | 7;
const GET_SET: u16 = 10 << 8 | 10;
const GET_ELEMENTS: u16 = 10 << 8 | 13;

/// A table that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    pub table: Table,
}

/// A chain that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    pub chain: Chain,
}

/// A rule that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// For [`crate::Batch::delete_rule`].
    pub handle: u64,
    pub comment: Option<String>,
}

/// A set or map that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    pub name: String,
}

impl Netfilter {
    /// The tables of a family.
    pub fn tables(&self, family: Family) -> Result<Vec<TableInfo>, ListError> {
        self.dump(
            "tables",
            GET_TABLE,
            family.number(),
            |_| {},
            |message| {
                let name = message.attributes().find(1)?.text();
                let comment = message.attributes().find(6).and_then(|data| read_comment(data.value));
                Some(TableInfo { table: Table { family: Family::from_number(message.family())?, name, comment } })
            },
        )
    }

    /// The chains of a family, of all tables.
    pub fn chains(&self, family: Family) -> Result<Vec<ChainInfo>, ListError> {
        self.dump(
            "chains",
            GET_CHAIN,
            family.number(),
            |_| {},
            |message| Some(ChainInfo { chain: read_chain(message)? }),
        )
    }

    /// The rules of a chain, in order. Empty if the chain does not exist.
    pub fn rules(&self, chain: &Chain) -> Result<Vec<RuleInfo>, ListError> {
        let rules = self.dump(
            "rules",
            GET_RULE,
            chain.family.number(),
            |out| {
                out.text(1, &chain.table);
                out.text(2, &chain.name);
            },
            |message| {
                let attributes = message.attributes();
                // Kernels before 4.20 do not filter.
                (attributes.find(1)?.text() == chain.table && attributes.find(2)?.text() == chain.name).then_some(())?;
                Some(RuleInfo {
                    handle: attributes.find(3)?.as_u64()?,
                    comment: attributes.find(7).and_then(|data| read_comment(data.value)),
                })
            },
        );
        match rules {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The named sets and maps of a table. Empty if the table does not exist.
    pub fn sets(&self, table: &Table) -> Result<Vec<SetInfo>, ListError> {
        let sets = self.dump(
            "sets",
            GET_SET,
            table.family.number(),
            |out| out.text(1, &table.name),
            |message| {
                const ANONYMOUS: u32 = 1;
                let attributes = message.attributes();
                let flags = attributes.find(3).and_then(|flags| flags.as_u32()).unwrap_or(0);
                (flags & ANONYMOUS == 0).then_some(())?;
                Some(SetInfo { name: attributes.find(2)?.text() })
            },
        );
        match sets {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The elements of a set whose kinds the caller knows. Elements of other kinds are left out.
    ///
    /// Fails with [`ListError::is_not_found`] if the set does not exist.
    pub fn elements(&self, set: &Set) -> Result<Vec<Element>, ListError> {
        let parts = self.dump(
            "elements",
            GET_ELEMENTS,
            set.family.number(),
            |out| {
                out.text(1, &set.table);
                out.text(2, &set.name);
            },
            |message| {
                let list = message.attributes().find(3)?;
                Some(list.nested().filter_map(|item| read_part(set, item.nested())).collect::<Vec<_>>())
            },
        )?;
        Ok(assemble(set, parts.into_iter().flatten().collect()))
    }
}

fn read_chain(message: &Message<'_>) -> Option<Chain> {
    let attributes = message.attributes();
    let base = attributes.find(4).and_then(|hook| {
        let inner = hook.nested();
        let policy = attributes.find(5).and_then(|policy| policy.as_u32());
        Some(Base {
            kind: ChainType::from_name(&attributes.find(7)?.text())?,
            hook: Hook::from_number(inner.find(1)?.as_u32()?)?,
            priority: Priority(inner.find(2)?.as_u32()?.cast_signed()),
            policy: if policy == Some(Policy::Drop.number()) { Policy::Drop } else { Policy::Accept },
        })
    });
    Some(Chain {
        family: Family::from_number(message.family())?,
        table: attributes.find(1)?.text(),
        name: attributes.find(3)?.text(),
        base,
    })
}

/// An element as the kernel keeps it: for a range of a single key, its end is another one.
struct Part {
    key: Vec<u8>,
    end: Option<Vec<u8>>,
    is_end: bool,
    target: Target,
}

fn read_part(set: &Set, attributes: Attributes<'_>) -> Option<Part> {
    let bytes = |kind: u16| Some(attributes.find(kind)?.nested().find(1)?.value.to_vec());
    let flags = attributes.find(3).and_then(|flags| flags.as_u32()).unwrap_or(0);
    let is_end = flags & 1 != 0;
    let target = match &set.data {
        SetData::Values(kinds) if !is_end => Target::Values(split(kinds, &bytes(2)?)?),
        SetData::Verdict if !is_end => Target::Verdict(read_verdict(attributes.find(2)?.nested())?),
        _ => Target::None,
    };
    Some(Part { key: bytes(1)?, end: bytes(10), is_end, target })
}

fn read_verdict(data: Attributes<'_>) -> Option<crate::Verdict> {
    use crate::Verdict;
    let verdict = data.find(2)?.nested();
    let chain = || Some(verdict.find(2)?.text());
    Some(match verdict.find(1)?.as_u32()?.cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => return None,
    })
}

fn assemble(set: &Set, mut parts: Vec<Part>) -> Vec<Element> {
    let split_range = set.intervals && set.key.len() == 1;
    if split_range {
        // At the same key the end of one range comes before the start of the next.
        parts.sort_by(|a, b| a.key.cmp(&b.key).then(b.is_end.cmp(&a.is_end)));
    }
    let mut elements = Vec::new();
    for (index, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_end) {
        let end = if split_range {
            match parts.get(index + 1).filter(|next| next.is_end) {
                Some(next) => predecessor(next.key.clone()),
                None => Some(vec![0xff; set.key_length()]),
            }
        } else {
            part.end.clone()
        };
        let end = end.filter(|end| *end != part.key).and_then(|end| split(&set.key, &end));
        let Some(key) = split(&set.key, &part.key) else { continue };
        elements.push(Element { key, end, target: part.target.clone(), timeout: None });
    }
    elements
}
