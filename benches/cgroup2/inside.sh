#!/bin/sh
# The guest's half of run.sh, as /sbin/init: the first process mounts what a machine has, the second checks.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export PATH HOME

if [ $$ = 1 ]; then
  mount -t proc proc /proc
  mount -t sysfs sys /sys
  mount -t devtmpfs dev /dev 2>/dev/null
  mkdir -p /dev/pts /dev/shm
  mount -t devpts -o gid=5,mode=620 devpts /dev/pts
  mount -t tmpfs tmpfs /run
  mount -t tmpfs tmpfs /tmp
  mount -t tracefs tracing /sys/kernel/tracing
  # As Debian's systemd does.
  mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
  exec </dev/console >/dev/console 2>&1
  "$0" &
  # Also collects every orphan of the machine.
  wait $!
  poweroff -f
fi

T=/sys/fs/cgroup
TRACE=/sys/kernel/tracing
passed=0
failed=0
step() { echo "== inside: $* ($(cut -d' ' -f1 /proc/uptime) s)"; }
# check WHAT EXPECTED ACTUAL
check() {
  if [ "$2" = "$3" ]; then
    passed=$((passed + 1)) && echo "  ok    $1: $3"
  else
    failed=$((failed + 1)) && echo "  FAIL  $1: expected '$2', found '$3'"
  fi
}
# between WHAT LEAST MOST ACTUAL
between() {
  if [ "$4" -ge "$2" ] 2>/dev/null && [ "$4" -le "$3" ]; then
    passed=$((passed + 1)) && echo "  ok    $1: $4 (from $2 to $3)"
  else
    failed=$((failed + 1)) && echo "  FAIL  $1: expected $2 to $3, found '$4'"
  fi
}
# eventually SECONDS COMMAND...
eventually() {
  tries=$(($1 * 5))
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    sleep 0.2
  done
}
yes_no() { if "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }
# The pod's group: there is one pod at a time.
pod() { find $T/outrigger* -maxdepth 2 -type d -name 'pod*' 2>/dev/null | head -n 1; }
value() { cat "$1" 2>/dev/null; }
count() { wc -l <"$1"; }
keyed() { sed -n "s/^$2 //p" "$1"; }
says() { outrigger logs "$@" 2>&1; }
has() { says "$1" -c "$2" | grep -q -- "$3"; }
# start MANIFEST [EXIT]: says why not, when it does not start.
start() {
  outrigger run --offline --detach "$1" >/tmp/run.out 2>&1
  code=$?
  [ $code = "${2:-0}" ] || sed 's/^/  run: /' /tmp/run.out
  return $code
}
json() { outrigger ps -A -o json | tr -d ' \n'; }
# Which kernel functions and events fired since `listen`.
listen() { echo >$TRACE/trace; }
heard() { grep -c -- "$1" $TRACE/trace; }
gone() { ! ls -d $T/outrigger*; }
# Process ids by the beginning of the command line.
processes() {
  for process in /proc/[0-9]*; do
    cat "$process/cmdline" 2>/dev/null | tr '\0' ' ' | grep -q "^$1" && echo "${process#/proc/}"
  done
}
nothing_left() {
  eventually 20 gone
  check "$1: groups left" "" "$(find $T/outrigger* -type d 2>/dev/null | tr '\n' ' ')"
  check "$1: overlay mounts left" 0 "$(grep -c overlay /proc/self/mountinfo)"
}
down() {
  outrigger down --all --ignore-not-found --grace-period 3 >/tmp/down.out 2>&1
  check "down" 0 $?
  nothing_left down
}

step "machine: Linux $(uname -r)"
check "v1 trees" 0 "$(grep -c -- '- cgroup ' /proc/self/mountinfo)"
check "v2 trees" 1 "$(grep -c -- '- cgroup2 ' /proc/self/mountinfo)"
# Not the root group, as on any machine with a service manager.
mkdir -p $T/user.slice && echo $$ >$T/user.slice/cgroup.procs
echo 'p:killed cgroup_kill_write' >>$TRACE/kprobe_events && echo 1 >$TRACE/events/kprobes/enable
check "kill switch is traced" 0 $?
echo 1 >$TRACE/events/cgroup/cgroup_attach_task/enable
check "moves are traced" 0 $?

step "examples/walkthrough.yaml"
listen
start /root/examples/walkthrough.yaml
check "run --detach" 0 $?
[ -n "$(pod)" ] || cat /tmp/run.out
G=$(pod)
check "class" besteffort "$(basename "$(dirname "$G")")"
check "groups" "_shim main-container sidecar-container " "$(cd "$G" && ls -d */ | tr -d / | tr '\n' ' ')"
check "controllers handed down" "cpu memory pids" "$(tr ' ' '\n' <"$G/cgroup.subtree_control" | grep -E '^(cpu|memory|pids)$' | tr '\n' ' ' | sed 's/ $//')"
check "processes in the pod's own group" 0 "$(count "$G/cgroup.procs")"
check "shim in its leaf" 1 "$(count "$G/_shim/cgroup.procs")"
between "processes of main-container" 1 3 "$(count "$G/main-container/cgroup.procs")"
between "processes of sidecar-container" 1 2 "$(count "$G/sidecar-container/cgroup.procs")"
check "cpu.weight of the pod" 1 "$(value "$G/cpu.weight")"
check "memory.max of the pod" max "$(value "$G/memory.max")"
check "moves between groups (the shim's only)" 1 "$(heard cgroup_attach_task)"
eventually 20 has sidecar sidecar-container :
check "the sidecar reads the main's file" yes "$(yes_no has sidecar sidecar-container :)"
listen
down
between "kill switch used" 1 50 "$(heard killed:)"

step "walkthrough in the foreground"
outrigger run --offline /root/examples/walkthrough.yaml >/tmp/fore.out 2>&1 &
fore=$!
eventually 30 grep -q 'sidecar-container | ' /tmp/fore.out
kill -INT $fore
sleep 2
kill -INT $fore
wait $fore
check "Ctrl-C" 130 $?
nothing_left "run"

step "limits, from outside and inside"
listen
start /root/pods/limited.yaml
check "run --detach" 0 $?
G=$(pod)
eventually 20 has limited burn raised
eventually 20 test -s /var/lib/outrigger/pods/*/volumes/shared/exec
while read -r file outside; do
  check "burn $file outside" "$outside" "$(value "$G/burn/$file")"
  check "burn $file inside" "$outside" "$(says limited -c burn | keyed - "$file")"
done <<END
memory.max 67108864
memory.swap.max 0
memory.oom.group 1
cpu.max 20000 100000
pids.max max
END
# 102 shares: https://github.com/opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value.
check "burn cpu.weight outside (100m)" 17 "$(value "$G/burn/cpu.weight")"
check "burn cpu.weight inside" 17 "$(says limited -c burn | keyed - cpu.weight)"
check "idle cpu.weight" 1 "$(value "$G/idle/cpu.weight")"
check "idle memory.max" max "$(value "$G/idle/memory.max")"
check "idle cpu.max" "max 100000" "$(value "$G/idle/cpu.max")"
check "pod cpu.weight" 17 "$(value "$G/cpu.weight")"
check "its own group inside" "0::/" "$(says limited -c burn | keyed - self)"
check "file system inside" cgroup2fs "$(says limited -c burn | keyed - kind)"
check "no group from inside" yes "$(yes_no has limited burn 'no group made')"
check "no limit raised from inside" yes "$(yes_no has limited burn 'not raised')"
check "an exec probe is in the group" "exec 0::/" "$(head -n 1 /var/lib/outrigger/pods/*/volumes/shared/exec)"
check "moves between groups, probes included" 1 "$(heard cgroup_attach_task)"
before=$(keyed "$G/burn/cpu.stat" usage_usec)
at=$(date +%s%N)
sleep 5
after=$(keyed "$G/burn/cpu.stat" usage_usec)
over=$(($(date +%s%N) - at))
between "cpu under a limit of 200 m" 150 220 "$(((after - before) * 1000000 / over))"
between "throttled periods" 10 100000 "$(keyed "$G/burn/cpu.stat" nr_throttled)"
down

step "examples/limits-and-oom.yaml"
start /root/examples/limits-and-oom.yaml
G=$(pod)
[ -n "$G" ] || cat /tmp/run.out
check "hungry memory.max" 50331648 "$(value "$G/hungry/memory.max")"
check "hungry memory.swap.max" 0 "$(value "$G/hungry/memory.swap.max")"
check "hungry memory.oom.group" 1 "$(value "$G/hungry/memory.oom.group")"
check "hungry cpu.max" "50000 100000" "$(value "$G/hungry/cpu.max")"
check "modest memory.max" 33554432 "$(value "$G/modest/memory.max")"
check "modest cpu.max" "20000 100000" "$(value "$G/modest/cpu.max")"
check "pod memory.max" 83886080 "$(value "$G/memory.max")"
check "pod cpu.max" "70000 100000" "$(value "$G/cpu.max")"
killed() { json | grep -q OOMKilled; }
eventually 30 killed
check "OOMKilled" yes "$(yes_no killed)"
check "exit code" yes "$(json | grep -q '"exitCode":137' && echo yes)"
counted() { [ "$(keyed "$G/hungry/memory.events" oom_kill)" -ge 1 ]; }
restarts() { json | grep -o "\"name\":\"$1\",\"ready\".*" | grep -o '"restartCount":[0-9]*' | head -n 1 | cut -d: -f2; }
again() { [ "$(restarts hungry)" -ge 1 ] && counted; }
eventually 10 counted
check "kernel's count" yes "$(yes_no counted)"
check "sidecar's count" 0 "$(keyed "$G/modest/memory.events" oom_kill)"
eventually 40 again
check "killed again after a restart, counted anew" yes "$(yes_no again)"
check "sidecar's restarts" 0 "$(restarts modest)"
down

step "one process of several is killed for memory"
start /root/pods/family.yaml
eventually 30 killed
check "the container ended, OOMKilled" yes "$(yes_no killed)"
check "survivors" no "$(yes_no has family parent survived)"
down

step "devices"
disk=$(tr : ' ' </sys/block/vda/dev)
sed -i "s/DISK/$disk/" /root/pods/devices.yaml
start /root/pods/devices.yaml
eventually 30 has devices plain serial
eventually 30 has devices privileged serial
for container in plain privileged; do says devices -c $container | sed "s/^/  $container: /"; done
for word in "mknod done" "null written" "null opens" "zero opens" "full opens" "random opens" "urandom opens"; do
  check "plain: $word" yes "$(yes_no has devices plain "^$word")"
  check "privileged: $word" yes "$(yes_no has devices privileged "^$word")"
done
check "plain: the disk" yes "$(yes_no has devices plain 'disk refused.*not permitted')"
check "plain: the serial line" yes "$(yes_no has devices plain 'serial refused')"
check "plain: /dev/vda" no "$(yes_no has devices plain /dev/vda)"
check "privileged: the disk" yes "$(yes_no has devices privileged 'disk read')"
check "privileged: the serial line" yes "$(yes_no has devices privileged 'serial opens')"
check "privileged: /dev/vda" yes "$(yes_no has devices privileged /dev/vda)"
eventually 10 has devices screen opens
check "a terminal" yes "$(yes_no has devices screen 'tty opens')"
down

step "a container that made groups below its own"
start /root/pods/manager.yaml
eventually 30 has manager manager 'second life'
says manager -c manager --previous | sed 's/^/  before: /'
says manager -c manager | sed 's/^/  now: /'
check "it was delegated to" yes "$(says manager -c manager --previous | grep -q '^delegated.*memory' && echo yes)"
check "it lives again" "second life in manager" "$(says manager -c manager)"
json | grep -oE '"(reason|message)":"[^"]*"' | grep -i create | head -n 2
down

step "children of a container with the host's process ids"
start /root/pods/stray.yaml
strays() { processes 'sleep 4242' | wc -l; }
no_strays() { [ "$(strays)" = 0 ]; }
between "while it runs" 2 2 "$(strays)"
eventually 15 no_strays
check "left" 0 "$(strays)"
down

step "a lower memory limit than the page cache"
sed 's/LIMIT/128Mi/' /root/pods/cache.yaml >/tmp/cache.yaml
start /tmp/cache.yaml
G=$(pod)
eventually 30 has cache writer written
between "memory.current" 70000000 134217728 "$(value "$G/writer/memory.current")"
sed 's/LIMIT/32Mi/' /root/pods/cache.yaml >/tmp/cache.yaml
start /tmp/cache.yaml
check "run of the changed manifest" 0 $?
sed 's/^/  run: /' /tmp/run.out
lowered() { [ "$(value "$G/writer/memory.max")" = 33554432 ]; }
eventually 10 lowered
check "memory.max" 33554432 "$(value "$(pod)/writer/memory.max")"
down

step "kill -9 of the shim"
start /root/examples/walkthrough.yaml
G=$(pod)
shim=$(value "$G/_shim/cgroup.procs")
main=$(head -n 1 "$G/main-container/cgroup.procs")
kill -9 "$shim"
dead() { ! [ -d "/proc/$main" ]; }
eventually 10 dead
check "its containers died with it" yes "$(yes_no dead)"
anew() { G=$(pod) && now=$(value "$G/_shim/cgroup.procs") && [ -n "$now" ] && [ "$now" != "$shim" ] && [ -n "$(value "$G/main-container/cgroup.procs")" ]; }
eventually 30 anew
check "the engine made the pod anew" yes "$(yes_no anew)"
down

step "kill -9 of engine and shim, then cleanup"
start /root/examples/walkthrough.yaml
G=$(pod)
kill -9 "$(processes 'outrigger __engine')"
check "the pod lives on without its engine" 1 "$(count "$G/_shim/cgroup.procs")"
outrigger cleanup >/tmp/cleanup.out 2>&1
check "cleanup leaves it alone" yes "$(yes_no test -d "$G/main-container")"
kill -9 "$(value "$G/_shim/cgroup.procs")"
sleep 1
outrigger cleanup >/tmp/cleanup.out 2>&1
check "cleanup" 0 $?
sed 's/^/  cleanup: /' /tmp/cleanup.out
nothing_left cleanup
check "links left" "" "$(ip -o link | cut -d: -f2 | grep -vwE 'lo' | tr -d '\n')"

for test in /root/tests/*; do
  [ -x "$test" ] || continue
  step "$(basename "$test")"
  timeout 600 "$test" --test-threads 2 >/tmp/test.out 2>&1
  check "$(basename "$test")" 0 $?
  grep -E '^test result|FAILED$|skipped|panicked' -A 4 /tmp/test.out | head -n 150
done

step "over"
dmesg | grep -E 'BUG|WARNING|Oops' | head -n 5
echo "verdict: $passed passed, $failed failed"
