//! Colours: only where a person looks, and never against `NO_COLOR` (<https://no-color.org>).

/// One stream's colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    coloured: bool,
}

/// Told apart easily on dark and light grounds; red is kept for errors.
const CONTAINERS: [&str; 10] = ["36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"];

impl Style {
    pub(crate) fn new(tty: bool, no_color: Option<&str>, term: Option<&str>) -> Self {
        Self { coloured: tty && no_color.is_none_or(str::is_empty) && term != Some("dumb") }
    }

    /// For a stream of this process.
    pub(crate) fn of(stream: &impl std::io::IsTerminal) -> Self {
        let variable = |name| std::env::var(name).ok();
        Self::new(stream.is_terminal(), variable("NO_COLOR").as_deref(), variable("TERM").as_deref())
    }

    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { coloured: false };

    pub(crate) fn container(self, index: usize, text: &str) -> String {
        self.paint(CONTAINERS[index % CONTAINERS.len()], text)
    }

    pub(crate) fn quiet(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn notable(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_and_consent() {
        let coloured = |tty, no_color, term| Style::new(tty, no_color, term).coloured;
        assert!(coloured(true, None, Some("xterm")));
        assert!(coloured(true, Some(""), None));
        assert!(!coloured(true, Some("1"), Some("xterm")));
        assert!(!coloured(true, None, Some("dumb")));
        assert!(!coloured(false, None, Some("xterm")));
    }
}
