//! The synthetic root, entered.

use std::{fs, process::Command};

use pod_image::host_userland;

use crate::world::World;

#[test]
fn programs_of_the_host_run_and_its_people_are_not_seen() {
    let world = World::new();
    let root = host_userland(&world.path("host")).unwrap();
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(world.path(name)).unwrap();
    }
    let merged = world.path("merged");
    let mut script = format!(
        "mount -t overlay overlay -o 'lowerdir={},upperdir={},workdir={}' {merged}\n",
        root.lower.display(),
        world.path("upper").display(),
        world.path("work").display(),
        merged = merged.display(),
    );
    for (host, target) in &root.binds {
        let target = format!("{}{target}", merged.display());
        script += &format!("mount --rbind {} {target}\nmount -o remount,bind,ro {target}\n", host.display());
    }
    script += &format!(
        "exec chroot {} /usr/bin/env -i /bin/sh -ec '. /etc/profile; id -un; ls -A /root /home /var; \
         echo x > /tmp/f; if echo x > /usr/x; then exit 1; fi; wc -l < /etc/passwd; cat /etc/hosts'",
        merged.display()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-ec", &script]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out, "root\n/home:\n\n/root:\n\n/var:\ntmp\n2\n", "{err}");
}
