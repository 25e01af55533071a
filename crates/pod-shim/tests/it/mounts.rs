//! What a container sees of the file system, and what it must not.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pod_container::capability;
use pod_container::spec::*;
use pod_shim::client::StartError;

use crate::world::{World, world};

fn mount(source: MountSource, target: &str) -> Mount {
    Mount {
        source,
        target: target.into(),
        readonly: false,
        recursive_readonly: false,
        noexec: false,
        propagation: Propagation::Private,
    }
}

fn directory(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    std::fs::create_dir_all(&path).expect("directory");
    path
}

#[tokio::test]
async fn the_default_mounts_are_there() {
    let mut world = world!();
    let script = "for n in null zero full random urandom tty; do test -c /dev/$n || echo no $n; done
        for n in fd stdout ptmx; do readlink /dev/$n; done
        awk '{print $2, $3}' /proc/mounts | grep -vE '^(/proc|/sys|/dev)/.*(proc|cgroup|devtmpfs)$'
        touch /sys/x 2>&1; hostname; ls -A /sys/firmware; cat /proc/timer_list; echo 1 > /proc/sys/kernel/threads-max";
    let spec = world.spec("all", &format!("({script}) 2>&1; true"));
    let output = world.output_of("all", &spec).await;
    let expected = "/proc/self/fd\n/proc/self/fd/1\npts/ptmx\n/ overlay\n/proc proc\n/dev tmpfs\n/dev/pts devpts\n\
        /dev/mqueue mqueue\n/sys sysfs\n/sys/fs/cgroup tmpfs\n/sys/firmware tmpfs\n\
        touch: /sys/x: Read-only file system\npod\nsh: can't create /proc/sys/kernel/threads-max: Read-only file system\n";
    // A v1 machine shows a tmpfs with the trees in it, a v2 machine the one tree.
    let output = output.replace("/sys/fs/cgroup cgroup2\n", "/sys/fs/cgroup tmpfs\n");
    assert!(output.starts_with(expected), "{output}");
}

#[tokio::test]
async fn the_own_cgroup_is_shown() {
    let mut world = world!();
    let limits = pod_container::cgroup::Limits { memory_limit: Some(123 << 20), ..Default::default() };
    let script =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; touch /sys/fs/cgroup/x 2>&1";
    let spec = world.spec_with_limits("memory", &["sh", "-c", &format!("({script}) 2>&1 || true")], &limits);
    let output = world.output_of("memory", &spec).await;
    assert!(output.contains(&(123 << 20).to_string()) && output.contains("Read-only"), "{output}");
}

#[tokio::test]
async fn the_root_is_writable_or_not_and_never_the_image() {
    let mut world = world!();
    let spec = world.spec("rw", "echo new > /etc/passwd && cat /etc/passwd");
    assert_eq!(world.output_of("rw", &spec).await, "new\n");
    let image = std::fs::read_to_string(crate::world::busybox().join("etc/passwd")).expect("passwd");
    assert!(image.starts_with("root:"), "the image layer is untouched");

    let mut spec = world.spec("ro", "touch /x 2>&1; touch /dev/shm 2>&1; echo ok > /data/x && cat /data/x");
    spec.rootfs.readonly = true;
    spec.mounts = vec![mount(MountSource::Bind(directory(&world, "volume")), "/data")];
    let output = world.output_of("ro", &spec).await;
    assert_eq!(output, "touch: /x: Read-only file system\nok\n");
}

#[tokio::test]
async fn many_layers_stack_in_order() {
    let mut world = world!();
    let mut lower = Vec::new();
    for number in 0..60 {
        let layer = directory(&world, &format!("layer-{number:02}-{}", "x".repeat(60)));
        std::fs::write(layer.join("top"), number.to_string()).expect("file");
        std::fs::write(layer.join(format!("only-{number}")), "").expect("file");
        lower.insert(0, layer);
    }
    lower.push(crate::world::busybox().to_owned());
    let mut spec = world.spec("stack", "cat /top; ls / | grep -c only");
    spec.rootfs.lower = lower;
    assert_eq!(world.output_of("stack", &spec).await, "5960\n");
}

#[tokio::test]
async fn volumes_are_mounted_as_told() {
    let mut world = world!();
    let volume = directory(&world, "volume");
    let file = world.path("file");
    std::fs::write(&file, "from the host\n").expect("file");
    std::fs::copy("/bin/busybox", volume.join("busybox")).expect("copy");
    std::fs::create_dir(volume.join("sub")).expect("directory");
    let script = "
        echo a > /rw/a && cat /rw/a
        { echo b > /ro/b; } 2>/dev/null || echo read-only
        cat /etc/hosts /missing/deep/file
        /noexec/busybox true 2>/dev/null || echo no exec
        touch /scratch/x && stat -c %a /scratch && awk '$2==\"/scratch\" {print $4}' /proc/mounts | grep -o size=[0-9]*k
        cat /layers/top; touch /layers/x 2>/dev/null || echo read-only layers
        ls /below";
    let mut spec = world.spec("volumes", script);
    let layers: Vec<PathBuf> = ["upper", "lower"]
        .map(|name| {
            let layer = directory(&world, &format!("image-{name}"));
            std::fs::write(layer.join("top"), format!("{name}\n")).expect("file");
            layer
        })
        .into();
    std::fs::write(volume.join("sub/inner"), "").expect("file");
    let bind = || MountSource::Bind(volume.clone());
    spec.mounts = vec![
        mount(bind(), "/rw"),
        Mount { readonly: true, ..mount(bind(), "/ro") },
        mount(MountSource::Bind(file.clone()), "/etc/hosts"),
        mount(MountSource::Bind(file), "/missing/deep/file"),
        Mount { noexec: true, ..mount(bind(), "/noexec") },
        mount(MountSource::Tmpfs { size: Some(1 << 20), mode: 0o1777 }, "/scratch"),
        mount(MountSource::Layers(layers), "/layers"),
        mount(MountSource::BindBelow { root: volume.clone(), path: "sub".into() }, "/below"),
    ];
    let expected =
        "a\nread-only\nfrom the host\nfrom the host\nno exec\n1777\nsize=1024k\nupper\nread-only layers\ninner\n";
    assert_eq!(world.output_of("volumes", &spec).await, expected);
    assert_eq!(std::fs::read_to_string(volume.join("a")).expect("written"), "a\n");
}

#[tokio::test]
async fn mounts_made_in_the_sandbox_can_be_shared() {
    let mut sandbox = crate::world::sandbox();
    let shared = tempfile::tempdir().expect("temporary directory");
    let path = shared.path().join("shm");
    sandbox.tmpfs = vec![Tmpfs { path: path.clone(), size: Some(1 << 20), mode: 0o1777 }];
    let mut world = world!(sandbox);
    for (name, script) in [("writes", "echo hello > /dev/shm/x"), ("reads", "cat /dev/shm/x")] {
        let mut spec = world.spec(name, script);
        spec.mounts = vec![mount(MountSource::Bind(path.clone()), "/dev/shm")];
        assert_eq!(world.run(name, &spec).await.code, 0);
    }
    assert_eq!(world.log("reads"), "hello\n");
    assert_eq!(std::fs::read_dir(&path).expect("mount point").count(), 0, "the host sees nothing of it");
    let through =
        Path::new("/proc").join(world.shim.to_string()).join("root").join(path.strip_prefix("/").expect("absolute"));
    assert_eq!(std::fs::read_to_string(through.join("x")).expect("the engine does"), "hello\n");
}

#[tokio::test]
async fn recursive_read_only_reaches_submounts() {
    let mut sandbox = crate::world::sandbox();
    let volume = tempfile::tempdir().expect("temporary directory");
    sandbox.tmpfs = vec![Tmpfs { path: volume.path().join("inner"), size: None, mode: 0o777 }];
    let mut world = world!(sandbox);
    for (name, recursive_readonly, expected) in [("flat", false, "inner writable\n"), ("deep", true, "")] {
        let mut spec = world.spec(
            name,
            "touch /v/x 2>/dev/null && echo writable; touch /v/inner/x 2>/dev/null && echo inner writable; true",
        );
        let bind = MountSource::Bind(volume.path().into());
        spec.mounts = vec![Mount { readonly: true, recursive_readonly, ..mount(bind, "/v") }];
        assert_eq!(world.output_of(name, &spec).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_sub_path_never_leads_out_of_its_volume() {
    let mut world = world!();
    let volume = directory(&world, "volume");
    std::fs::create_dir(volume.join("real")).expect("directory");
    symlink("/etc", volume.join("absolute")).expect("link");
    symlink("../../../../etc", volume.join("upwards")).expect("link");
    symlink("real", volume.join("inside")).expect("link");
    symlink("/", volume.join("real/root")).expect("link");
    for (index, path) in
        ["absolute", "upwards", "real/root/etc", "..", "real/../../x", "absolute/new"].into_iter().enumerate()
    {
        let name = format!("bad{index}");
        let mut spec = world.spec(&name, "ls /v");
        spec.mounts = vec![mount(MountSource::BindBelow { root: volume.clone(), path: path.into() }, "/v")];
        let error = world.client().start(&name, 0, &spec).await.unwrap_err();
        assert!(
            matches!(&error, StartError::Create { message, .. } if message.contains("leads out of volume")),
            "{path}: {error}"
        );
    }
    for (name, path) in [("link", "inside"), ("made", "a/b/c")] {
        let mut spec = world.spec(name, "touch /v/here");
        spec.mounts = vec![mount(MountSource::BindBelow { root: volume.clone(), path: path.into() }, "/v")];
        world.output_of(name, &spec).await;
        assert!(volume.join(path).join("here").exists(), "{path}");
    }
}

#[tokio::test]
async fn links_in_the_image_cannot_move_a_mount_out() {
    let world = world!();
    let canary = directory(&world, "canary");
    let evil = directory(&world, "evil-layer");
    let up = format!("../../../../../..{}", canary.display());
    symlink(canary.to_str().expect("utf-8"), evil.join("absolute")).expect("link");
    symlink(up, evil.join("relative")).expect("link");
    symlink("/proc/self/root/../..", evil.join("magic")).expect("link");
    let volume = directory(&world, "volume");
    std::fs::write(volume.join("mounted"), "").expect("file");
    for (name, target) in [("absolute", "/absolute"), ("relative", "/relative/deep/er"), ("magic", "/magic/x")] {
        let mut spec = world.spec(name, "true");
        spec.rootfs.lower.insert(0, evil.clone());
        spec.mounts = vec![mount(MountSource::Bind(volume.clone()), target)];
        // Inside the root such a path may exist or not; outside nothing may happen.
        let _ = world.client().start(name, 0, &spec).await;
        assert_eq!(std::fs::read_dir(&canary).expect("canary").count(), 0, "{name}");
    }
    for link in ["proc", "sys", "dev"] {
        let layer = directory(&world, &format!("layer-{link}"));
        symlink("/etc", layer.join(link)).expect("link");
        let mut spec = world.spec(&format!("link-{link}"), "true");
        spec.rootfs.lower.insert(0, layer);
        let error = world.client().start(&format!("link-{link}"), 0, &spec).await.unwrap_err();
        assert!(error.to_string().contains(&format!("failed to mount /{link}")), "{error}");
    }
}

#[tokio::test]
async fn nothing_may_cover_the_root() {
    let world = world!();
    for (name, target) in [("plain", "/"), ("dots", "/tmp/../."), ("link", "/link")] {
        let mut spec = world.spec(name, "true");
        let layer = directory(&world, "layer");
        let _ = symlink("/", layer.join("link"));
        spec.rootfs.lower.insert(0, layer);
        spec.mounts = vec![mount(MountSource::Bind(directory(&world, "volume")), target)];
        let error = world.client().start(name, 0, &spec).await.unwrap_err();
        assert!(error.to_string().contains("it is the root itself"), "{error}");
    }
}

#[tokio::test]
async fn nothing_may_cover_proc() {
    let world = world!();
    for (name, target) in [("top", "/proc"), ("below", "/proc/sys/kernel"), ("link", "/link")] {
        let mut spec = world.spec(name, "true");
        let layer = directory(&world, "layer");
        let _ = symlink("/proc/self", layer.join("link"));
        spec.rootfs.lower.insert(0, layer);
        spec.mounts = vec![mount(MountSource::Bind(directory(&world, "volume")), target)];
        let error = world.client().start(name, 0, &spec).await.unwrap_err();
        assert!(error.to_string().contains("it is inside /proc"), "{error}");
    }
}

#[tokio::test]
async fn a_privileged_container_sees_the_devices() {
    let mut world = world!();
    let mut spec = world
        .spec("privileged", "test -c /dev/kmsg && touch /dev/x && mount | grep -c '^sysfs on /sys type sysfs (rw'");
    spec.privileged = true;
    spec.masked_paths.clear();
    spec.readonly_paths.clear();
    spec.process.capabilities = Capabilities { bounding: capability::ALL, permitted: capability::ALL };
    assert_eq!(world.output_of("privileged", &spec).await, "1\n");
}

#[tokio::test]
async fn mounts_propagate_as_told() {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
    let world = world!();
    let volume = directory(&world, "volume");
    directory(&world, "volume/from-host");
    directory(&world, "volume/from-container");
    let error = {
        let mut spec = world.spec("unshared", "true");
        let bind = MountSource::Bind(volume.clone());
        spec.mounts = vec![Mount { propagation: Propagation::Shared, ..mount(bind, "/v") }];
        world.client().start("unshared", 0, &spec).await.unwrap_err().to_string()
    };
    assert!(error.contains("it is not a shared mount"), "{error}");

    // The one thing these tests do to the host's mounts; undone below.
    mount_bind(&volume, &volume).expect("bind");
    mount_change(&volume, MountPropagationFlags::SHARED).expect("shared");
    let undo = Undo(volume.clone());
    // A shim made now, so that its copy of the mount is a slave of the shared one.
    let mut world = World::new(crate::world::sandbox()).await;
    let waits = "while ! test -e /v/from-host/x; do sleep 0.01; done; echo seen";
    let makes = "mount -t tmpfs none /v/from-container && touch /v/from-container/y && echo made; sleep 1000";
    for (name, script, propagation) in [("slave", waits, Propagation::Slave), ("shared", makes, Propagation::Shared)] {
        let mut spec = world.spec(name, script);
        let bind = MountSource::Bind(volume.clone());
        spec.mounts = vec![Mount { propagation, ..mount(bind, "/v") }];
        spec.process.capabilities = Capabilities { bounding: capability::ALL, permitted: capability::ALL };
        world.client().start(name, 0, &spec).await.expect("start");
    }
    crate::world::eventually("the mount comes out", || volume.join("from-container/y").exists()).await;
    let inner = volume.join("from-host");
    rustix::mount::mount("none", &inner, "tmpfs", rustix::mount::MountFlags::empty(), None).expect("tmpfs");
    std::fs::write(inner.join("x"), "").expect("file");
    assert_eq!(world.exit_of("slave").await.code, 0);
    world.client().signal("shared", 0, 9).await.expect("signal");
    world.exit_of("shared").await;
    drop(undo);

    struct Undo(PathBuf);
    impl Drop for Undo {
        fn drop(&mut self) {
            for path in [self.0.join("from-host"), self.0.join("from-container"), self.0.clone()] {
                let _ = unmount(&path, UnmountFlags::DETACH);
            }
        }
    }
}
