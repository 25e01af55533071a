//! `outrigger attach`: this terminal joined with a container's main process.

use pod_client::query::Query;
use pod_client::stream::remote::Ended;

use super::arguments::Attach;
use super::exec::{Streams, failed, wants_terminal};
use super::value;
use super::{Node, Outcome, pod};
use crate::cli::Global;
use crate::{exit, stdout};

pub(crate) fn run(global: &Global, arguments: &Attach) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { attach(&node, arguments).await.map_err(|trouble| vec![trouble]) })
}

async fn attach(node: &Node, arguments: &Attach) -> Outcome<u8> {
    let pod = pod::find(node, &arguments.pod).await?.pod;
    pod::require_alive(&pod, "attach")?;
    let container = pod::container(&pod, arguments.container.as_deref(), arguments.quiet)?;
    let name = value::text(container, "name").to_owned();
    // Whether there is a terminal was decided when the container started.
    let there = value::is_true(container, "tty");
    if arguments.tty && !there && !arguments.quiet {
        eprintln!("error: Unable to use a TTY - container {name} did not allocate one");
    }
    let tty = wants_terminal(arguments.stdin, there, arguments.quiet);
    if !arguments.quiet {
        eprintln!(
            "All commands and output from this session will be recorded in container logs, including credentials and sensitive \
             information passed through the command prompt."
        );
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let query = Query::new(pod::path(&pod, "attach")).with("container", &name);
    let streams = Streams { stdin: arguments.stdin, tty };
    match streams.join(node, query, u16::from(tty)).await? {
        Ended::Success | Ended::Lost => {}
        ended => return Err(failed(ended)),
    }
    if !arguments.quiet && tty && value::text(&pod, "spec.restartPolicy") == "Always" {
        let again = format!("outrigger attach {} -c {name} -i -t", value::name(&pod));
        let said = match pod::is_ephemeral(&pod, &name) {
            true => format!(
                "Session ended, the ephemeral container will not be restarted but may be reattached using '{again}' if it is \
                 still running\n"
            ),
            false => format!("Session ended, resume using '{again}' command when the pod is running\n"),
        };
        stdout::print(said)?;
    }
    Ok(exit::OK)
}
