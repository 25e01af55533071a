//! The flags of kubectl's verbs, spelled as kubectl spells them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which server, and which of its namespaces.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Server {
    /// Context of the kubeconfig; the node's own otherwise.
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub(crate) context: Option<String>,
    /// Kubeconfig, instead of $KUBECONFIG and ~/.kube/config.
    #[arg(long, value_name = "FILE", help_heading = "Node")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, value_name = "NAMESPACE", help_heading = "Node")]
    pub(crate) namespace: Option<String>,
}

/// Manifests.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Files {
    /// Manifests: files, directories (their *.yaml, *.yml and *.json) or `-` for stdin. Repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub(crate) filenames: Vec<PathBuf>,
    /// Directories with all below them.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// Which objects of a kind.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Selectors {
    /// Only objects with these labels: a=b, a!=b, a, '!a', 'a in (b,c)'.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Only objects with these fields: status.phase=Running.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) field_selector: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    #[default]
    None,
    /// Ask nothing of the server but what is there.
    Client,
    /// The server checks everything and stores nothing.
    Server,
}

/// Create or change objects until they are as the manifests say.
///
/// What the manifests no longer have of what was applied last is removed; what others wrote stays. The same objects may be
/// applied with kubectl, before and after.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger apply -f pod.yaml
  outrigger apply -f manifests/ -R
  kubectl get pod web -o yaml | outrigger apply -f -
  outrigger apply -f pod.yaml --dry-run=server
  outrigger apply -f pod.yaml --server-side")]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Only the manifests' objects with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// The server merges and knows who owns which field.
    #[arg(long)]
    pub(crate) server_side: bool,
    /// With --server-side: take fields from who owns them.
    #[arg(long, requires = "server_side")]
    pub(crate) force_conflicts: bool,
    /// Who owns what is applied [default: kubectl-client-side-apply; with --server-side: kubectl].
    #[arg(long, value_name = "NAME")]
    pub(crate) field_manager: Option<String>,
    /// Only say what would happen.
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub(crate) dry_run: DryRun,
    /// Unknown fields: strict refuses them, warn says so, ignore says nothing.
    #[arg(long, value_name = "HOW", default_value = "strict", num_args = 0..=1, default_missing_value = "strict", require_equals = true,
          value_parser = ["strict", "true", "warn", "ignore", "false"])]
    pub(crate) validate: String,
    /// Print the objects: json, yaml, name.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<String>,
    /// Not supported: remove what is no longer in the manifests with `outrigger delete`.
    #[arg(long, hide = true)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// List objects.
///
/// Kinds go by all their names: pods, pod, po. `all` is all kinds that users make.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger get pods
  outrigger get pods -A -o wide
  outrigger get pod web -o yaml
  outrigger get pod/web service/web
  outrigger get pods -l app=web -w
  outrigger get pods -o jsonpath='{.items[*].metadata.name}'")]
pub(crate) struct Get {
    /// A kind (or several: pods,services), and names; or KIND/NAME.
    #[arg(value_name = "KIND|KIND/NAME")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) selectors: Selectors,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// wide, json, yaml, name, jsonpath=TEMPLATE, jsonpath-file=FILE.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<String>,
    /// Go on with changes as they come.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Only changes from now on.
    #[arg(long)]
    pub(crate) watch_only: bool,
    /// No line of column names.
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// One more column: all labels.
    #[arg(long)]
    pub(crate) show_labels: bool,
    /// One more column for each of these labels.
    #[arg(short = 'L', long, value_name = "LABEL", value_delimiter = ',')]
    pub(crate) label_columns: Vec<String>,
    /// Put the kind before each name.
    #[arg(long)]
    pub(crate) show_kind: bool,
    /// It is no error when a named object is not there.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    /// With json and yaml: also who owns which field.
    #[arg(long)]
    pub(crate) show_managed_fields: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Show objects with all their details and events.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger describe pod web
  outrigger describe pods -l app=web
  outrigger describe node")]
pub(crate) struct Describe {
    /// A kind and names, or beginnings of names; or KIND/NAME.
    #[arg(value_name = "KIND|KIND/NAME")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) files: Files,
    /// Only objects with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Also the events.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) show_events: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Delete objects, and wait until they are gone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger delete pod web
  outrigger delete -f pod.yaml
  outrigger delete pods -l app=web --now
  outrigger delete pod web --force")]
pub(crate) struct Delete {
    /// A kind and names; or KIND/NAME.
    #[arg(value_name = "KIND|KIND/NAME")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) selectors: Selectors,
    /// All of the kind.
    #[arg(long)]
    pub(crate) all: bool,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Seconds until what still runs is killed; -1 is the object's own.
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    pub(crate) grace_period: i64,
    /// A grace period of one second.
    #[arg(long)]
    pub(crate) now: bool,
    /// At once.
    #[arg(long)]
    pub(crate) force: bool,
    /// Until it is gone.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) wait: bool,
    /// How long to wait; 0s is as long as it takes.
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true)]
    pub(crate) timeout: String,
    /// It is no error when an object is not there.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    /// Only say what would happen.
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub(crate) dry_run: DryRun,
    /// What becomes of objects that this one owns.
    #[arg(long, value_name = "HOW", default_value = "background", num_args = 0..=1, default_missing_value = "background", require_equals = true,
          value_parser = ["background", "foreground", "orphan", "true", "false"])]
    pub(crate) cascade: String,
    /// name: print KIND/NAME.
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    pub(crate) output: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Run a command in a container.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger exec web -- date
  outrigger exec -it web -c proxy -- sh
  tar c . | outrigger exec -i web -- tar x -C /srv

The exit code is the command's.")]
pub(crate) struct Exec {
    /// POD, pod/NAME, or service/NAME for one of its pods.
    #[arg(value_name = "POD")]
    pub(crate) pod: String,
    /// The container; the first main one otherwise.
    #[arg(short, long, value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
    /// Pass stdin on.
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// stdin is a terminal.
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// Say nothing but what the command says.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) server: Server,
    /// The command and its arguments.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// Join a container's main process: its output, and with -i its input.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// POD, pod/NAME, or service/NAME for one of its pods.
    #[arg(value_name = "POD")]
    pub(crate) pod: String,
    /// The container; the first main one otherwise.
    #[arg(short, long, value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
    /// Pass stdin on.
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// stdin is a terminal.
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// Say nothing but what the process says.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Listen on ports here and carry connections to a pod.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger port-forward web 8080:80
  outrigger port-forward service/web 8080:http
  outrigger port-forward web :80             a free port here
  outrigger port-forward --address 0.0.0.0 web 8080:80")]
pub(crate) struct PortForward {
    /// POD, pod/NAME, or service/NAME.
    #[arg(value_name = "POD")]
    pub(crate) pod: String,
    /// THERE, or HERE:THERE; there also by its name.
    #[arg(value_name = "PORT", required = true)]
    pub(crate) ports: Vec<String>,
    /// Addresses to listen on.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    pub(crate) address: Vec<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Copy files and directories to or from a container. It needs `tar` in the container.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger cp ./site web:/srv/site
  outrigger cp web:/var/log/app.log app.log -c app
  outrigger cp other/web:/etc/hosts hosts     of the namespace other")]
pub(crate) struct Copy {
    /// A path here, or [NAMESPACE/]POD:PATH.
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// The other one.
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    /// The container; the first main one otherwise.
    #[arg(short, long, value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
    /// Leave owner and permissions as they come.
    #[arg(long)]
    pub(crate) no_preserve: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Wait until something is true of objects.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger wait --for=condition=Ready pod/web
  outrigger wait --for=delete pod/web --timeout=60s
  outrigger wait --for=jsonpath='{.status.phase}'=Running pods --all
  outrigger wait --for=create pod/web")]
pub(crate) struct Wait {
    /// A kind and names; or KIND/NAME.
    #[arg(value_name = "KIND|KIND/NAME")]
    pub(crate) words: Vec<String>,
    /// condition=NAME[=VALUE], jsonpath=PATH[=VALUE], delete or create.
    #[arg(long = "for", value_name = "WHAT")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) selectors: Selectors,
    /// All of the kind.
    #[arg(long)]
    pub(crate) all: bool,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// How long; 0 looks once, a negative one waits for a week.
    #[arg(long, value_name = "DURATION", default_value = "30s", allow_hyphen_values = true)]
    pub(crate) timeout: String,
    /// Print the objects: json, yaml, name.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Show what CPU and memory pods or the node use.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// pod or node.
    #[arg(value_name = "pod|node", value_parser = ["pod", "pods", "po", "node", "nodes", "no"])]
    pub(crate) what: String,
    /// Only this one.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Each container by itself.
    #[arg(long)]
    pub(crate) containers: bool,
    /// Only objects with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// The one that uses most comes first.
    #[arg(long, value_name = "COLUMN", value_parser = ["cpu", "memory"])]
    pub(crate) sort_by: Option<String>,
    /// No line of column names.
    #[arg(long)]
    pub(crate) no_headers: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// List events, oldest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outrigger events
  outrigger events --for pod/web -w
  outrigger events --types=Warning -A")]
pub(crate) struct Events {
    /// Of one object: KIND/NAME.
    #[arg(long = "for", value_name = "KIND/NAME")]
    pub(crate) object: Option<String>,
    /// Go on with new ones as they come.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only Normal or Warning.
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub(crate) types: Vec<String>,
    /// json or yaml.
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json", "yaml"])]
    pub(crate) output: Option<String>,
    /// No line of column names.
    #[arg(long)]
    pub(crate) no_headers: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}
