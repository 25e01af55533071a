//! Fields every record gets, from the environment and downward API files: no API server is asked.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use record::json;

use crate::config::Value;

#[derive(Debug, thiserror::Error)]
pub enum EnrichError {
    #[error("environment variable `{0}` is not set")]
    Environment(String),
    #[error("failed to read {0}")]
    File(PathBuf, #[source] io::Error),
}

/// The values read now, as JSON members and as plain names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    pub json: Vec<u8>,
    pub labels: Vec<(String, String)>,
}

/// Reads every value; the later maps win.
pub fn read(maps: &[&BTreeMap<String, Value>]) -> Result<Fields, EnrichError> {
    let mut all: BTreeMap<&String, &Value> = BTreeMap::new();
    for map in maps {
        all.extend(map.iter());
    }
    let mut fields = Fields::default();
    for (name, value) in all {
        let text = |path: &str| fs::read_to_string(path).map_err(|error| EnrichError::File(PathBuf::from(path), error));
        match value {
            Value::Text(value) => fields.add(name, &value.0),
            Value::Env(variable) => {
                let value = std::env::var(&variable.0).map_err(|_| EnrichError::Environment(variable.0.clone()))?;
                fields.add(name, &value);
            }
            Value::File(path) => fields.add(name, text(&path.0)?.trim_end_matches('\n')),
            Value::Labels(path) => fields.add_object(name, &pairs(&text(&path.0)?)),
        }
    }
    Ok(fields)
}

impl Fields {
    pub fn add(&mut self, name: &str, value: &str) {
        self.key(name);
        json::string(&mut self.json, value.as_bytes());
        self.labels.push((name.to_owned(), value.to_owned()));
    }

    fn add_object(&mut self, name: &str, pairs: &[(String, String)]) {
        self.key(name);
        self.json.push(b'{');
        for (index, (key, value)) in pairs.iter().enumerate() {
            if index > 0 {
                self.json.push(b',');
            }
            json::string(&mut self.json, key.as_bytes());
            self.json.push(b':');
            json::string(&mut self.json, value.as_bytes());
            self.labels.push((format!("{name}.{key}"), value.clone()));
        }
        self.json.push(b'}');
    }

    fn key(&mut self, name: &str) {
        if !self.json.is_empty() {
            self.json.push(b',');
        }
        json::string(&mut self.json, name.as_bytes());
        self.json.push(b':');
    }
}

/// The downward API's `key="value"` lines, values quoted as Go does.
fn pairs(text: &str) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let mut plain = Vec::new();
        json::unescape(&mut plain, value.strip_prefix('"')?.strip_suffix('"')?.as_bytes());
        Some((key.to_owned(), String::from_utf8_lossy(&plain).into_owned()))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Text;

    #[test]
    fn every_origin_of_a_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("labels");
        fs::write(&path, "app=\"web\"\nnote=\"two\\nlines\"\n").unwrap();
        let text = |text: &str| Text(text.to_owned());
        let maps = BTreeMap::from([
            ("a".to_owned(), Value::Text(text("x\"y"))),
            ("labels".to_owned(), Value::Labels(text(path.to_str().unwrap()))),
            ("home".to_owned(), Value::Env(text("PATH"))),
        ]);
        let own = BTreeMap::from([("home".to_owned(), Value::Text(text("h")))]);
        let fields = read(&[&maps, &own]).unwrap();
        let shown = String::from_utf8(fields.json).unwrap();
        assert_eq!(shown, r#""a":"x\"y","home":"h","labels":{"app":"web","note":"two\nlines"}"#);
        assert_eq!(fields.labels[2], ("labels.app".to_owned(), "web".to_owned()));
        let missing = BTreeMap::from([("m".to_owned(), Value::Env(text("NOT_SET_ANYWHERE")))]);
        assert!(read(&[&missing]).is_err());
    }
}
