#!/bin/sh
# Outrigger on a kernel that has cgroup v2 and nothing else: a virtual machine with Debian's own kernel.
#
#   cargo build -p outrigger && sudo benches/cgroup2/run.sh
#
# For machines that still have v1 mounted, where the v2 code meets fixtures only. Wants a Debian machine, root and 2 GB of
# disk; takes three minutes without KVM on a quiet machine. Everything comes from apt-get: qemu is installed, the kernel and
# the guest's programs (coreutils, dash, busybox) are only downloaded and unpacked, nothing of this machine's boot changes.
#
#   world/root    the packages, the outrigger binary, examples/, pods/ and inside.sh
#   world/disk    that as an ext4 image (mke2fs -d; no mount, no loop device)
#   world/initrd  busybox and the modules to find the disk
#
# In the guest /sbin/init is inside.sh, which says `ok` or `FAIL` per check and a verdict at the end; this script's exit
# code follows it. Nothing is shared with the guest and it has no network.
#
# Variables: OUTRIGGER (binary; default the newer of target/{debug,release}/outrigger), WORLD (default a fresh directory,
# removed at the end; a given one is kept, with its packages), ACCEL (tcg; kvm where it works), MINUTES (15),
# TESTS (test binaries to run in the guest as well, separated by spaces, as `cargo test --no-run` names them), FILES (what
# these look for, copied to the same absolute path in the guest),
# CONSOLE=1 (show the guest's console from its first line).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "$0: needs root (to unpack packages with their owners)" >&2; exit 1; }

binary=${OUTRIGGER:-$(ls -t "$repository"/target/debug/outrigger "$repository"/target/release/outrigger 2>/dev/null | head -n 1)}
[ -x "$binary" ] || { echo "$0: no outrigger binary: cargo build -p outrigger" >&2; exit 1; }
qemu=''
if [ -n "${WORLD:-}" ]; then
  world=$WORLD
  mkdir -p "$world"
  trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || :' EXIT
else
  world=$(mktemp -d)
  trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || :; rm -rf "$world"' EXIT
fi
trap 'exit 130' INT TERM

step() { echo "== $*"; }

step "packages"
missing=''
for need in qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs cpio:cpio depmod:kmod; do
  command -v "${need%%:*}" >/dev/null || missing="$missing ${need#*:}"
done
# shellcheck disable=SC2086 # a list
[ -z "$missing" ] || apt-get install -y -qq --no-install-recommends $missing >"$world/apt.log" 2>&1 || { cat "$world/apt.log"; exit 1; }
closure() {
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
    grep '^[a-z0-9]' | sort -u
}
if ! [ -e "$world/debs/complete" ]; then
  mkdir -p "$world/debs"
  image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
  # shellcheck disable=SC2046 # a list
  (cd "$world/debs" && apt-get download -qq -o APT::Sandbox::User=root "$image" busybox-static $(closure coreutils dash libgcc-s1))
  : >"$world/debs/complete"
fi

step "root file system"
rm -rf "$world/root" "$world/initrd.d"
mkdir -p "$world/root"
cd "$world/root"
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 dev etc proc sys tmp run var root
for merged in bin sbin lib lib64; do ln -s "usr/$merged" "$merged"; done
for deb in "$world"/debs/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -xf - --keep-directory-symlink --exclude=./usr/share
done
for applet in $(usr/bin/busybox --list); do
  [ -e "usr/bin/$applet" ] || [ -e "usr/sbin/$applet" ] || ln -s ../bin/busybox "usr/sbin/$applet"
done
ln -sf dash usr/bin/sh
mkdir -p etc/ssl/certs
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
echo 'root:x:0:' >etc/group
printf 'ID=debian\nVERSION_ID=guest\n' >etc/os-release
cp "$binary" usr/bin/outrigger
cp -r "$repository/examples" "$here/pods" root/
rm -f usr/sbin/init
cp "$here/inside.sh" usr/sbin/init
mkdir -p root/tests ".$repository/target/tmp"
for test in ${TESTS:-}; do cp "$test" root/tests/; done
for file in ${FILES:-}; do mkdir -p ".${file%/*}" && cp -r "$file" ".$file"; done
chmod 755 usr/sbin/init usr/bin/outrigger
version=$(ls usr/lib/modules)
mv boot/vmlinuz-* "$world/kernel"
rm -rf boot
depmod -b . "$version"
rm -f "$world/disk"
mke2fs -q -t ext4 -L root -d . "$world/disk" "${DISK:-1G}"

step "initramfs (Linux $version)"
mkdir -p "$world/initrd.d/modules"
cd "$world/initrd.d"
mkdir bin proc sys dev root
cp "$world/root/usr/bin/busybox" bin/
modules=$(modprobe -d "$world/root" -S "$version" -a --show-depends virtio_pci virtio_blk ext4 | sed -n 's/^insmod \([^ ]*\).*/\1/p')
number=10
for module in $modules; do
  cp "$module" "modules/$number-${module##*/}"
  number=$((number + 1))
done
cat >init <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod "$module" 2>/dev/null; done
tries=0
until [ -b /dev/vda ] || [ $tries = 50 ]; do /bin/busybox sleep 0.1; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox poweroff -f
/bin/busybox umount /proc
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
END
chmod 755 init
find . | cpio -o -H newc --quiet | gzip -1 >"$world/initrd"

step "boot (${ACCEL:-tcg})"
cd "$world"
: >console
from='^== inside'
[ -z "${CONSOLE:-}" ] || from='^'
timeout -k 5 "$((${MINUTES:-15} * 60))" qemu-system-x86_64 -accel "${ACCEL:-tcg}" -cpu max -smp 2 -m 1536 \
  -kernel kernel -initrd initrd -append "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on" \
  -drive file=disk,if=virtio,format=raw,cache=unsafe -nic none -nodefaults -display none -no-reboot \
  -serial file:console </dev/null &
qemu=$!
tail -n +1 -F --pid="$qemu" console 2>/dev/null |
  sed -un "s/\r//g; /$from/,\$p" || :
wait "$qemu" || :
qemu=''
if grep -q '^verdict: .* 0 failed' console; then exit 0; fi
grep -q '^verdict:' console || { echo "no verdict; the last the guest said:"; tail -n 20 console; }
exit 1
