//! `outrigger image`: the store, as docker users know it.

mod list;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use pod_engine::Roots;
use pod_image::{
    Credentials, ImportOptions, ImportSource, PackSpec, PullOptions, PullProgress, PushOptions, Reference, Registries,
    Store,
};
use tokio::sync::mpsc::unbounded_channel;

use crate::cli::{Global, ImageImport, ImageList, ImagePack, ImagePull, ImagePush, ImageRemove, ImageSave, ImageVerb};
use crate::exit::{self, Coded, FAILED, USAGE, usage};
use crate::host;
use crate::manifest;
use crate::narrate::Tone;
use crate::stdout::print;
use crate::terminal::progress::Direction;
use crate::terminal::view::{Terminal, terminal};

pub(crate) fn run(global: &Global, verb: ImageVerb) -> anyhow::Result<u8> {
    let roots = host::roots(global);
    let store = Store::open(&roots.images())?;
    match verb {
        ImageVerb::Pull(arguments) => pull(&store, &arguments),
        ImageVerb::Import(arguments) => import(&store, &arguments),
        ImageVerb::Pack(arguments) => pack(&store, arguments),
        ImageVerb::Push(arguments) => push(&store, &arguments),
        ImageVerb::Save(arguments) => save(&store, &arguments),
        ImageVerb::List(arguments) => list(&store, &arguments),
        ImageVerb::Remove(arguments) => remove(&store, &roots, &arguments),
    }
}

fn pull(store: &Store, arguments: &ImagePull) -> anyhow::Result<u8> {
    let images = arguments.images.iter().map(|name| reference(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let options = PullOptions {
        auth: Credentials::load()?,
        registries: Registries::load(store.root())?,
        ..PullOptions::default()
    };
    for image in &images {
        let pulled =
            show(Direction::Pull, image, async |progress| pod_image::pull(store, image, &options, progress).await)?;
        pulled.map_err(|error| with_hint(error.hint(), error))?;
        print(format!("{image}\n"))?;
    }
    Ok(exit::OK)
}

fn push(store: &Store, arguments: &ImagePush) -> anyhow::Result<u8> {
    let source = reference(&arguments.image)?;
    let destination = arguments.to.as_deref().map_or_else(|| Ok(source.clone()), reference)?;
    let options = PushOptions {
        auth: Credentials::load()?,
        registries: Registries::load(store.root())?,
        ..PushOptions::default()
    };
    let pushed = show(Direction::Push, &destination, async |progress| {
        pod_image::push(store, &source, &destination, &options, progress).await
    })?;
    let digest = pushed.map_err(|error| with_hint(error.hint(), error))?;
    print(format!("{destination}@{digest}\n"))?;
    Ok(exit::OK)
}

/// Runs a transfer with its progress on the terminal.
fn show<T>(
    direction: Direction,
    image: &Reference,
    transfer: impl AsyncFnOnce(&dyn pod_image::Progress) -> T,
) -> anyhow::Result<T> {
    let name = image.familiar();
    host::block_on(async {
        let mut view = terminal();
        // How the terminal takes it, here and below, is no matter of the transfer's.
        let _ = view.transfers(direction);
        let (sender, mut receiver) = unbounded_channel::<PullProgress>();
        let progress = move |news| {
            // The receiver lives as long as the transfer.
            let _ = sender.send(news);
        };
        let transfer = transfer(&progress);
        tokio::pin!(transfer);
        let result = loop {
            tokio::select! {
                biased;
                Some(news) = receiver.recv() => { let _ = hear(&mut view, &name, news); }
                result = &mut transfer => break result,
            }
        };
        while let Ok(news) = receiver.try_recv() {
            let _ = hear(&mut view, &name, news);
        }
        // A failed transfer leaves no bar.
        let _ = view.transfers(direction);
        result
    })
}

fn hear(view: &mut Terminal, name: &str, news: PullProgress) -> io::Result<()> {
    match view.transfer(name, news)? {
        Some(text) => view.say(Tone::Quiet, &text),
        None => Ok(()),
    }
}

fn import(store: &Store, arguments: &ImageImport) -> anyhow::Result<u8> {
    let name = arguments.image.as_deref().map(reference).transpose()?;
    let options = ImportOptions { name, rootfs: arguments.rootfs, ..ImportOptions::default() };
    let source = if arguments.file.as_os_str() == "-" {
        ImportSource::Stream(Box::new(io::stdin().lock()))
    } else {
        ImportSource::Path(&arguments.file)
    };
    let images = pod_image::import(store, source, &options)
        .with_context(|| format!("failed to import `{}`", arguments.file.display()))?;
    for image in images {
        for name in &image.names {
            print(format!("{name}\n"))?;
        }
    }
    Ok(exit::OK)
}

fn pack(store: &Store, arguments: ImagePack) -> anyhow::Result<u8> {
    let name = reference(&arguments.image)?;
    let files = arguments.add.iter().map(|pair| file(pair)).collect::<anyhow::Result<Vec<_>>>()?;
    let pairs = |flag: &'static str, texts: &[String]| -> anyhow::Result<Vec<(String, String)>> {
        texts.iter().map(|text| pair(flag, text)).collect()
    };
    let spec = PackSpec {
        files,
        entrypoint: arguments.entrypoint,
        cmd: arguments.cmd,
        env: pairs("--env", &arguments.env)?,
        user: arguments.user.unwrap_or_default(),
        working_dir: arguments.workdir.unwrap_or_default(),
        labels: pairs("--label", &arguments.label)?.into_iter().collect(),
        exposed_ports: arguments.expose,
        base: arguments.base.as_deref().map(reference).transpose()?,
        ca_bundle: arguments.ca_bundle,
        users: arguments.users,
        ..PackSpec::new(name.clone())
    };
    let image = pod_image::pack(store, &spec).with_context(|| format!("failed to pack `{name}`"))?;
    print(format!("{name} {}\n", list::short_id(&image.id)))?;
    Ok(exit::OK)
}

fn save(store: &Store, arguments: &ImageSave) -> anyhow::Result<u8> {
    use std::io::IsTerminal as _;
    let images = arguments.images.iter().map(|name| reference(name)).collect::<anyhow::Result<Vec<_>>>()?;
    if arguments.output.as_os_str() != "-" {
        let output = File::create(&arguments.output);
        let output = output.with_context(|| format!("failed to write `{}`", arguments.output.display()))?;
        pod_image::export(store, &images, io::BufWriter::new(output))?;
    } else if io::stdout().is_terminal() {
        return Err(usage("an image is not for a terminal: name a file with -o, or redirect stdout"));
    } else {
        pod_image::export(store, &images, io::stdout().lock())?;
    }
    Ok(exit::OK)
}

fn list(store: &Store, arguments: &ImageList) -> anyhow::Result<u8> {
    let images = store.list()?;
    print(if arguments.quiet { list::names(&images) } else { list::table(&images) })?;
    Ok(exit::OK)
}

fn remove(store: &Store, roots: &Roots, arguments: &ImageRemove) -> anyhow::Result<u8> {
    for image in &arguments.images {
        for name in store.remove(image)? {
            print(format!("removed {name}\n"))?;
        }
    }
    // Layers under running containers must stay, and which those are only their engines know.
    let pods = manifest::known(roots)?;
    if pods.iter().any(|pod| !matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"))) {
        eprintln!("pods are running: the space is freed by the next `image remove` without them");
        return Ok(exit::OK);
    }
    let report = store.gc(&[])?;
    if report.busy {
        eprintln!("images are being added: the space is freed by the next `image remove`");
    } else if report.freed > 0 {
        eprintln!("freed {}", crate::table::size(report.freed));
    }
    Ok(exit::OK)
}

fn reference(name: &str) -> anyhow::Result<Reference> {
    name.parse().map_err(|error: pod_image::ParseReferenceError| Coded::new(USAGE, error).into())
}

/// `FILE:PATH`; the path is what follows the last colon that a `/` follows.
fn file(text: &str) -> anyhow::Result<(PathBuf, String)> {
    match text.rfind(":/") {
        Some(colon) if colon > 0 => Ok((PathBuf::from(&text[..colon]), text[colon + 1..].to_owned())),
        _ => Err(usage(format!("--add: `{text}` is not FILE:/PATH"))),
    }
}

fn pair(flag: &'static str, text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(usage(format!("{flag}: `{text}` is not NAME=VALUE"))),
    }
}

fn with_hint(hint: Option<String>, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let coded = Coded::new(FAILED, error);
    match hint {
        Some(hint) => coded.hint(hint).into(),
        None => coded.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_on_the_command_line() {
        assert_eq!(file("./tool:/bin/tool").expect("valid"), ("./tool".into(), "/bin/tool".into()));
        assert_eq!(file("a:b:/c").expect("valid"), ("a:b".into(), "/c".into()));
        assert!(file("tool").is_err());
        assert!(file(":/bin/tool").is_err());
        assert_eq!(pair("--env", "A=b=c").expect("valid"), ("A".into(), "b=c".into()));
        assert!(pair("--env", "=x").is_err());
    }
}
