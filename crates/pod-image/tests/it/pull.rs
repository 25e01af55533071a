//! Registries that say no, lines that break, contents that are wrong.

use std::{
    fs,
    net::TcpListener,
    sync::{Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use pod_image::{
    Compression, Credentials, PullError, PullOptions, PullProgress, PushOptions, Registries, RegistryConfig,
    RegistryError, Silent, Store, pull, push,
};

use crate::{
    registry::{BadLine, Registry},
    world::{World, noise, reference, run},
};

fn registry_error(error: PullError) -> RegistryError {
    match error {
        PullError::Registry(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_registry_with_a_password_wants_it() {
    let (source, registry) = (World::new(), Registry::with_password());
    let name = registry.name("team/app:1");
    source.pack(&name, b"text", Compression::Gzip);
    let host = registry.name("");
    let host = host.trim_end_matches('/');
    let denied = run(push(&source.store, &reference(&name), &reference(&name), &PushOptions::default(), &Silent));
    let denied = denied.unwrap_err();
    assert!(denied.to_string().contains("denied"), "{denied:?}");
    let auth = Credentials::basic(host, "user", "secret");
    let options = PushOptions { auth: auth.clone(), ..PushOptions::default() };
    run(push(&source.store, &reference(&name), &reference(&name), &options, &Silent)).unwrap();

    let target = World::new();
    let with = |auth: Credentials| target.pull_with(&name, &PullOptions { auth, ..PullOptions::default() });
    let error = registry_error(with(Credentials::default()).unwrap_err());
    assert!(matches!(error, RegistryError::Unauthorized { logged_in: false, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("docker login"));
    let error = registry_error(with(Credentials::basic(host, "user", "wrong")).unwrap_err());
    assert!(matches!(error, RegistryError::Unauthorized { logged_in: true, .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong"));
    let helper = format!(r#"{{"credHelpers": {{"{host}": "vault"}}}}"#);
    let error = registry_error(with(Credentials::parse(helper.as_bytes()).unwrap()).unwrap_err());
    assert!(matches!(&error, RegistryError::CredentialHelper { helper, .. } if helper == "vault"), "{error:?}");
    assert_eq!(target.counts(), [0, 0, 0, 0]);

    // Of several secrets, the one that works.
    let mut several = Credentials::basic(host, "user", "old");
    several.extend(auth);
    assert_eq!(with(several).unwrap().config.cmd, ["/data"]);
}

#[test]
fn failures_are_told_apart() {
    let registry = Registry::start();
    let world = World::new();
    let error = registry_error(world.pull(&registry.name("no/such:tag")).unwrap_err());
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("no/such:tag") && error.to_string().contains("manifest unknown"));

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = registry_error(world.pull(&format!("127.0.0.1:{port}/app")).unwrap_err());
    assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("nothing listens"));

    let error = registry_error(world.pull("registry.invalid/app").unwrap_err());
    assert!(matches!(error, RegistryError::NoSuchHost { .. }), "{error:?}");

    let error = registry_error(world.pull("localhost/outrigger/logs:1").unwrap_err());
    assert!(matches!(error, RegistryError::Builtin(_)), "{error:?}");
    assert_eq!(world.counts(), [0, 0, 0, 0]);
}

#[test]
fn what_is_here_is_not_transferred_again() {
    let (source, target, registry) = (World::new(), World::new(), Registry::start());
    let line = BadLine::to(registry.port, u64::MAX, false);
    source.pack(&registry.name("app:1"), &noise(300_000), Compression::Gzip);
    source.push(&registry.name("app:1"));
    let name = format!("127.0.0.1:{}/app:1", line.port);

    let events = Mutex::new(Vec::new());
    let watch = |event: PullProgress| events.lock().unwrap().push(event);
    let image = run(pull(&target.store, &reference(&name), &PullOptions::default(), &watch)).unwrap();
    let events = events.into_inner().unwrap();
    assert!(matches!(&events[0], PullProgress::Resolving { reference, .. } if *reference == name));
    assert!(events.iter().any(|event| matches!(event, PullProgress::Extracting { .. })));
    assert!(
        events
            .iter()
            .any(|event| matches!(event, PullProgress::Layer { total, done, .. } if total == done && *done > 300_000))
    );
    assert!(matches!(events.last().unwrap(), PullProgress::Done { digest, .. } if *digest == image.digest.to_string()));
    let json = serde_json::to_string(&events).unwrap();
    assert_eq!(serde_json::from_str::<Vec<PullProgress>>(&json).unwrap(), events);

    let passed = line.passed.swap(0, Ordering::SeqCst);
    assert!(passed > 300_000);
    assert_eq!(target.pull(&name).unwrap(), image);
    assert!(line.passed.load(Ordering::SeqCst) < 10_000);
    // Pushing back what the registry has costs as little.
    target.push(&name);
    assert!(line.passed.load(Ordering::SeqCst) < 20_000);
}

#[test]
fn a_download_that_breaks_is_taken_up_where_it_was() {
    let (source, target, registry) = (World::new(), World::new(), Registry::start());
    source.pack(&registry.name("app:1"), &noise(2_000_000), Compression::Gzip);
    source.push(&registry.name("app:1"));
    let line = BadLine::to(registry.port, 350_000, false);
    let image = target.pull(&format!("127.0.0.1:{}/app:1", line.port)).unwrap();
    assert_eq!(fs::read(image.layers[0].join("data")).unwrap(), noise(2_000_000));
    let passed = line.passed.load(Ordering::SeqCst);
    assert!((2_000_000..2_700_000).contains(&passed), "{passed}: cut pieces must not be fetched twice");
    assert_eq!(target.counts(), [3, 1, 0, 0]);
}

#[test]
fn a_dropped_pull_leaves_no_image_and_is_resumed() {
    let (source, target, registry) = (World::new(), World::new(), Registry::start());
    source.pack(&registry.name("app:1"), &noise(2_000_000), Compression::Gzip);
    source.push(&registry.name("app:1"));
    let line = BadLine::to(registry.port, 1_000_000, true);
    let name = format!("127.0.0.1:{}/app:1", line.port);
    run(async {
        let options = PullOptions::default();
        let (name, started) = (reference(&name), Instant::now());
        let mut pulling = Box::pin(pull(&target.store, &name, &options, &Silent));
        let partial = || {
            let entries = fs::read_dir(target.store.root().join("ingest")).unwrap();
            entries.map(|entry| entry.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum::<u64>()
        };
        while partial() < 900_000 {
            assert!(started.elapsed() < Duration::from_secs(20));
            let slice = tokio::time::timeout(Duration::from_millis(20), &mut pulling).await;
            assert!(slice.is_err(), "the line stalls: {slice:?}");
        }
        drop(pulling);
    });
    assert_eq!(target.store.lookup(&reference(&name)).unwrap(), None);
    // The config is here, and the beginning of the layer.
    assert_eq!(target.counts(), [1, 0, 1, 0]);

    line.limit.store(u64::MAX, Ordering::SeqCst);
    line.passed.store(0, Ordering::SeqCst);
    // As after a crash.
    let again = Store::open(target.store.root()).unwrap();
    run(pull(&again, &reference(&name), &PullOptions::default(), &Silent)).unwrap();
    assert_eq!(target.counts(), [3, 1, 0, 0]);
    let passed = line.passed.load(Ordering::SeqCst);
    assert!(passed < 1_400_000, "{passed}: only the rest is fetched");
}

#[test]
fn wrong_content_is_refused_and_nothing_stays() {
    let (source, registry) = (World::new(), Registry::start());
    let name = registry.name("app:1");
    let image = source.pack(&name, &noise(100_000), Compression::Gzip);
    source.push(&name);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(source.store.root().join("blobs/sha256").join(image.digest.hex())).unwrap())
            .unwrap();
    let hex = |value: &serde_json::Value| value["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();

    // Some bytes, the length, the config: each has its own check.
    for (blob, damage) in [
        (hex(&manifest["layers"][0]), Box::new(|bytes: &mut Vec<u8>| bytes[5000] ^= 1) as Box<dyn Fn(&mut Vec<u8>)>),
        (hex(&manifest["layers"][0]), Box::new(|bytes: &mut Vec<u8>| bytes.extend(b"more"))),
        (hex(&manifest["config"]), Box::new(|bytes: &mut Vec<u8>| bytes[20] ^= 1)),
    ] {
        let path = registry.blob(&blob);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        damage(&mut bad);
        fs::write(&path, bad).unwrap();
        let target = World::new();
        let error = registry_error(target.pull(&name).unwrap_err());
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
        assert_eq!(target.counts(), [0, 0, 0, 0]);
        fs::write(&path, good).unwrap();
        // Nothing is remembered against it.
        target.pull(&name).unwrap();
    }
}

#[test]
fn several_processes_may_pull_the_same_at_once() {
    let (source, target, registry) = (World::new(), World::new(), Registry::start());
    let line = BadLine::to(registry.port, u64::MAX, false);
    source.pack(&registry.name("app:1"), &noise(3_000_000), Compression::Gzip);
    source.push(&registry.name("app:1"));
    let name = format!("127.0.0.1:{}/app:1", line.port);
    let images: Vec<_> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3)
            .map(|_| {
                let store = Store::open(target.store.root()).unwrap();
                let name = reference(&name);
                scope.spawn(move || run(pull(&store, &name, &PullOptions::default(), &Silent)).unwrap())
            })
            .collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(images.iter().all(|image| *image == images[0]));
    assert!(line.passed.load(Ordering::SeqCst) < 4_000_000, "downloaded once");
    assert_eq!(target.counts(), [3, 1, 0, 0]);
}

#[test]
fn mirrors_stand_in_for_a_registry_that_is_not_there() {
    let (source, target, registry) = (World::new(), World::new(), Registry::start());
    let pushed = registry.name("hub/library/alpine:3");
    source.pack(&pushed, b"text", Compression::Zstd);
    source.push(&pushed);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mirrors = vec![format!("http://127.0.0.1:{dead}"), format!("http://127.0.0.1:{}/hub", registry.port)];
    let config = RegistryConfig { mirrors, ..RegistryConfig::default() };
    let registries = Registries { registries: [("docker.io".to_owned(), config)].into() };
    let json = serde_json::to_vec(&registries).unwrap();
    fs::write(target.store.root().join("registries.json"), json).unwrap();
    let registries = Registries::load(target.store.root()).unwrap();
    let image = target.pull_with("alpine:3", &PullOptions { registries, ..PullOptions::default() }).unwrap();
    assert_eq!(image.names, ["docker.io/library/alpine:3"]);
    assert!(target.store.lookup(&reference("alpine:3")).unwrap().is_some());
}

#[test]
fn certificates_are_checked_and_a_private_authority_can_be_trusted() {
    let (source, target, registry) = (World::new(), World::new(), Registry::with_tls());
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/app:1");
    source.pack(&name, b"text", Compression::Gzip);
    // Loopback would be plain HTTP; as its own mirror the registry is asked by HTTPS.
    let with = |ca: Option<std::path::PathBuf>, insecure: bool| {
        let config = RegistryConfig { mirrors: vec![format!("https://{host}")], insecure, ca };
        let registries = Registries { registries: [("quay.io".to_owned(), config)].into() };
        target.pull_with("quay.io/app:1", &PullOptions { registries, ..PullOptions::default() })
    };
    let copy = format!("oci-archive:{}", source.path("app.tar").display());
    let file = fs::File::create(source.path("app.tar")).unwrap();
    pod_image::export(&source.store, &[reference(&name)], file).unwrap();
    crate::interop::skopeo(&["copy", "--dest-tls-verify=false", &copy, &format!("docker://{name}")]);

    assert_eq!(with(Some(registry.certificate()), false).unwrap().config.cmd, ["/data"]);
    assert!(with(None, true).is_ok());
    // Without either the mirror is not believed.
    let config = RegistryConfig { mirrors: vec![format!("https://{host}")], ..RegistryConfig::default() };
    let registries = Registries { registries: [("registry.invalid".to_owned(), config)].into() };
    let options = PullOptions { registries, ..PullOptions::default() };
    let events = Mutex::new(Vec::new());
    let watch = |event: PullProgress| events.lock().unwrap().push(event);
    let untrusted = run(pull(&target.store, &reference("registry.invalid/app:1"), &options, &watch)).unwrap_err();
    assert!(matches!(registry_error(untrusted), RegistryError::NoSuchHost { .. }));
    let told = events.into_inner().unwrap().into_iter().find_map(|event| match event {
        PullProgress::MirrorFailed { message, .. } => Some(message),
        _ => None,
    });
    let told = told.unwrap();
    assert!(told.starts_with(&format!("no secure connection to registry `{host}`")), "{told}");
}

/// A file system of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> SmallDisk {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "outrigger-test"]).arg(directory.path());
        assert!(mount.status().unwrap().success(), "mounting needs root");
        SmallDisk(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    let (source, registry) = (World::new(), Registry::start());
    let name = registry.name("app:1");
    source.pack(&name, &noise(1_000_000), Compression::Gzip);
    source.push(&name);
    // Too small for the download; then for that and the unpacked layer.
    for size in ["600k", "1500k"] {
        let disk = SmallDisk::mount(size);
        let store = Store::open(disk.0.path()).unwrap();
        let error = run(pull(&store, &reference(&name), &PullOptions::default(), &Silent)).unwrap_err();
        assert!(matches!(error, PullError::DiskFull { .. }), "{error:?}");
        assert!(error.hint().is_some());
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(fs::read_dir(disk.0.path().join("staging")).unwrap().count(), 0);
    }
}
