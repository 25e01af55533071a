//! Where connections of plain TCP go: by the server name that their TLS asks for, if a name is given to any of the ways,
//! and then by weight.

use crate::pool::Dice;
use crate::route::{Targets, host_matches};

/// The ways of one listener.
#[derive(Debug, Default)]
pub struct Passages {
    /// Names in the order in which they are asked, each with the number of its targets; the empty one takes everything.
    names: Vec<(Vec<u8>, usize)>,
    targets: Vec<Targets>,
}

impl Passages {
    /// Of ways with their names: in lower case, or beginning with `*.`; without any, a way is for everybody else. Of equal
    /// names the first counts.
    pub fn new(ways: impl IntoIterator<Item = (Vec<Vec<u8>>, Targets)>) -> Passages {
        let mut passages = Passages::default();
        for (names, targets) in ways {
            let number = passages.targets.len();
            passages.targets.push(targets);
            if names.is_empty() {
                passages.names.push((Vec::new(), number));
            }
            passages.names.extend(names.into_iter().map(|name| (name, number)));
        }
        // A whole name before one that begins with `*.`, of those the longest, and at last the one for everybody.
        let rank = |name: &Vec<u8>| (!name.is_empty(), !name.starts_with(b"*"), name.len());
        passages.names.sort_by_key(|(name, _)| std::cmp::Reverse(rank(name)));
        passages
    }

    /// Whether the client's name must be known.
    pub fn is_by_name(&self) -> bool {
        self.names.iter().any(|(name, _)| !name.is_empty())
    }

    /// The number of a backend for a client that asks for `name`, or for none; `None`: nobody wants it.
    pub fn draw(&self, name: Option<&[u8]>, dice: &mut Dice) -> Option<usize> {
        let takes = |wanted: &[u8]| wanted.is_empty() || name.is_some_and(|name| host_matches(wanted, name));
        let (_, number) = self.names.iter().find(|(wanted, _)| takes(wanted))?;
        let targets = self.targets.get(*number)?;
        targets.get(targets.draw(dice)?).map(|target| target.backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_specific_name_wins() {
        let way = |names: &[&str], backend| {
            (names.iter().map(|name| name.as_bytes().to_vec()).collect(), Targets::plain([(backend, 1)]))
        };
        let ways = [way(&[], 0), way(&["*.a.test"], 1), way(&["*.b.a.test", "c.test"], 2), way(&["x.a.test"], 3)];
        let passages = Passages::new(ways);
        let mut dice = Dice::new(1);
        assert!(passages.is_by_name());
        for (name, expected) in [
            (Some("x.a.test"), 3),
            (Some("y.a.test"), 1),
            (Some("z.y.a.test"), 1),
            (Some("y.b.a.test"), 2),
            (Some("c.test"), 2),
            (Some("a.test"), 0),
            (Some("d.c.test"), 0),
            (None, 0),
        ] {
            assert_eq!(passages.draw(name.map(str::as_bytes), &mut dice), Some(expected), "{name:?}");
        }
        let passages = Passages::new([way(&["*.a.test"], 1)]);
        assert_eq!(passages.draw(Some(b"b.test"), &mut dice), None);
        assert_eq!(passages.draw(None, &mut dice), None);
        let passages = Passages::new([(Vec::new(), Targets::plain([(4, 1), (5, 3)]))]);
        assert!(!passages.is_by_name());
        let many = (0..4000).filter(|_| passages.draw(None, &mut dice) == Some(5)).count();
        assert!((2800..3200).contains(&many), "{many}");
    }
}
