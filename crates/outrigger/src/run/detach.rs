//! Pods handed to the background engine; the command returns when they run, or when they cannot.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use pod_engine::control::{Reply, Request, ask};
use pod_engine::{Message, News, Roots, record};

use super::Work;
use super::outlook::{self, Outlook};
use crate::background;
use crate::exit::{self, Coded, ENGINE};
use crate::hint;
use crate::host;
use crate::manifest;
use crate::narrate::Tone;
use crate::terminal::label::PodKey;
use crate::terminal::view::{Terminal, terminal};

/// An engine may end just when it is asked; the next one is not that unlucky.
const TRIES: usize = 5;

pub(crate) fn run(roots: &Roots, pod_cidr: ipnet::Ipv4Net, work: Work, notes: &[String]) -> anyhow::Result<u8> {
    let mut view = terminal();
    for note in notes {
        // A terminal that is gone must not keep the pods from starting.
        let _ = view.say(Tone::Quiet, note);
    }
    let mut hand = Hand::new(view, &work);
    let mut conversations = conversations(roots, work);
    host::block_on(async {
        while let Some((socket, request)) = conversations.pop() {
            hand.over(roots, pod_cidr, socket, request).await?;
        }
        Ok(hand.code)
    })?
}

/// A request for each engine: `None` is the background engine's.
fn conversations(roots: &Roots, work: Work) -> Vec<(Option<PathBuf>, Request)> {
    match work {
        Work::Adopt(pods) => {
            let pods = pods.iter().map(|pod| manifest::key(&pod.record.pod)).collect();
            vec![(None, Request::Adopt { pods })]
        }
        Work::Run(requests) => {
            let mut by_engine: BTreeMap<Option<PathBuf>, Vec<_>> = BTreeMap::new();
            for request in requests {
                let known = record::find(roots, request.namespace(), request.name()).ok().flatten();
                let owner = known.filter(|known| known.owned).and_then(|known| known.owner);
                let owner = owner.filter(|owner| *owner != roots.socket());
                by_engine.entry(owner).or_default().push(request);
            }
            by_engine.into_iter().rev().map(|(socket, pods)| (socket, Request::Run { pods })).collect()
        }
    }
}

/// The pods that are not up yet, and what was said so far.
struct Hand {
    view: Terminal,
    specs: BTreeMap<PodKey, k8s_openapi::api::core::v1::PodSpec>,
    waiting: Vec<PodKey>,
    code: u8,
}

impl Hand {
    fn new(view: Terminal, work: &Work) -> Self {
        let pods: Vec<_> = match work {
            Work::Run(requests) => requests.iter().map(|request| request.pod.clone()).collect(),
            Work::Adopt(pods) => pods.iter().map(|pod| pod.record.pod.clone()).collect(),
        };
        let mut hand = Self { view, specs: BTreeMap::new(), waiting: Vec::new(), code: exit::OK };
        for pod in pods {
            let key = manifest::key(&pod);
            hand.view.expect(key.clone(), manifest::containers(&pod));
            hand.waiting.push(key.clone());
            hand.specs.insert(key, pod.spec.unwrap_or_default());
        }
        hand
    }

    async fn over(
        &mut self,
        roots: &Roots,
        pod_cidr: ipnet::Ipv4Net,
        socket: Option<PathBuf>,
        request: Request,
    ) -> anyhow::Result<()> {
        let mine: Vec<PodKey> = match &request {
            Request::Run { pods } => pods.iter().map(|request| manifest::key(&request.pod)).collect(),
            Request::Adopt { pods } | Request::Watch { pods } | Request::Stop { pods, .. } => pods.clone(),
        };
        for _ in 0..TRIES {
            // Asked at once: mostly an engine listens, and looking first would cost a connection.
            let replies = match ask(socket.as_deref().unwrap_or(&roots.socket()), &request).await {
                Err(_) if socket.is_none() => {
                    background::ensure(roots, pod_cidr)?;
                    ask(&roots.socket(), &request).await
                }
                other => other,
            };
            let Ok(mut replies) = replies else { continue };
            let mut any = false;
            while mine.iter().any(|key| self.waiting.contains(key)) {
                match replies.next().await {
                    Ok(Some(reply)) => self.hear(reply),
                    Ok(None) | Err(_) => break,
                }
                any = true;
            }
            if any {
                return self.check_heard_of(&mine);
            }
        }
        Err(Coded::new(ENGINE, anyhow::anyhow!("the background engine does not answer")).into())
    }

    fn check_heard_of(&self, mine: &[PodKey]) -> anyhow::Result<()> {
        match mine.iter().find(|key| self.waiting.contains(key)) {
            None => Ok(()),
            Some(key) => {
                let error = anyhow::anyhow!("the engine died while pod {}/{} was starting", key.0, key.1);
                Err(Coded::new(ENGINE, error).into())
            }
        }
    }

    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::News(message) => self.hear_news(message),
            Reply::Refused { namespace, name, message } => {
                self.fail(&(namespace, name), None, "Refused", &message, ENGINE);
            }
            Reply::End => {}
        }
    }

    fn hear_news(&mut self, message: Message) {
        let key = (message.namespace.clone(), message.name.clone());
        if !self.waiting.contains(&key) {
            return;
        }
        let outlook = match &message.news {
            News::Status(status) => match self.specs.get(&key) {
                Some(spec) => outlook::of_status(spec, status),
                None => Outlook::Coming,
            },
            News::Notice(notice) => outlook::of_notice(notice),
            News::Removed => {
                let message = "it was stopped while it was starting".to_owned();
                Outlook::Broken { container: None, reason: "Removed".into(), message }
            }
            _ => Outlook::Coming,
        };
        let phase = match &message.news {
            News::Status(status) => status.phase.clone(),
            _ => None,
        };
        // States are what `ps` is for; what needs a person's eye is said here, and a failure below.
        if outlook == Outlook::Coming && !matches!(message.news, News::Status(_)) {
            let _ = self.view.hear(message).and_then(|()| self.view.flush());
        }
        match outlook {
            Outlook::Coming => {}
            Outlook::Up => {
                self.waiting.retain(|other| *other != key);
                let word = if phase.as_deref() == Some("Succeeded") { "completed" } else { "running" };
                // Data of this command; who does not read it has the exit code.
                let _ = writeln!(io::stdout(), "pod/{} {word}", key.1);
            }
            Outlook::Broken { container, reason, message } => {
                self.fail(&key, container.as_deref(), &reason, &message, exit::FAILED);
            }
        }
    }

    /// Says why a pod does not come up. Its engine goes on trying.
    fn fail(&mut self, key: &PodKey, container: Option<&str>, reason: &str, message: &str, code: u8) {
        self.waiting.retain(|other| other != key);
        let text = failure(&key.1, container, reason, message);
        let _ = self.view.say(Tone::Bad, &text);
        if let Some(hint) = hint::of_failure(reason, message) {
            let hint = hint.replace("POD", &key.1).replace("CONTAINER", container.unwrap_or("CONTAINER"));
            let _ = self.view.say(Tone::Quiet, &format!("hint: {hint}"));
        }
        if self.code == exit::OK {
            self.code = code;
        }
    }
}

/// `error: pod/web, container app: ErrImagePull: refused`
fn failure(pod: &str, container: Option<&str>, reason: &str, message: &str) -> String {
    let mut text = format!("error: pod/{pod}");
    if let Some(container) = container {
        text.push_str(&format!(", container {container}"));
    }
    for part in [reason, message] {
        if !part.is_empty() {
            text.push_str(&format!(": {part}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(
            failure("web", Some("app"), "ErrImagePull", "refused"),
            "error: pod/web, container app: ErrImagePull: refused"
        );
        assert_eq!(failure("web", None, "FailedMount", ""), "error: pod/web: FailedMount");
    }
}
