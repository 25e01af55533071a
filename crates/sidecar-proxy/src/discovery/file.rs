//! A list of endpoints in a file, YAML or JSON: texts, or maps like `members`. It is read again when it has changed, also by
//! Kubernetes' swap of the link `..data`; a list that is wrong changes nothing.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use daemon::config::tree::Data;
use daemon::config::{Decoder, Document as _, tree};

use super::watch::{Said, Source};
use super::{Instance, address};
use crate::config::Member;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) seen: Option<Vec<u8>>,
}

impl Source for File {
    fn ask(&mut self) -> io::Result<Said> {
        let bytes = std::fs::read(&self.path)?;
        if self.seen.as_ref() == Some(&bytes) {
            return Ok(Said { list: None, wait: LOOK });
        }
        let text = std::str::from_utf8(&bytes).map_err(io::Error::other)?;
        let list = parse(text).map_err(io::Error::other)?;
        self.seen = Some(bytes);
        Ok(Said { list: Some(list), wait: LOOK })
    }
}

fn parse(text: &str) -> Result<Vec<Instance>, String> {
    if text.trim().is_empty() {
        return Err("the file is empty; no endpoints are `[]`".to_owned());
    }
    let documents = tree::parse(text).map_err(|error| format!("{}: {}", place(error.mark), error.message))?;
    let [document] = documents.as_slice() else { return Err("must hold exactly one list".to_owned()) };
    let Data::List(entries) = &document.data else { return Err("must be a list of endpoints".to_owned()) };
    let mut list = Vec::new();
    for entry in entries {
        let member = match &entry.data {
            Data::Scalar(text, _) => Member { address: text.clone(), weight: 1, zone: None, labels: [].into() },
            _ => {
                let mut decoder = Decoder::default();
                let member = Member::decode(entry, &mut decoder);
                let problems = decoder.finish();
                match (member, problems.first()) {
                    (Some(member), None) => member,
                    (_, problem) => {
                        return Err(problem.map_or_else(String::new, |one| format!("{}: {one}", place(one.mark))));
                    }
                }
            }
        };
        let address = address(&member.address)
            .ok_or_else(|| format!("{}: must be `ADDRESS:PORT` or `unix:/PATH`", place(entry.mark)))?;
        list.push(Instance {
            weight: member.weight.min(1000),
            zone: member.zone,
            labels: member.labels,
            ..Instance::new(address, member.address)
        });
    }
    Ok(list)
}

fn place(mark: tree::Mark) -> String {
    format!("{}:{}", mark.line, mark.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json() {
        let yaml = "- 10.0.0.1:80\n- {address: 'unix:/a', weight: 3, zone: x, labels: {a: b}}\n";
        let list = parse(yaml).unwrap();
        assert_eq!((list.len(), list[1].weight, list[1].zone.as_deref()), (2, 3, Some("x")));
        assert_eq!(parse(r#"["10.0.0.1:80", {"address": "[::1]:9"}]"#).unwrap().len(), 2);
        assert!(parse("[]").unwrap().is_empty());
        for bad in ["", "a: b", "- name:80", "- {adress: '10.0.0.1:80'}", "- [1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("- 10.0.0.1:80\n- nowhere").unwrap_err(), "2:3: must be `ADDRESS:PORT` or `unix:/PATH`");
    }
}
