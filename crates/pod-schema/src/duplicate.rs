//! Fields that a JSON text has twice: a parsed value has lost them.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::check::MOST;

pub(crate) fn duplicates(text: &[u8]) -> Vec<String> {
    let mut walk = Walk { path: String::new(), found: Vec::new() };
    // What is no JSON is refused by whoever parses it; until there we have seen what there is.
    let _: Result<(), serde_json::Error> = walk.deserialize(&mut serde_json::Deserializer::from_slice(text));
    walk.found
}

#[derive(Debug)]
struct Walk {
    path: String,
    found: Vec<String>,
}

impl Walk {
    fn enter_field(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }

    fn found(&mut self) {
        if self.found.len() < MOST && !self.found.contains(&self.path) {
            self.found.push(self.path.clone());
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Walk {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        let length = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            self.enter_field(&key);
            if !seen.insert(key) {
                self.found();
            }
            map.next_value_seed(&mut *self)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let length = self.path.len();
        for index in 0.. {
            write!(self.path, "[{index}]").map_err(Error::custom)?;
            let more = list.next_element_seed(&mut *self)?;
            self.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
