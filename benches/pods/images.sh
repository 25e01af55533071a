#!/bin/sh
# A root file system with the busybox of this machine (package busybox-static), as a tar on stdout: what both engines
# run in the comparison, since no registry is needed for it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/bin" "$dir/etc" "$dir/tmp" "$dir/var/log" "$dir/root" "$dir/proc" "$dir/sys" "$dir/dev"
cp /bin/busybox "$dir/bin/busybox"
for applet in $("$dir/bin/busybox" --list); do
  [ "$applet" = busybox ] || ln -sf busybox "$dir/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' > "$dir/etc/passwd"
echo 'root:x:0:' > "$dir/etc/group"
tar -C "$dir" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - .
