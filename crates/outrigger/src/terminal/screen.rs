//! What is written where: containers' output to the stream they chose, everything of ours to stderr, progress bars below
//! both on a terminal.

use std::io::{self, Write};

use crate::terminal::label::Label;
use crate::terminal::style::Style;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Where output goes and what that place can show.
#[derive(Debug)]
pub(crate) struct Screen<O, E> {
    out: Sink<O>,
    err: Sink<E>,
    /// Both streams end on one terminal: a line begun on one is seen on the other.
    shared: bool,
    /// Progress bars now on the terminal, below everything.
    bars: Vec<String>,
}

#[derive(Debug)]
struct Sink<W> {
    writer: W,
    style: Style,
    /// Collected until the other stream is written to or a batch ends, so that the order between the two is kept.
    pending: Vec<u8>,
    /// The container whose line has not ended yet.
    open: Option<usize>,
}

/// Enough for a good write; more is only memory.
const BATCH: usize = 32 * 1024;

// === impl Screen ===

impl<O: Write, E: Write> Screen<O, E> {
    pub(crate) fn new((out, out_style): (O, Style), (err, err_style): (E, Style), shared: bool) -> Self {
        Self { out: Sink::new(out, out_style), err: Sink::new(err, err_style), shared, bars: Vec::new() }
    }

    pub(crate) fn err_style(&self) -> Style {
        self.err.style
    }

    /// A piece of a container's output. `ends` is false for a line that goes on (a prompt, or longer than one record).
    pub(crate) fn output(&mut self, label: &Label, stream: Stream, text: &[u8], ends: bool) -> io::Result<()> {
        self.hide_bars()?;
        match stream {
            Stream::Out => {
                self.err.end_line(self.shared, None);
                self.err.flush()?;
                self.out.output(label, text, ends)
            }
            Stream::Err => {
                self.out.end_line(self.shared, None);
                self.out.flush()?;
                self.err.output(label, text, ends)
            }
        }
    }

    /// A line of ours, already painted.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        self.hide_bars()?;
        self.out.end_line(self.shared, None);
        self.out.flush()?;
        self.err.end_line(true, None);
        self.err.pending.extend_from_slice(line.as_bytes());
        self.err.pending.push(b'\n');
        self.err.flush()
    }

    /// Replaces the progress bars.
    pub(crate) fn show_bars(&mut self, bars: Vec<String>) -> io::Result<()> {
        if bars == self.bars {
            return Ok(());
        }
        self.hide_bars()?;
        if !bars.is_empty() {
            self.out.flush()?;
            self.err.end_line(true, None);
            for bar in &bars {
                self.err.pending.extend_from_slice(bar.as_bytes());
                self.err.pending.push(b'\n');
            }
            self.err.flush()?;
        }
        self.bars = bars;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn into_writers(mut self) -> (O, E) {
        self.flush().expect("memory takes everything");
        (self.out.writer, self.err.writer)
    }

    /// Everything said so far is out.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }

    fn hide_bars(&mut self) -> io::Result<()> {
        let shown = std::mem::take(&mut self.bars).len();
        if shown > 0 {
            // Up, and erase to the end of the screen (ECMA-48 CPL, ED).
            self.err.pending.extend_from_slice(format!("\x1b[{shown}F\x1b[0J").as_bytes());
            self.err.flush()?;
        }
        Ok(())
    }
}

// === impl Sink ===

impl<W: Write> Sink<W> {
    fn new(writer: W, style: Style) -> Self {
        Self { writer, style, pending: Vec::new(), open: None }
    }

    fn output(&mut self, label: &Label, text: &[u8], ends: bool) -> io::Result<()> {
        self.end_line(true, Some(label.index));
        if self.open.is_none() {
            let prefix = self.style.container(label.index, &format!("{} |", label.text));
            self.pending.extend_from_slice(prefix.as_bytes());
            self.pending.push(b' ');
        }
        self.pending.extend_from_slice(text);
        if ends {
            self.pending.push(b'\n');
        }
        self.open = (!ends).then_some(label.index);
        if self.pending.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Ends a line that someone other than `next` left open, where that is visible.
    fn end_line(&mut self, visible: bool, next: Option<usize>) {
        if visible && self.open.is_some() && self.open != next {
            self.pending.push(b'\n');
            self.open = None;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // Dropped also when it fails: a stream that is gone must not collect what will never be read.
        let result = self.writer.write_all(&self.pending).and_then(|()| self.writer.flush());
        self.pending.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str, index: usize) -> Label {
        Label { text: text.into(), index }
    }

    fn screen(shared: bool) -> Screen<Vec<u8>, Vec<u8>> {
        Screen::new((Vec::new(), Style::PLAIN), (Vec::new(), Style::PLAIN), shared)
    }

    fn written(screen: &mut Screen<Vec<u8>, Vec<u8>>) -> (String, String) {
        screen.flush().expect("memory takes everything");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        (text(&screen.out.writer), text(&screen.err.writer))
    }

    #[test]
    fn each_stream_gets_its_lines_with_a_prefix() {
        let mut screen = screen(false);
        screen.output(&label("app  ", 0), Stream::Out, b"hello", true).expect("written");
        screen.output(&label("proxy", 1), Stream::Err, b"oh", true).expect("written");
        screen.say("pod/web * running").expect("written");
        let expected = ("app   | hello\n".to_owned(), "proxy | oh\npod/web * running\n".to_owned());
        assert_eq!(written(&mut screen), expected);
    }

    #[test]
    fn a_line_that_goes_on_is_broken_only_by_someone_else() {
        let mut screen = screen(true);
        screen.output(&label("a", 0), Stream::Out, b"one ", false).expect("written");
        screen.output(&label("a", 0), Stream::Out, b"two ", false).expect("written");
        screen.output(&label("b", 1), Stream::Out, b"other", true).expect("written");
        screen.output(&label("a", 0), Stream::Out, b"three", true).expect("written");
        assert_eq!(written(&mut screen).0, "a | one two \nb | other\na | three\n");
    }

    #[test]
    fn a_line_of_ours_ends_an_open_line_on_a_shared_terminal_only() {
        for (shared, expected) in [(true, "a | $ \n"), (false, "a | $ ")] {
            let mut screen = screen(shared);
            screen.output(&label("a", 0), Stream::Out, b"$ ", false).expect("written");
            screen.say("x").expect("written");
            assert_eq!(written(&mut screen), (expected.to_owned(), "x\n".to_owned()));
        }
    }

    #[test]
    fn bars_stay_below_the_lines() {
        let mut screen = screen(true);
        screen.show_bars(vec!["bar 1".into(), "bar 2".into()]).expect("written");
        screen.show_bars(vec!["bar 1".into(), "bar 2".into()]).expect("written");
        screen.say("line").expect("written");
        screen.show_bars(vec!["bar 2".into()]).expect("written");
        screen.show_bars(Vec::new()).expect("written");
        let expected = "bar 1\nbar 2\n\x1b[2F\x1b[0Jline\nbar 2\n\x1b[1F\x1b[0J";
        assert_eq!(written(&mut screen).1, expected);
    }
}
