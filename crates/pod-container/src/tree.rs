//! Mounts in the making: detached trees, made and changed by descriptor, then put in their place (Linux 5.2's mount
//! interface; mount_setattr(2) since 5.12).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::spec::Propagation;
use crate::sys::mount::{Attributes, set_attributes};

/// A mount that is nowhere yet. Dropped, it vanishes.
#[derive(Debug)]
pub(crate) struct Tree {
    fd: OwnedFd,
}

/// `nosuid nodev noexec`, for file systems that hold no programs and no devices.
pub(crate) fn inert() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// The longest string fsconfig(2) takes, without its end.
const LONGEST_OPTION: usize = 255;

impl Tree {
    /// A new file system. An empty value is a flag.
    pub(crate) fn new(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<Tree, Errno> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", kind)?;
        for (key, value) in options {
            if value.is_empty() {
                fsconfig_set_flag(&context, *key)?;
            } else {
                fsconfig_set_string(&context, *key, *value)?;
            }
        }
        Tree::mount(&context, attributes)
    }

    /// `lower` topmost first; `upper` is (upperdir, workdir).
    pub(crate) fn overlay(
        lower: &[&[u8]],
        upper: Option<(&[u8], &[u8])>,
        attributes: MountAttrFlags,
    ) -> Result<Tree, Errno> {
        match Tree::overlay_layer_by_layer(lower, upper, attributes) {
            // Before Linux 6.7 the whole list is one string, too short here for an image of many layers. 6.5 says so at
            // the first layer; those before it, whose overlay has the old interface, only when the mount is made.
            Err(Errno::INVAL) => Tree::overlay_in_one_page(lower, upper, attributes),
            outcome => outcome,
        }
    }

    fn overlay_layer_by_layer(
        lower: &[&[u8]],
        upper: Option<(&[u8], &[u8])>,
        attributes: MountAttrFlags,
    ) -> Result<Tree, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        // What was opened must live until the mount is made.
        let mut held = Vec::new();
        for path in lower {
            set_path(&context, "lowerdir+", path, &mut held)?;
        }
        if let Some((upper, work)) = upper {
            set_path(&context, "upperdir", upper, &mut held)?;
            set_path(&context, "workdir", work, &mut held)?;
            // The upper layer is thrown away with its attempt, so nothing in it needs to survive a crash of the machine;
            // and without this the kernel syncs the whole host file system each time a container ends.
            fsconfig_set_flag(&context, "volatile")?;
        }
        Tree::mount(&context, attributes)
    }

    /// The same through mount(2), whose options may fill a page. Descriptors stand for the paths, which makes room for
    /// some 220 layers and needs no escaping.
    pub(crate) fn overlay_in_one_page(
        lower: &[&[u8]],
        upper: Option<(&[u8], &[u8])>,
        attributes: MountAttrFlags,
    ) -> Result<Tree, Errno> {
        let mut held = Vec::new();
        let mut links = |path: &[u8]| -> Result<String, Errno> {
            let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let link = link(fd.as_fd());
            held.push(fd);
            Ok(link)
        };
        let lower_links = lower.iter().map(|path| links(path)).collect::<Result<Vec<_>, _>>()?.join(":");
        let options = match upper {
            None => format!("lowerdir={lower_links}"),
            Some((upper, work)) => {
                format!("volatile,upperdir={},workdir={},lowerdir={lower_links}", links(upper)?, links(work)?)
            }
        };
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        // mount(2) needs a place; any directory will do for this moment, nobody else sees this mount namespace.
        let place = *lower.first().ok_or(Errno::INVAL)?;
        rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), options.as_c_str())?;
        let tree = Tree::of_path(place, false);
        rustix::mount::unmount(place, UnmountFlags::DETACH)?;
        let tree = tree?;
        tree.set(attributes, false)?;
        Ok(tree)
    }

    fn mount(context: &OwnedFd, attributes: MountAttrFlags) -> Result<Tree, Errno> {
        fsconfig_create(context)?;
        Ok(Tree { fd: fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)? })
    }

    /// A bind of the place behind `fd`.
    pub(crate) fn of(fd: impl AsFd, recursive: bool) -> Result<Tree, Errno> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        Ok(Tree { fd: open_tree(fd, c"", flags)? })
    }

    /// A bind of a path of the current root.
    pub(crate) fn of_path(path: impl rustix::path::Arg, recursive: bool) -> Result<Tree, Errno> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        Ok(Tree { fd: open_tree(CWD, path, flags)? })
    }

    pub(crate) fn set(&self, flags: MountAttrFlags, recursive: bool) -> Result<(), Errno> {
        if flags.is_empty() { Ok(()) } else { set_attributes(&self.fd, recursive, Attributes::set(flags)) }
    }

    pub(crate) fn propagate(&self, propagation: Propagation) -> Result<(), Errno> {
        let propagation = match propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
        };
        set_attributes(&self.fd, true, Attributes { propagation, ..Attributes::default() })
    }

    /// Puts it on top of `name` in a directory. A link there is not followed, and no place for a mount.
    pub(crate) fn attach_at(self, parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
        move_mount(&self.fd, c"", parent, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(self.fd)
    }

    /// Puts it on top of the place behind `target`; the result is its root there.
    pub(crate) fn attach(self, target: impl AsFd) -> Result<OwnedFd, Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.fd, c"", target, c"", flags)?;
        Ok(self.fd)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The path that names what a descriptor holds.
pub(crate) fn link(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Sets an option to a path; a long one goes in as a descriptor of it.
fn set_path(context: &OwnedFd, key: &str, path: &[u8], held: &mut Vec<OwnedFd>) -> Result<(), Errno> {
    if path.len() <= LONGEST_OPTION {
        return fsconfig_set_string(context, key, path);
    }
    let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let outcome = fsconfig_set_string(context, key, link(fd.as_fd()));
    held.push(fd);
    outcome
}
