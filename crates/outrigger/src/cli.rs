//! The command line: verbs, flags and their help. The reference page is printed from these types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::kube::arguments as kube;

/// Free on most machines: not those of Docker, podman, k3s or kubeadm.
const POD_CIDR: &str = "10.89.0.0/16";

const EXIT_CODES: &str = "\
Exit codes:
  0    everything asked for was done; run: every pod Succeeded
  1    the command failed; run --detach: a pod cannot start
  2    wrong arguments, or a manifest with problems; nothing was created
  125  run: the engine failed (no permission, no cgroup controller, ...)
  130  run: ended by Ctrl-C (128 + the signal's number)
  run in the foreground otherwise ends with the pod's own code: that of its
  first main container that failed; of several pods, the first that is not 0.

Files:
  /var/lib/outrigger      images, volumes, writable layers
  /var/log/outrigger      containers' logs
  /run/outrigger          what is known of running pods
  With --root DIR they are DIR/lib, DIR/log and DIR/run.";

/// Run Kubernetes pods with their sidecars on this machine: no cluster, no Docker, no virtual machine.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, after_long_help = EXIT_CODES, max_term_width = 100)]
#[command(disable_help_subcommand = true, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Keep all state below this directory instead of the system's places. Pods of one root do not see those of
    /// another.
    #[arg(long, global = true, value_name = "DIR", env = "OUTRIGGER_ROOT", hide_env_values = true)]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(Run),
    Ps(Ps),
    Logs(Logs),
    Down(Down),
    Plan(Plan),
    Image(Image),
    Start(Start),
    Stop(Stop),
    Status(Status),
    Apply(kube::Apply),
    Get(kube::Get),
    Describe(kube::Describe),
    Delete(kube::Delete),
    Exec(kube::Exec),
    Attach(kube::Attach),
    #[command(name = "port-forward")]
    PortForward(kube::PortForward),
    #[command(name = "cp")]
    Copy(kube::Copy),
    Wait(kube::Wait),
    Top(kube::Top),
    Events(kube::Events),
    Cleanup(Cleanup),
    Version(Version),
    /// The background engine of `run --detach`.
    #[command(name = "__engine", hide = true)]
    Engine(Engine),
    /// The process behind `start`.
    #[command(name = "__node", hide = true)]
    Node(Node),
    /// This reference, as Markdown.
    #[command(name = "__reference", hide = true)]
    Reference,
}

/// Run the pods of the manifests, in the foreground unless --detach.
///
/// Pods, workloads (their pod template is run once), ConfigMaps and Secrets may stand in any number of YAML or JSON
/// files, also several to a file. The terminal shows each container's output under its name. Ctrl-C stops the pods as a
/// cluster would: mains first, then sidecars in reverse order, within the grace period; a second Ctrl-C kills them at
/// once.
///
/// A pod of that name that runs already gets the changed manifest: only containers that differ are replaced, and the
/// terminal follows it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger run pod.yaml                   run it here; Ctrl-C stops it
  outrigger run -f pod.yaml -f config.yaml several files
  kubectl get pod web -o yaml | outrigger run -
  outrigger run --detach pod.yaml          run it in the background
  outrigger run --offline pod.yaml         no registry in reach
  outrigger run --adopt web                take over a pod whose engine died")]
pub(crate) struct Run {
    /// Manifests: files, directories (their *.yaml, *.yml and *.json) or `-` for stdin.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The same, as kubectl spells it.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) filenames: Vec<PathBuf>,
    /// Return when all containers run; a background engine keeps the pods.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Ask no registry. An image that is not in the store is stood in for by this machine's own programs (its /usr,
    /// read-only).
    #[arg(long, env = "OUTRIGGER_OFFLINE", hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) offline: bool,
    /// Replace every container of a pod that runs already, not only those whose manifest changed.
    #[arg(long)]
    pub(crate) recreate: bool,
    /// At most so many processes and threads in each pod that is new (a kubelet's podPidsLimit; no limit without it).
    #[arg(long, value_name = "N", env = "OUTRIGGER_PIDS_LIMIT", hide_env_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pids_limit: Option<u64>,
    /// Take over a pod whose engine died, as it stands. Repeatable.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["files", "filenames", "recreate"])]
    pub(crate) adopt: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    #[command(flatten)]
    pub(crate) network: PodNetwork,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PodNetwork {
    /// Pods' addresses; taken when the engine starts.
    #[arg(long, value_name = "CIDR", default_value = POD_CIDR, env = "OUTRIGGER_POD_CIDR", hide_env_values = true)]
    pub(crate) pod_cidr: ipnet::Ipv4Net,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Namespace {
    /// Namespace of pods that name none.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
}

/// List pods.
///
/// The columns are those of `kubectl get pods`. Pods that have ended stay listed, with their logs, until `down` or the
/// next `run` of their name.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Only this namespace; all of them otherwise.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Show the namespace of every pod.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Pods that have ended are always listed; understood because docker has it.
    #[arg(short = 'a', long, hide = true)]
    pub(crate) all: bool,
    /// Another form of the list.
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// More columns.
    Wide,
    /// A Kubernetes List of Pods with their status.
    Json,
}

/// Print a container's log.
///
/// Of the node's pod of that name, if a node runs and has it; otherwise of the pod that `run` started.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger logs web                       the first main container
  outrigger logs web -c proxy -f           follow the sidecar's
  outrigger logs web -c proxy --previous   of the run before the last restart
  outrigger logs web --all-containers --prefix --since 10m
  outrigger logs -l app=web -f --prefix    of all pods of the node with that label")]
pub(crate) struct Logs {
    /// The pod's name.
    #[arg(value_name = "POD", required_unless_present = "selector", conflicts_with = "selector")]
    pub(crate) pod: Option<String>,
    /// The container; the first main one otherwise.
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    pub(crate) positional_container: Option<String>,
    /// The same, as a flag.
    #[arg(short, long, value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
    /// Go on until the container ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The run before the last restart.
    #[arg(short, long, conflicts_with = "follow")]
    pub(crate) previous: bool,
    /// Only the last lines; -1 is all [default: -1; with -l: 10].
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    pub(crate) tail: Option<i64>,
    /// Only what is newer than a duration: 90s, 5m, 2h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<String>,
    /// Only what is newer than a time (RFC 3339).
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    pub(crate) since_time: Option<jiff::Timestamp>,
    /// Put the time in front of each line.
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// Every container of the pod.
    #[arg(long, conflicts_with_all = ["container", "positional_container"])]
    pub(crate) all_containers: bool,
    /// Put [pod/NAME/CONTAINER] in front of each line.
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Of all pods of the node with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// With -l and -f: at most so many logs at once.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) max_log_requests: usize,
    #[command(flatten)]
    pub(crate) server: kube::Server,
}

/// Stop pods and remove what they left: in order, within their grace period.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger down web
  outrigger down pod.yaml                  every pod the file names
  outrigger down web --force               at once
  outrigger down --all --grace-period 5")]
pub(crate) struct Down {
    /// Pods, or manifests that name them.
    #[arg(value_name = "NAME|FILE", required_unless_present_any = ["all", "filenames"])]
    pub(crate) targets: Vec<String>,
    /// A manifest that names pods, as kubectl spells it.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) filenames: Vec<PathBuf>,
    /// Every pod of this root; with -n, of the namespace.
    #[arg(long, conflicts_with_all = ["targets", "filenames"])]
    pub(crate) all: bool,
    /// Kill at once: no hooks, no grace.
    #[arg(long)]
    pub(crate) force: bool,
    /// Seconds until what still runs is killed, instead of the pod's own.
    #[arg(long, value_name = "SECONDS", conflicts_with = "force")]
    pub(crate) grace_period: Option<u64>,
    /// It is no error when a pod is not there.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    /// Namespace of pods that name none.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) network: PodNetwork,
}

/// Start a node that serves the Kubernetes API, in the background.
///
/// The unmodified kubectl works with it: its context is put into the kubeconfig and made the current one. Pods, and
/// everything else that is created, stay when the node is stopped or dies.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger start
  kubectl apply -f pod.yaml
  outrigger start --offline --port 7000
  outrigger start --no-kubeconfig          kubectl is told otherwise")]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) api: Api,
    /// The port alone; 0 picks a free one.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The kubeconfig to write, instead of the first of $KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE", conflicts_with = "no_kubeconfig")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Write no kubeconfig.
    #[arg(long)]
    pub(crate) no_kubeconfig: bool,
    /// Leave the current context as it is.
    #[arg(long)]
    pub(crate) keep_context: bool,
    #[command(flatten)]
    pub(crate) network: PodNetwork,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Api {
    /// Address and port of the API, on the loopback.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6550")]
    pub(crate) listen: std::net::SocketAddr,
    /// Ask no registry. An image that is not in the store is stood in for by this machine's own programs (its /usr,
    /// read-only).
    #[arg(long, env = "OUTRIGGER_OFFLINE", hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) offline: bool,
    /// At most so many processes and threads in each pod that is new (a kubelet's podPidsLimit; no limit without it).
    #[arg(long, value_name = "N", env = "OUTRIGGER_PIDS_LIMIT", hide_env_values = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pids_limit: Option<u64>,
    /// Services' addresses. [default: 10.96.0.0/16; with --root one of 10.112.0.0/12 that is the root's own]
    #[arg(long, value_name = "CIDR", env = "OUTRIGGER_SERVICE_CIDR", hide_env_values = true)]
    pub(crate) service_cidr: Option<ipnet::Ipv4Net>,
}

/// Stop the node and its pods.
///
/// Pods are stopped as a deletion would, within their grace period, but their objects stay: the next `start` starts them
/// again by their restart policy, as after a reboot of the machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger stop
  outrigger stop --keep-pods               upgrade the program under running pods
  outrigger stop --clean                   as if it had never been started")]
pub(crate) struct Stop {
    /// Leave the pods running; the next `start` takes them over as they are.
    #[arg(long, conflicts_with = "clean")]
    pub(crate) keep_pods: bool,
    /// Also remove every object, the certificates, and the node's entries in the kubeconfig.
    #[arg(long)]
    pub(crate) clean: bool,
    #[command(flatten)]
    pub(crate) network: PodNetwork,
}

/// Tell whether the node runs, where, and what it takes. Ends with 3 if it does not run.
#[derive(Debug, Args)]
pub(crate) struct Status {}

#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(flatten)]
    pub(crate) api: Api,
    #[command(flatten)]
    pub(crate) network: PodNetwork,
}

/// Show what would happen: the resolved pod, and its start and stop order with times. Nothing is created.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Manifests: files, directories or `-` for stdin.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The same, as kubectl spells it.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) filenames: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

/// Fetch, make, keep and remove images.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Fetch images from their registries.
    Pull(ImagePull),
    /// Read images from a file: docker-archive (`docker save`), OCI layout (directory or tar), or a plain root file
    /// system.
    Import(ImageImport),
    /// Make an image of files of this machine, without Docker.
    Pack(ImagePack),
    /// Send an image to a registry.
    Push(ImagePush),
    /// Write images to a file that `image import` and `docker load` read (OCI layout).
    Save(ImageSave),
    /// List the images in the store.
    #[command(visible_alias = "ls")]
    List(ImageList),
    /// Remove images from the store.
    #[command(visible_alias = "rm")]
    Remove(ImageRemove),
}

#[derive(Debug, Args)]
pub(crate) struct ImagePull {
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  docker save alpine | outrigger image import -
  outrigger image import alpine.tar
  outrigger image import rootfs.tar.gz local/base:1")]
pub(crate) struct ImageImport {
    /// The archive or directory; `-` for stdin.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name instead of the archive's own; needed where it has none, as with a plain root file system.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// The archive is a plain root file system, whatever it looks like.
    #[arg(long)]
    pub(crate) rootfs: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger image pack local/tool:1 --add ./tool:/tool --entrypoint /tool
  outrigger image pack local/site:1 --base busybox --add ./public:/srv --cmd httpd --cmd -f")]
pub(crate) struct ImagePack {
    /// Name of the new image.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Put a file or directory of this machine at a path of the image. Repeatable.
    #[arg(long, value_name = "FILE:PATH")]
    pub(crate) add: Vec<String>,
    /// An image of the store to build upon.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base: Option<String>,
    /// Add this machine's CA certificates, so that TLS clients work.
    #[arg(long)]
    pub(crate) ca_bundle: bool,
    /// Add /etc/passwd and /etc/group with root, nonroot (65532) and nobody, and an empty /tmp.
    #[arg(long)]
    pub(crate) users: bool,
    /// One word of the program and its first arguments. Repeatable.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) entrypoint: Vec<String>,
    /// One word of the default arguments. Repeatable.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) cmd: Vec<String>,
    /// An environment variable. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User and group the program runs as.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Directory the program starts in.
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// A port the program listens on: 8080 or 53/udp. Repeatable.
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(crate) expose: Vec<String>,
    /// A label. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePush {
    /// An image of the store.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Its name at the registry, if another one.
    #[arg(value_name = "TO")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageSave {
    /// Images of the store.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// The file; `-` is stdout.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImageList {
    /// Only names (REPOSITORY:TAG).
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageRemove {
    /// Names of images.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// Remove what a power cut or a killed engine left: dead pods' files, cgroups, links, rules. What runs is left alone.
#[derive(Debug, Args)]
pub(crate) struct Cleanup {
    #[command(flatten)]
    pub(crate) network: PodNetwork,
}

/// Print the version.
#[derive(Debug, Args)]
pub(crate) struct Version {}

#[derive(Debug, Args)]
pub(crate) struct Engine {
    #[command(flatten)]
    pub(crate) network: PodNetwork,
}
