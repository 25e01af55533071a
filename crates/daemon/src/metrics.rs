//! Writing metrics in the Prometheus text format (0.0.4) or as OpenMetrics 1.0. Programs keep plain counters and are
//! asked when somebody scrapes; there is no registry.

use std::fmt::Write as _;

/// What a scrape answers with, or what is exported.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    open_metrics: bool,
    prefix: &'static str,
    /// Instead of the text.
    collected: Option<Vec<Collected>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A family as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    pub name: String,
    pub help: String,
    pub kind: Kind,
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub labels: Vec<(String, String)>,
    pub value: Measured,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    Whole(u64),
    Number(f64),
    /// Upper bounds, counts (one more: above all bounds), sum.
    Histogram(Vec<f64>, Vec<u64>, f64),
}

impl Exposition {
    /// Every name begins with `prefix` and an underscore.
    pub fn new(prefix: &'static str, open_metrics: bool) -> Exposition {
        Exposition { text: String::with_capacity(4096), open_metrics, prefix, collected: None }
    }

    /// Gathers data instead of text.
    pub fn collecting(prefix: &'static str) -> Exposition {
        Exposition { text: String::new(), open_metrics: true, prefix, collected: Some(Vec::new()) }
    }

    /// A counter family; its name has no `_total`, which is added here.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        let name = format!("{}_{name}", self.prefix);
        self.foreign(&name, help, Kind::Counter)
    }

    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        let name = format!("{}_{name}", self.prefix);
        self.foreign(&name, help, Kind::Gauge)
    }

    /// A histogram family; its name ends in its unit.
    pub fn histogram(&mut self, name: &str, help: &str) -> Family<'_> {
        let name = format!("{}_{name}", self.prefix);
        self.foreign(&name, help, Kind::Histogram)
    }

    /// A family with somebody else's name, without the prefix; a counter's name has no `_total`.
    pub fn foreign(&mut self, name: &str, help: &str, kind: Kind) -> Family<'_> {
        let counts = kind == Kind::Counter;
        if let Some(collected) = &mut self.collected {
            collected.push(Collected { name: name.to_owned(), help: help.to_owned(), kind, points: Vec::new() });
        } else {
            // In the older format the family has the sample's name.
            let shown = if self.open_metrics || !counts { name.to_owned() } else { format!("{name}_total") };
            let word = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let help = help.replace('\\', r"\\").replace('\n', r"\n");
            let _ = write!(self.text, "# HELP {shown} {help}\n# TYPE {shown} {word}\n");
        }
        Family { out: self, name: if counts { format!("{name}_total") } else { name.to_owned() } }
    }

    pub fn finish(mut self) -> String {
        if self.open_metrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// What was gathered.
    pub fn into_collected(self) -> Vec<Collected> {
        self.collected.unwrap_or_default()
    }
}

/// One measurement that stands for others (OpenMetrics 1.0, "Exemplars"): a value with the trace it was seen in.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
    /// Seconds since 1970.
    pub time: f64,
}

/// The samples of one name.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut Exposition,
    name: String,
}

impl Family<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        if !self.gather(labels, || Measured::Whole(value)) {
            self.line("", labels, None, &value.to_string());
        }
        self
    }

    pub fn number(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        if !self.gather(labels, || Measured::Number(value)) {
            self.line("", labels, None, &value.to_string());
        }
        self
    }

    /// `counts` are not cumulative, and one more than `bounds`.
    pub fn histogram(&mut self, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) -> &mut Self {
        self.histogram_with(labels, bounds, counts, sum, &[])
    }

    /// As [`Family::histogram`], with an exemplar for some of the buckets; only OpenMetrics shows them.
    pub fn histogram_with(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
        exemplars: &[Option<Exemplar>],
    ) -> &mut Self {
        if !self.gather(labels, || Measured::Histogram(bounds.to_vec(), counts.to_vec(), sum)) {
            let shown = if self.out.open_metrics { exemplars } else { &[] };
            self.buckets(labels, bounds, counts, sum, shown);
        }
        self
    }

    fn buckets(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
        exemplars: &[Option<Exemplar>],
    ) {
        let mut total = 0;
        let bounds = bounds.iter().map(f64::to_string).chain(std::iter::once("+Inf".to_owned()));
        for (index, (bound, count)) in bounds.zip(counts).enumerate() {
            total += count;
            self.line("_bucket", labels, Some(&bound), &total.to_string());
            if let Some(Some(exemplar)) = exemplars.get(index) {
                let out = &mut self.out.text;
                out.pop();
                out.push_str(" # {");
                for (index, (name, text)) in exemplar.labels.iter().enumerate() {
                    let _ = write!(out, "{}{name}=\"{text}\"", if index == 0 { "" } else { "," });
                }
                let _ = writeln!(out, "}} {} {:.3}", exemplar.value, exemplar.time);
            }
        }
        self.line("_sum", labels, None, &sum.to_string());
        self.line("_count", labels, None, &total.to_string());
    }

    /// `false` when this exposition is written and not gathered.
    fn gather(&mut self, labels: &[(&str, &str)], value: impl FnOnce() -> Measured) -> bool {
        let Some(families) = &mut self.out.collected else { return false };
        if let Some(family) = families.last_mut() {
            let labels = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            family.points.push(Point { labels, value: value() });
        }
        true
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: &str) {
        let out = &mut self.out.text;
        let _ = write!(out, "{}{suffix}", self.name);
        let bound = bound.map(|bound| ("le", bound));
        for (index, (name, text)) in labels.iter().copied().chain(bound).enumerate() {
            let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(out, "{}{name}=\"{escaped}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(out, "{} {value}", if labels.is_empty() && bound.is_none() { "" } else { "}" });
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

    #[test]
    fn exemplars_only_where_they_are_understood() {
        let exemplar = Exemplar { labels: vec![("trace_id", "ab".to_owned())], value: 0.25, time: 1.5 };
        let text = |open_metrics| {
            let mut out = Exposition::new("x", open_metrics);
            out.histogram("took", "T.").histogram_with(&[], &[0.5], &[1, 0], 0.25, &[Some(exemplar.clone()), None]);
            out.finish()
        };
        assert!(
            text(true)
                .contains("x_took_bucket{le=\"0.5\"} 1 # {trace_id=\"ab\"} 0.25 1.500\nx_took_bucket{le=\"+Inf\"} 1\n")
        );
        assert!(!text(false).contains("trace_id"));
    }

    #[test]
    fn histograms_and_data() {
        let fill = |out: &mut Exposition| {
            out.foreign("took", "Time.", Kind::Histogram).histogram(&[("a", "b")], &[0.5, 2.0], &[1, 0, 2], 9.5);
        };
        let mut out = Exposition::new("x", false);
        fill(&mut out);
        let expected = "# HELP took Time.\n# TYPE took histogram\ntook_bucket{a=\"b\",le=\"0.5\"} 1\n\
                        took_bucket{a=\"b\",le=\"2\"} 1\ntook_bucket{a=\"b\",le=\"+Inf\"} 3\n\
                        took_sum{a=\"b\"} 9.5\ntook_count{a=\"b\"} 3\n";
        assert_eq!(out.finish(), expected);
        let mut out = Exposition::collecting("x");
        fill(&mut out);
        out.counter("n", "N.").sample(&[], 4);
        let families = out.into_collected();
        assert_eq!((families[1].name.as_str(), &families[1].points[0].value), ("x_n", &Measured::Whole(4)));
        assert_eq!(families[0].points[0].labels, [("a".to_owned(), "b".to_owned())]);
    }
}
