//! Where logs come from.

use std::collections::BTreeMap;

use daemon::config::{Seconds, Size};
use daemon::{choice, document};

use super::Value;

document! {
    /// One way in: exactly one of `files`, `stdin`, `fifo`, `socket` and `syslog`.
    pub struct Source {
        /// The name, as shown in metrics.
        name: String = required,
        /// Files that are followed.
        files: Option<Files> = optional,
        /// Standard input, until its end; then the agent delivers what it has and ends.
        stdin: Option<Stdin> = optional,
        /// A named pipe ("pipe mode": no file grows, nothing rotates).
        fifo: Option<Fifo> = optional,
        /// A Unix stream socket that programs write lines to.
        socket: Option<Socket> = optional,
        /// Syslog over UDP, TCP or a local socket.
        syslog: Option<SyslogIn> = optional,
        /// How a line is written.
        format: Format = default(Format::Plain),
        /// What the text of a line is.
        parse: Parse = default(Parse::None),
        /// The regular expression of `parse: regex`: each named group becomes a field; `message` becomes the text, `time`
        /// (RFC 3339 or since 1970) the time, `level` the severity. `.` also matches a newline. A line that does not match stays
        /// as it is.
        pattern: Option<String> = optional,
        /// How text is encoded.
        encoding: Encoding = default(Encoding::Auto),
        /// Which lines belong together.
        multiline: Option<Multiline> = optional,
        /// Added to every record of this source; before the agent's own of the same name.
        fields: BTreeMap<String, Value> = default(BTreeMap::new()),
    }
}

document! {
    /// Standard input.
    pub struct Stdin {
        /// A longer line is cut into pieces, each its own record, marked `partial`.
        max_line: Size = default(Size(256 << 10)),
    }
}

document! {
    /// A named pipe.
    pub struct Fifo {
        /// Where it is; made if it is not there.
        path: String = required,
        /// A longer line is cut into pieces, each its own record, marked `partial`.
        max_line: Size = default(Size(256 << 10)),
    }
}

document! {
    /// A Unix stream socket.
    pub struct Socket {
        /// Where it is made; one that nobody listens to is replaced. Who may write to the directory decides who may connect.
        path: String = required,
        /// A longer line is cut into pieces, each its own record, marked `partial`.
        max_line: Size = default(Size(256 << 10)),
        /// Connections at a time.
        connections: u32 = default(64),
    }
}

document! {
    /// Syslog in. `parse` is `syslog` unless it is given.
    pub struct SyslogIn {
        /// Address for datagrams, such as `127.0.0.1:514`.
        udp: Option<String> = optional,
        /// Address for connections; messages are framed by a length or by a newline (RFC 6587).
        tcp: Option<String> = optional,
        /// A datagram socket such as `/dev/log`.
        socket: Option<String> = optional,
        /// A longer message is cut into pieces, each its own record, marked `partial`.
        max_line: Size = default(Size(64 << 10)),
        /// Connections at a time.
        connections: u32 = default(64),
    }
}

choice! {
    /// How text is encoded.
    pub enum Encoding {
        /// UTF-16 if a file begins with its mark, otherwise UTF-8.
        Auto = "auto",
        /// UTF-8. Bytes that are none become U+FFFD where a receiver wants text, and stay in files and on standard output.
        Utf8 = "utf-8",
        /// UTF-16, little endian.
        Utf16Le = "utf-16le",
        /// UTF-16, big endian.
        Utf16Be = "utf-16be",
        /// ISO 8859-1.
        Latin1 = "latin-1",
    }
}

document! {
    /// Files that are followed through rotation by rename, copy and truncate, and delete.
    pub struct Files {
        /// Patterns of absolute paths: `*`, `?`, `[a-z]`, and `**` for any directories.
        include: Vec<String> = required,
        /// Patterns of paths, or of file names if without `/`, that are left out.
        exclude: Vec<String> = default(vec!["*.gz".to_owned(), "*.zst".to_owned(), "*.tmp".to_owned()]),
        /// Where a file begins that was there before the agent's first start. Later files are read whole.
        start_at: StartAt = default(StartAt::Beginning),
        /// Files not written for this long before they were first seen are left out. 0s: none.
        ignore_older_than: Seconds = default(Seconds::new(0)),
        /// A renamed or deleted file is let go when it has not grown for this long.
        rotate_wait: Seconds = default(Seconds::new(5)),
        /// A longer line is cut into pieces, each its own record, marked `partial`. Nothing is dropped.
        max_line: Size = default(Size(256 << 10)),
        /// How often everything is looked at without an event: the fallback where inotify(7) sees nothing.
        poll: Seconds = default(Seconds::new(1)),
    }
}

choice! {
    /// The place to begin.
    pub enum StartAt {
        /// The whole file.
        Beginning = "beginning",
        /// Only what is written from now on.
        End = "end",
    }
}

choice! {
    /// How a line is written.
    pub enum Format {
        /// The line is the text.
        Plain = "plain",
        /// `TIME STREAM TAG TEXT`, as container runtimes write; partial lines are joined.
        Cri = "cri",
    }
}

choice! {
    /// What a text is.
    pub enum Parse {
        /// Just text.
        None = "none",
        /// A JSON object, kept as it is; its time and level are understood. Other lines stay text.
        Json = "json",
        /// `key=value` pairs, which become fields; the text stays.
        Logfmt = "logfmt",
        /// The source's `pattern`.
        Regex = "regex",
        /// Common or combined, as Apache and nginx write; becomes `client`, `user`, `method`, `path`, `protocol`, `status`,
        /// `bytes`, `referer`, `agent`; the text stays.
        Access = "access",
        /// RFC 5424 or RFC 3164; becomes `facility`, `host`, `app`, `pid`, `msgid`, `data`, and the severity; the text is the message.
        Syslog = "syslog",
    }
}

document! {
    /// Which lines belong together. Grouping depends on the text alone, and on the idle time.
    pub struct Multiline {
        /// A ready-made rule.
        preset: Option<Preset> = optional,
        /// A regular expression: a line that matches begins a record.
        start: Option<String> = optional,
        /// A regular expression: a line that matches goes on with the record before it.
        next: Option<String> = optional,
        /// A record that nothing was added to for this long is finished.
        idle: Seconds = default(Seconds::new(1)),
    }
}

choice! {
    /// Ready-made rules for stack traces.
    pub enum Preset {
        /// Java and other JVM languages.
        Java = "java",
        /// Go panics.
        Go = "go",
        /// Python tracebacks.
        Python = "python",
        /// Ruby backtraces.
        Ruby = "ruby",
        /// Node.js errors.
        Node = "node",
        /// .NET exceptions.
        Dotnet = "dotnet",
        /// Lines that begin with white space go on with the one before.
        Indented = "indented",
    }
}
