//! The account of what was written, read and acknowledged; in the metrics, in `/readyz?verbose`, and as the last word.

use std::fmt;
use std::path::PathBuf;

/// One file (one incarnation of it), in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub path: PathBuf,
    pub id: u64,
    /// What the file holds.
    pub written: u64,
    /// Turned into records and queued.
    pub read: u64,
    /// Acknowledged by every sink.
    pub acknowledged: u64,
    /// Its name now leads elsewhere, or nowhere.
    pub gone: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Files that are still followed.
    pub lines: Vec<Line>,
    /// Files that were read to their end, acknowledged and let go, and their bytes.
    pub finished: u64,
    pub finished_bytes: u64,
    /// Times a file shrank and what had not been read was in no copy beside it.
    pub truncated_unseen: u64,
    /// Bytes known to be lost that way, or with files that vanished while the agent was down; there may be more.
    pub lost_bytes: u64,
}

impl Receipt {
    fn sum(&self, value: impl Fn(&Line) -> u64) -> u64 {
        self.finished_bytes + self.lines.iter().map(value).sum::<u64>()
    }

    pub fn written(&self) -> u64 {
        self.sum(|line| line.written)
    }

    pub fn read(&self) -> u64 {
        self.sum(|line| line.read)
    }

    pub fn acknowledged(&self) -> u64 {
        self.sum(|line| line.acknowledged)
    }

    pub fn balances(&self) -> bool {
        self.truncated_unseen == 0
            && self.lost_bytes == 0
            && self.lines.iter().all(|line| line.written == line.read && line.read == line.acknowledged)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, read, acknowledged) = (self.written(), self.read(), self.acknowledged());
        let files = self.finished + self.lines.len() as u64;
        write!(f, "receipt: {files} file(s): written {written}, read {read}, acknowledged {acknowledged} bytes")?;
        if self.truncated_unseen > 0 {
            write!(f, "; truncated unseen {} time(s)", self.truncated_unseen)?;
        }
        if self.lost_bytes > 0 {
            write!(f, "; at least {} bytes vanished unread", self.lost_bytes)?;
        }
        f.write_str(if self.balances() { "; balances" } else { "; DOES NOT BALANCE" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_balances_or_says_so() {
        let line = |written| Line { path: "/a".into(), id: 1, written, read: 10, acknowledged: 10, gone: false };
        let mut receipt = Receipt { lines: vec![line(10)], finished: 2, finished_bytes: 30, ..Receipt::default() };
        let expected = "receipt: 3 file(s): written 40, read 40, acknowledged 40 bytes; balances";
        assert_eq!(receipt.to_string(), expected);
        receipt.lines[0] = line(12);
        assert!(!receipt.balances());
        receipt.lines[0] = line(10);
        receipt.truncated_unseen = 1;
        assert!(receipt.to_string().contains("truncated unseen 1 time(s)"), "{receipt}");
    }
}
