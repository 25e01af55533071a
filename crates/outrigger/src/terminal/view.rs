//! An engine's messages as lines on the screen.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use k8s_openapi::api::core::v1::PodStatus;
use pod_engine::{Message, News};
use pod_image::PullProgress;

use crate::hint;
use crate::narrate::{self, Line, Tone};
use crate::terminal::label::{Labels, PodKey};
use crate::terminal::progress::{Direction, Pulls, Said};
use crate::terminal::screen::{Screen, Stream};
use crate::terminal::style::Style;

/// What is known of the pods on the screen, and the screen.
#[derive(Debug)]
pub(crate) struct View<O, E> {
    screen: Screen<O, E>,
    labels: Labels,
    statuses: BTreeMap<PodKey, PodStatus>,
    /// The last event told of a pod or container: one that repeats is told once.
    events: BTreeMap<(PodKey, Option<String>), String>,
    /// Each is given once.
    hints: BTreeSet<&'static str>,
    pulls: Pulls,
    /// The end was asked for.
    stopping: bool,
    /// Columns for progress bars; `None` where bars cannot be drawn.
    bars: Option<usize>,
}

pub(crate) type Terminal = View<io::Stdout, io::Stderr>;

/// The process's own streams.
pub(crate) fn terminal() -> Terminal {
    let (out, err) = (io::stdout(), io::stderr());
    let (out_style, err_style) = (Style::of(&out), Style::of(&err));
    let tty = |stream: &dyn std::os::fd::AsFd| rustix::termios::isatty(stream.as_fd());
    let shared = tty(&out) && tty(&err);
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    let bars = (tty(&err) && !dumb).then(|| {
        let columns = rustix::termios::tcgetwinsize(&err).map_or(80, |size| usize::from(size.ws_col));
        if columns == 0 { 80 } else { columns - 1 }
    });
    View::new(Screen::new((out, out_style), (err, err_style), shared), bars)
}

// === impl View ===

impl<O: Write, E: Write> View<O, E> {
    pub(crate) fn new(screen: Screen<O, E>, bars: Option<usize>) -> Self {
        Self {
            screen,
            labels: Labels::default(),
            statuses: BTreeMap::new(),
            events: BTreeMap::new(),
            hints: BTreeSet::new(),
            pulls: Pulls::default(),
            stopping: false,
            bars,
        }
    }

    /// A pod that will be heard of, so that all names are one width from the first line on.
    pub(crate) fn expect(&mut self, pod: PodKey, containers: Vec<String>) {
        self.labels.set(pod, containers);
    }

    /// What is known already: only changes to it are told.
    pub(crate) fn know(&mut self, pod: PodKey, status: PodStatus) {
        self.statuses.insert(pod, status);
    }

    pub(crate) fn hear(&mut self, message: Message) -> io::Result<()> {
        let pod = (message.namespace, message.name);
        match message.news {
            News::Accepted { containers, .. } => self.labels.set(pod, containers),
            News::Status(status) => {
                let lines = narrate::changes(self.statuses.get(&pod), &status);
                self.forget_failed_pulls(&status);
                let hints = hints(&status);
                self.statuses.insert(pod.clone(), *status);
                let expected = |line: &Line| self.stopping && line.container.is_none() && line.tone == Tone::Bad;
                for line in lines.into_iter().filter(|line| !expected(line)).collect::<Vec<_>>() {
                    self.line(&pod, &line)?;
                }
                hints.into_iter().try_for_each(|hint| self.hint(hint))?;
            }
            News::Notice(notice) => {
                if let Some(line) = narrate::event(&notice) {
                    let key = (pod.clone(), line.container.clone());
                    if self.events.get(&key) != Some(&line.text) {
                        self.line(&pod, &line)?;
                        self.events.insert(key, line.text);
                    }
                }
                hint::of_waiting(&notice.reason, &notice.message).map_or(Ok(()), |hint| self.hint(hint))?;
            }
            News::Pull { image, progress, .. } => {
                if let Some(text) = self.transfer(&image, progress)? {
                    self.line(&pod, &Line::pod(Tone::Quiet, text))?;
                }
            }
            News::Trouble(text) => self.line(&pod, &Line::pod(Tone::Notable, format!("warning: {text}")))?,
            // How it ended was told by the status.
            News::Finished { .. } | News::Ended => {}
            News::Removed => self.line(&pod, &Line::pod(Tone::Quiet, "removed"))?,
        }
        Ok(())
    }

    /// Moves an image's bar; what is worth a line is returned.
    pub(crate) fn transfer(&mut self, image: &str, progress: PullProgress) -> io::Result<Option<String>> {
        let said = self.pulls.hear(image, progress);
        self.redraw()?;
        Ok(match (said, self.bars) {
            (Some(Said::Done(text)), _) | (Some(Said::Begun(text)), None) => Some(text),
            _ => None,
        })
    }

    /// The transfer of an image failed, or the words are to be another direction's.
    pub(crate) fn transfers(&mut self, direction: Direction) -> io::Result<()> {
        self.pulls = Pulls::new(direction);
        self.redraw()
    }

    /// A piece of a container's output.
    pub(crate) fn output(
        &mut self,
        pod: &PodKey,
        container: &str,
        stream: Stream,
        text: &[u8],
        ends: bool,
    ) -> io::Result<()> {
        let label = self.labels.container(pod, container);
        self.screen.output(&label, stream, text, ends)
    }

    pub(crate) fn line(&mut self, pod: &PodKey, line: &Line) -> io::Result<()> {
        let who = match &line.container {
            Some(container) => self.labels.container(pod, container).text,
            None => self.labels.pod(pod),
        };
        self.say(line.tone, &format!("{who} * {}", line.text))
    }

    /// For a command whose whole purpose is that pods end.
    pub(crate) fn expecting_ends(mut self) -> Self {
        self.stopping = true;
        self
    }

    /// A person asked for the end: pods that "fail" by it do what they were told.
    pub(crate) fn stopping(&mut self, text: &str) -> io::Result<()> {
        self.stopping = true;
        self.say(Tone::Notable, text)
    }

    /// A line about no pod.
    pub(crate) fn say(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        let style = self.screen.err_style();
        let painted = match tone {
            Tone::Quiet => style.quiet(text),
            Tone::Notable => style.notable(text),
            Tone::Bad => style.bad(text),
        };
        self.screen.say(&painted)?;
        self.redraw()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.redraw()?;
        self.screen.flush()
    }

    fn hint(&mut self, hint: &'static str) -> io::Result<()> {
        if self.hints.insert(hint) { self.say(Tone::Quiet, &format!("hint: {hint}")) } else { Ok(()) }
    }

    fn redraw(&mut self) -> io::Result<()> {
        match self.bars {
            Some(width) => self.screen.show_bars(self.pulls.bars(width)),
            None => Ok(()),
        }
    }

    fn forget_failed_pulls(&mut self, status: &PodStatus) {
        let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        for container in all {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            if waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("ErrImagePull")) {
                self.pulls.forget(&container.image);
            }
        }
    }
}

/// What a person can do about containers that wait.
fn hints(status: &PodStatus) -> Vec<&'static str> {
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waiting = all.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let hint = |waiting: &k8s_openapi::api::core::v1::ContainerStateWaiting| {
        hint::of_waiting(waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default())
    };
    waiting.filter_map(hint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(bars: Option<usize>) -> View<Vec<u8>, Vec<u8>> {
        let screen = Screen::new((Vec::new(), Style::PLAIN), (Vec::new(), Style::PLAIN), bars.is_some());
        let mut view = View::new(screen, bars);
        view.expect(key(), vec!["app".into(), "proxy".into()]);
        view
    }

    fn key() -> PodKey {
        ("default".into(), "web".into())
    }

    fn hear(view: &mut View<Vec<u8>, Vec<u8>>, news: News) {
        view.hear(Message { namespace: "default".into(), name: "web".into(), news }).expect("memory takes it");
    }

    fn status(reason: &str) -> News {
        let status = json!({"phase": "Pending", "containerStatuses": [
            {"name": "app", "image": "alpine", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": reason, "message": "refused"}}}]});
        News::Status(serde_json::from_value(status).expect("a status"))
    }

    fn pull(done: u64) -> News {
        let progress = PullProgress::Layer { digest: "a".into(), total: 4, done };
        News::Pull { container: "app".into(), image: "alpine".into(), progress }
    }

    #[test]
    fn output_and_state_read_as_one_story() {
        let mut view = view(None);
        let resolving = PullProgress::Resolving { reference: "alpine".into(), registry: "docker.io".into() };
        hear(&mut view, News::Pull { container: "app".into(), image: "alpine".into(), progress: resolving });
        let done = PullProgress::Done { reference: "alpine".into(), digest: "d".into() };
        hear(&mut view, News::Pull { container: "app".into(), image: "alpine".into(), progress: done });
        view.output(&key(), "app", Stream::Out, b"hello", true).expect("memory takes it");
        hear(&mut view, News::Trouble("the disk is slow".into()));
        hear(&mut view, News::Removed);
        let (out, err) = view.screen.into_writers();
        assert_eq!(String::from_utf8_lossy(&out), "app   | hello\n");
        let expected = "\
pod/web * pulling alpine from docker.io
pod/web * pulled alpine (0B)
pod/web * warning: the disk is slow
pod/web * removed
";
        assert_eq!(String::from_utf8_lossy(&err), expected);
    }

    #[test]
    fn a_failed_pull_takes_its_bar_away() {
        let mut view = view(Some(80));
        hear(&mut view, pull(1));
        hear(&mut view, status("ErrImagePull"));
        hear(&mut view, status("ErrImagePull"));
        let (_, err) = view.screen.into_writers();
        let expected = "alpine  [======>                 ] 1B / 4B\n\x1b[1F\x1b[0Japp   * ErrImagePull: refused\n\
            hint: without a registry in reach use --offline, or bring the image: outrigger image import FILE\n";
        assert_eq!(String::from_utf8_lossy(&err), expected);
    }
}
