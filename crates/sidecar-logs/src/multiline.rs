//! Which lines belong to one record. A rule sees one line at a time and remembers at most what kind of trace it is in.

use regex::bytes::Regex;

use crate::config::{Multiline, Preset};

#[derive(Debug, Clone)]
pub enum Rule {
    /// A matching line begins a record; the others go on.
    Start(Regex),
    /// A matching line goes on; the others begin a record.
    Next(Regex),
    Preset(Preset),
}

/// What a trace in progress expects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Inside {
    #[default]
    Nothing,
    /// A Python traceback: indented lines, then one that names the exception.
    Traceback,
    /// A Go panic: until something that cannot be part of one.
    Panic,
}

impl Rule {
    /// A checked configuration has exactly one.
    pub fn new(config: &Multiline) -> Result<Rule, regex::Error> {
        match (&config.start, &config.next, config.preset) {
            (Some(start), _, _) => Ok(Rule::Start(Regex::new(start)?)),
            (_, Some(next), _) => Ok(Rule::Next(Regex::new(next)?)),
            (_, _, preset) => Ok(Rule::Preset(preset.unwrap_or(Preset::Indented))),
        }
    }

    /// Whether `line` goes on with the record before it, and what is expected after it.
    pub fn joins(&self, inside: Inside, line: &[u8]) -> (bool, Inside) {
        match self {
            Rule::Start(start) => (!start.is_match(line), Inside::Nothing),
            Rule::Next(next) => (next.is_match(line), Inside::Nothing),
            Rule::Preset(preset) => joins(*preset, inside, line),
        }
    }
}

fn joins(preset: Preset, inside: Inside, line: &[u8]) -> (bool, Inside) {
    let text = line.trim_ascii_start();
    let indented = text.len() < line.len() && !text.is_empty();
    let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word.as_bytes()));
    let yes = |joins: bool| (joins, Inside::Nothing);
    match preset {
        Preset::Java => yes(indented
            && begins(&["at ", "... ", "Suppressed: ", "Caused by: ", "- locked", "- waiting"])
            || line.starts_with(b"Caused by: ")
            || indented && line.starts_with(b"\t")),
        Preset::Indented => yes(indented),
        Preset::Node => yes(indented || line == b"}"),
        Preset::Dotnet => yes(indented && begins(&["at ", "--- End of ", "---> "])
            || begins(&["---> ", "--- End of stack trace", "--- End of inner exception"])),
        Preset::Ruby => yes(indented && (begins(&["from "]) || contains_place(text))),
        Preset::Python => python(inside, line, text, indented),
        Preset::Go => go(inside, line, text),
    }
}

/// `file.rb:12:in`.
fn contains_place(text: &[u8]) -> bool {
    memchr::memmem::find(text, b".rb:").is_some()
}

const CHAINED: [&str; 2] = [
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
];

fn python(inside: Inside, line: &[u8], text: &[u8], indented: bool) -> (bool, Inside) {
    if text.starts_with(b"Traceback (most recent call last)") {
        // The traceback belongs to the message that was logged with it, unless it stands alone.
        return (indented || inside == Inside::Panic, Inside::Traceback);
    }
    match inside {
        // After the exception's own line may come "During handling of …", with blank lines around.
        Inside::Traceback if indented || text.is_empty() => (true, Inside::Traceback),
        Inside::Traceback => (true, Inside::Nothing),
        _ if text.is_empty() => (false, Inside::Nothing),
        _ if CHAINED.iter().any(|chained| line.starts_with(chained.as_bytes())) => (true, Inside::Panic),
        _ => (indented, Inside::Nothing),
    }
}

fn go(inside: Inside, line: &[u8], text: &[u8]) -> (bool, Inside) {
    let starts =
        ["panic: ", "fatal error: ", "http: panic serving"].iter().any(|word| line.starts_with(word.as_bytes()));
    let frame = text.len() < line.len()
        || text.is_empty()
        || text.starts_with(b"goroutine ")
        || text.starts_with(b"created by ")
        || text.starts_with(b"[signal ")
        || text.starts_with(b"exit status ")
        || (text.ends_with(b")") && memchr::memchr(b'(', text).is_some() && !text.contains(&b' '));
    match inside {
        Inside::Panic if frame => (true, Inside::Panic),
        _ if starts => (false, Inside::Panic),
        _ => (false, Inside::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records are marked by `|` before their first line.
    fn grouped(rule: &Rule, text: &str) -> String {
        let mut inside = Inside::Nothing;
        let mut out = String::new();
        for (index, line) in text.lines().enumerate() {
            let (joins, next) = rule.joins(inside, line.as_bytes());
            inside = next;
            out.push(if joins && index > 0 { ' ' } else { '|' });
            out.push_str(line);
            out.push('\n');
        }
        out
    }

    fn check(preset: Preset, marked: &str) {
        let text: String = marked.lines().map(|line| format!("{}\n", &line[1..])).collect();
        assert_eq!(grouped(&Rule::Preset(preset), &text), marked);
    }

    #[test]
    fn traces_stay_together() {
        check(
            Preset::Java,
            "|INFO start\n|java.lang.IllegalStateException: no\n \tat a.B.c(B.java:1)\n \t... 3 more\n Caused by: x.Y: z\n \tat d.E.f(E.java:2)\n|INFO next\n",
        );
        check(
            Preset::Python,
            "|start\n|Traceback (most recent call last):\n   File \"a.py\", line 1, in <module>\n     f()\n ValueError: no\n|next\n",
        );
        check(
            Preset::Go,
            "|start\n|panic: no\n \n goroutine 1 [running]:\n main.f(0x1)\n \t/a/main.go:3 +0x1d\n created by main.g\n \t/a/main.go:9\n exit status 2\n|next line here\n",
        );
        check(Preset::Node, "|Error: no\n     at f (/a.js:1:2)\n     at g (/a.js:3:4)\n|next\n");
        check(
            Preset::Dotnet,
            "|System.Exception: no\n  ---> System.IO.IOException: z\n    at A.B() in a.cs:line 1\n    --- End of inner exception stack trace ---\n    at C.D()\n|next\n",
        );
        check(
            Preset::Ruby,
            "|a.rb:1:in `f': no (RuntimeError)\n \tfrom a.rb:2:in `g'\n \tfrom a.rb:3:in `<main>'\n|next\n",
        );
        check(Preset::Indented, "|a\n  b\n\u{20}\tc\n|d\n");
    }

    #[test]
    fn own_rules() {
        let start = Rule::Start(Regex::new(r"^\d{4}-").unwrap());
        assert_eq!(grouped(&start, "2026-a\nb\n2026-c\n"), "|2026-a\n b\n|2026-c\n");
        let next = Rule::Next(Regex::new(r"^\+").unwrap());
        assert_eq!(grouped(&next, "a\n+b\nc\n"), "|a\n +b\n|c\n");
    }
}
