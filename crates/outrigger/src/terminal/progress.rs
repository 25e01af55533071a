//! Image pulls as people watch them: a bar each on a terminal, two plain lines each elsewhere.

use pod_image::PullProgress;

use crate::table::size;

/// Images on their way from or to a registry.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    direction: Direction,
    under_way: Vec<Pull>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Direction {
    #[default]
    Pull,
    Push,
}

#[derive(Debug)]
struct Pull {
    image: String,
    blobs: Vec<Blob>,
}

#[derive(Debug)]
struct Blob {
    digest: String,
    total: u64,
    done: u64,
    unpacking: bool,
}

/// What a piece of news is worth saying where no bar is shown. `Done` is said everywhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Begun(String),
    Done(String),
}

const BAR: usize = 24;

// === impl Pulls ===

impl Pulls {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, under_way: Vec::new() }
    }

    pub(crate) fn hear(&mut self, image: &str, news: PullProgress) -> Option<Said> {
        let index = match self.under_way.iter().position(|pull| pull.image == image) {
            Some(index) => index,
            None => {
                self.under_way.push(Pull { image: image.to_owned(), blobs: Vec::new() });
                self.under_way.len() - 1
            }
        };
        let pull = &mut self.under_way[index];
        match news {
            PullProgress::Resolving { registry, .. } => Some(Said::Begun(match self.direction {
                Direction::Pull => format!("pulling {image} from {registry}"),
                Direction::Push => format!("pushing {image} to {registry}"),
            })),
            PullProgress::MirrorFailed { registry, message } => {
                Some(Said::Begun(format!("mirror {registry} cannot help with {image}: {message}")))
            }
            PullProgress::Layer { digest, total, done } => {
                let blob = pull.blob(&digest);
                (blob.total, blob.done) = (total, done);
                None
            }
            PullProgress::Extracting { digest } => {
                let blob = pull.blob(&digest);
                (blob.done, blob.unpacking) = (blob.total, true);
                None
            }
            PullProgress::Done { .. } => {
                let total: u64 = pull.blobs.iter().map(|blob| blob.total).sum();
                self.under_way.remove(index);
                let done = if self.direction == Direction::Pull { "pulled" } else { "pushed" };
                Some(Said::Done(format!("{done} {image} ({})", size(total))))
            }
        }
    }

    /// A pull that failed says so elsewhere.
    pub(crate) fn forget(&mut self, image: &str) {
        self.under_way.retain(|pull| pull.image != image);
    }

    /// A line for each pull, none longer than `width`.
    pub(crate) fn bars(&self, width: usize) -> Vec<String> {
        let names = self.under_way.iter().map(|pull| pull.image.chars().count()).max().unwrap_or(0);
        let line = |pull: &Pull| -> String {
            let text = format!("{:names$}  {}", pull.image, pull.state());
            text.chars().take(width.max(20)).collect()
        };
        self.under_way.iter().map(line).collect()
    }
}

impl Pull {
    fn blob(&mut self, digest: &str) -> &mut Blob {
        let index = match self.blobs.iter().position(|blob| blob.digest == digest) {
            Some(index) => index,
            None => {
                self.blobs.push(Blob { digest: digest.to_owned(), total: 0, done: 0, unpacking: false });
                self.blobs.len() - 1
            }
        };
        &mut self.blobs[index]
    }

    fn state(&self) -> String {
        let total: u64 = self.blobs.iter().map(|blob| blob.total).sum();
        let done: u64 = self.blobs.iter().map(|blob| blob.done.min(blob.total)).sum();
        if total == 0 {
            return "resolving".into();
        }
        if done == total && self.blobs.iter().any(|blob| blob.unpacking) {
            return format!("[{}] {} unpacking", "=".repeat(BAR), size(total));
        }
        let filled = usize::try_from(u128::from(done) * BAR as u128 / u128::from(total)).unwrap_or(BAR);
        let bar = if filled == BAR { "=".repeat(BAR) } else { format!("{}>", "=".repeat(filled)) };
        format!("[{bar:BAR$}] {} / {}", size(done), size(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(digest: &str, done: u64, total: u64) -> PullProgress {
        PullProgress::Layer { digest: digest.into(), total, done }
    }

    #[test]
    fn a_pull_from_beginning_to_end() {
        let mut pulls = Pulls::default();
        let resolving = PullProgress::Resolving { reference: "alpine".into(), registry: "docker.io".into() };
        assert_eq!(pulls.hear("alpine", resolving), Some(Said::Begun("pulling alpine from docker.io".into())));
        assert_eq!(pulls.bars(80), ["alpine  resolving"]);
        assert_eq!(pulls.hear("alpine", layer("a", 1_000_000, 4_000_000)), None);
        pulls.hear("alpine", layer("b", 0, 4_000_000));
        assert_eq!(pulls.bars(80), ["alpine  [===>                    ] 1MB / 8MB"]);
        assert_eq!(pulls.bars(24), ["alpine  [===>           "]);
        pulls.hear("alpine", layer("a", 4_000_000, 4_000_000));
        pulls.hear("alpine", layer("b", 4_000_000, 4_000_000));
        pulls.hear("alpine", PullProgress::Extracting { digest: "a".into() });
        assert_eq!(pulls.bars(80), ["alpine  [========================] 8MB unpacking"]);
        let done = PullProgress::Done { reference: "alpine".into(), digest: "d".into() };
        assert_eq!(pulls.hear("alpine", done), Some(Said::Done("pulled alpine (8MB)".into())));
        assert!(pulls.bars(80).is_empty());
    }

    #[test]
    fn bars_of_several_pulls_stand_below_each_other_until_one_fails() {
        let mut pulls = Pulls::default();
        pulls.hear("alpine", layer("a", 0, 10));
        pulls.hear("a/longer:name", layer("b", 10, 10));
        assert_eq!(
            pulls.bars(80),
            [
                "alpine         [>                       ] 0B / 10B",
                "a/longer:name  [========================] 10B / 10B"
            ]
        );
        pulls.forget("alpine");
        assert_eq!(pulls.bars(80).len(), 1);
    }
}
