//! Bounds of one route's requests, below what the listener takes at all.

use super::{Asked, Flow, Gate, NotesSlot, Response};
use crate::count::Tally;
use crate::exchange::Failure;

/// 0 is no bound.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Bytes of the path.
    pub path: usize,
    /// Bytes of the query.
    pub query: usize,
    /// Parameters of the query.
    pub parameters: usize,
    /// Bytes of the whole head.
    pub head: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of one field's value.
    pub value: usize,
    pub refused: Tally,
}

impl Sizes {
    fn refusal(&self, asked: &Asked<'_>) -> Option<(u16, &'static str)> {
        let over = |most: usize, found: usize| most != 0 && found > most;
        let view = &asked.view;
        let longest = || view.fields.iter().map(|field| field.value.of(view.bytes).len()).max().unwrap_or(0);
        // 414 and 431 as RFC 9110 §15.5.15 and RFC 6585 §5 have them.
        if over(self.path, view.path.len()) {
            Some((414, "the path is too long"))
        } else if over(self.query, view.query.len()) {
            Some((414, "the query is too long"))
        } else if self.parameters != 0
            && over(self.parameters, view.query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).count())
        {
            Some((400, "the query has too many parameters"))
        } else if over(self.head, asked.size) || over(self.fields, view.fields.len()) {
            Some((431, "the head is too large"))
        } else if self.value != 0 && over(self.value, longest()) {
            Some((431, "a field is too large"))
        } else {
            None
        }
    }
}

impl Gate for Sizes {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        match self.refusal(asked) {
            None => Flow::Continue,
            Some((status, text)) => {
                self.refused.add();
                Flow::Respond(Response::refuse(status, Failure::Limit, text))
            }
        }
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        tell("sizes", "deny", self.refused.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;

    #[test]
    fn each_bound() {
        let gate = Sizes { path: 10, query: 20, parameters: 2, head: 200, fields: 3, value: 30, ..Sizes::default() };
        let long = format!("A: {}", "x".repeat(31));
        let huge = format!("A: {}", "x".repeat(30));
        let name = format!("{}: 1", "A".repeat(200));
        let cases: [(&[&str], u16); 12] = [
            (&["GET /?a=1&&b=2&"], 0),
            (&["GET /", &name], 431),
            (&["GET /?"], 0),
            (&["GET /123456789"], 0),
            (&["GET /1234567890"], 414),
            (&["GET /?a=1&b=2"], 0),
            (&["GET /?a=1&b=2&c=3"], 400),
            (&["GET /?a=123456789012345678"], 0),
            (&["GET /?a=1234567890123456789"], 414),
            (&["GET /", "A: 1", "B: 1"], 0),
            (&["GET /", "A: 1", "B: 1", "C: 1"], 431),
            (&["GET /", &huge, &huge], 0),
        ];
        for (lines, status) in cases {
            assert_eq!(Example::new(lines).status(&gate), status, "{lines:?}");
        }
        assert_eq!(Example::new(&["GET /", &long]).status(&gate), 431);
        assert_eq!(Example::new(&["GET /123456789012345"]).status(&Sizes::default()), 0);
    }
}
