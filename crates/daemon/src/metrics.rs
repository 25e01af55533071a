//! Writing metrics in the Prometheus text format (0.0.4) or as OpenMetrics 1.0. Programs keep plain counters and are
//! asked when somebody scrapes; there is no registry.

use std::fmt::Write as _;

/// What a scrape answers with.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    open_metrics: bool,
    prefix: &'static str,
}

impl Exposition {
    /// Every name begins with `prefix` and an underscore.
    pub fn new(prefix: &'static str, open_metrics: bool) -> Exposition {
        Exposition { text: String::with_capacity(4096), open_metrics, prefix }
    }

    /// A counter family; its name has no `_total`, which is added here.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        let family = format!("{}_{name}", self.prefix);
        // In the older format the family has the sample's name.
        let shown = if self.open_metrics { family.clone() } else { format!("{family}_total") };
        let _ = write!(self.text, "# HELP {shown} {help}\n# TYPE {shown} counter\n");
        Family { out: &mut self.text, name: format!("{family}_total") }
    }

    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        let name = format!("{}_{name}", self.prefix);
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        Family { out: &mut self.text, name }
    }

    pub fn finish(mut self) -> String {
        if self.open_metrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The samples of one name.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut String,
    name: String,
}

impl Family<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.out.push_str(&self.name);
        for (index, (name, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.out, "{}{name}=\"{escaped}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let text = |open_metrics| {
            let mut out = Exposition::new("logs", open_metrics);
            out.counter("lines", "Lines read.").sample(&[("file", "a\"b\\")], 3);
            out.gauge("ready", "Whether.").sample(&[], 1);
            out.finish()
        };
        assert_eq!(
            text(false),
            "# HELP logs_lines_total Lines read.\n# TYPE logs_lines_total counter\nlogs_lines_total{file=\"a\\\"b\\\\\"} 3\n\
             # HELP logs_ready Whether.\n# TYPE logs_ready gauge\nlogs_ready 1\n"
        );
        assert!(text(true).starts_with("# HELP logs_lines Lines read.\n# TYPE logs_lines counter\nlogs_lines_total{"));
        assert!(text(true).ends_with("# EOF\n"));
    }
}
