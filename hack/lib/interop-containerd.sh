# shellcheck shell=bash
# containerd's own client, with its shim for runc and our binary in runc's place (BinaryName). interop-shim.sh runs the same
# checks with our shim.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2016,SC2154 # $x in '' is for the container's shell; $work, $runtime, $cgroup: of hack/interop

# What chooses the runtime: `ctr run` takes these words.
with_runtime=(--runtime io.containerd.runc.v2 --runc-binary "$runtime" ${systemd:+--runc-systemd-cgroup})

containerd_up() {
    local dir=$work/containerd
    mkdir -p "$dir"
    cat >"$dir/config.toml" <<-END
	version = 2
	root = "$dir/root"
	state = "$dir/state"
	disabled_plugins = ["io.containerd.grpc.v1.cri"]
	[grpc]
	  address = "$dir/sock"
	[ttrpc]
	  address = "$dir/ttrpc"
	END
    containerd --config "$dir/config.toml" >"$logs/containerd.daemon.log" 2>&1 &
    containerd_pid=$!
    until_true test -S "$dir/sock"
    until_true box_ctr version
    box_ctr image import "$work/image.tar"
}

# By name, for a check may have killed and started it; this pid namespace is the script's own.
containerd_down() {
    pkill -x containerd || true
    wait "$containerd_pid" 2>/dev/null || true
}

box_ctr() { ctr --address "$work/containerd/sock" "$@"; }

# box_run FLAGS... ID COMMAND...: the words up to the id are flags; the image is always ours.
box_run() {
    local flags=()
    while [[ $1 == -* ]]; do flags+=("$1") && shift; done
    local id=$1
    shift
    # ctr gives a profile only when asked, containerd's own; a privileged container has none.
    [[ " ${flags[*]} " == *" --privileged "* ]] || flags+=(--seccomp)
    box_ctr run "${with_runtime[@]}" --cgroup "$(ctr_cgroup "$id")" \
        "${flags[@]}" localhost/box:latest "$id" "$@"
}

containerd_clean() {
    local id
    for id in $(box_ctr task ls -q); do box_ctr task delete --force "$id"; done
    for id in $(box_ctr container ls -q); do box_ctr container delete "$id"; done
}

task_status() { box_ctr task ls | awk -v id="$1" '$1 == id { print $3 }'; }
task_is() { [ "$(task_status "$1")" = "$2" ]; }
task_pid() { box_ctr task ls | awk -v id="$1" '$1 == id { print $2 }'; }

containerd_check_run() {
    local out
    out=$(box_run --rm --env=A=b --cwd=/tmp c1 sh -c 'echo "$A $FROM $$ $PWD"')
    same "$out" "b image 1 /tmp"
    same "$(box_ctr task ls -q)" ""
}

containerd_check_run_exit_status() { status_of 7 box_run --rm c1 sh -c 'exit 7'; }

# `head`, not `cat`: ctr 1.6 itself does not pass the end of its standard input on.
containerd_check_run_stdin() { same "$(echo in | box_run --rm c1 head -n 1)" in; }

containerd_check_run_terminal() {
    local out
    out=$(on_terminal "ctr --address $work/containerd/sock run --rm -t ${with_runtime[*]} \
        --cgroup $(ctr_cgroup c1) localhost/box:latest c1 sh -c 'tty; test -t 0 && echo on-a-tty; sleep 0.3'")
    like "$out" '/dev/pts/0'
    like "$out" on-a-tty
}

containerd_check_detached_exec_kill_delete() {
    box_run -d c1 sh -c 'trap "exit 9" TERM; echo up >/tmp/up; while :; do sleep 0.1; done'
    task_is c1 RUNNING
    until_true box_ctr task exec --exec-id look c1 test -f /tmp/up
    same "$(box_ctr task exec --exec-id x1 c1 cat /proc/1/comm)" sh
    status_of 5 box_ctr task exec --exec-id x2 c1 sh -c 'exit 5'
    same "$(box_ctr task exec --exec-id x3 --user 1000:1000 --cwd /bin c1 sh -c 'echo $(id -u) $PWD')" "1000 /bin"
    box_ctr task kill --signal SIGTERM c1
    until_true task_is c1 STOPPED
    like "$(box_ctr task delete c1 2>&1)" 'exit code 9'
    box_ctr container delete c1
    same "$(box_ctr container ls -q)" ""
    same "$(find /sys/fs/cgroup -path "*$(ctr_dir c1)")" ""
}

containerd_check_exec_terminal() {
    box_run -d c1 sleep 1000
    # The sleep: once in some forty runs ctr 1.6 ends without the output of a program that has ended at once, while
    # a console that is read straight from the runtime has always had it.
    like "$(on_terminal "ctr --address $work/containerd/sock task exec -t --exec-id x c1 sh -c 'tty; sleep 0.3'")" /dev/pts/
}

containerd_check_exec_missing_program() {
    box_run -d c1 sleep 1000
    like "$(status_of 1 box_ctr task exec --exec-id x c1 /no/such 2>&1)" 'no such file or directory|not found'
    same "$(box_ctr task exec --exec-id y c1 echo still-there)" still-there
}

containerd_check_pause_resume() {
    box_run -d c1 sh -c 'i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.01; done'
    local root before
    root=/proc/$(task_pid c1)/root
    until_true test -s "$root/tmp/n"
    box_ctr task pause c1
    task_is c1 PAUSED
    before=$(cat "$root/tmp/n")
    sleep 0.3
    same "$(cat "$root/tmp/n")" "$before"
    box_ctr task resume c1
    task_is c1 RUNNING
    until_true not_same_content "$root/tmp/n" "$before"
}
not_same_content() { [ "$(cat "$1")" != "$2" ]; }

containerd_check_metrics() {
    box_run -d --memory-limit=67108864 c1 sleep 1000
    local out
    out=$(box_ctr task metrics c1)
    like "$out" 'pids.current +1'
    like "$out" 'memory.*(67108864|limit|usage)'
}

containerd_check_memory_limit() {
    same "$(box_run --rm --memory-limit=67108864 --mount=type=bind,src=/sys/fs/cgroup,dst=/mnt,options=rbind:ro c1 \
        sh -c "cat /mnt/memory$(ctr_dir c1)/memory.limit_in_bytes 2>/dev/null || cat /mnt$(ctr_dir c1)/memory.max")" 67108864
}

containerd_check_processes() {
    box_run -d c1 sh -c 'sleep 1000 & wait'
    until_true two_processes c1
}
two_processes() { [ "$(box_ctr task ps "$1" | tail -n +2 | wc -l)" = 2 ]; }

containerd_check_kill_all() {
    box_run -d c1 sh -c 'sleep 1000 & sleep 1000 & wait'
    box_ctr task kill --all --signal SIGKILL c1
    until_true task_is c1 STOPPED
    like "$(box_ctr task delete c1 2>&1)" 'exit code 137'
}

containerd_check_delete_running_by_force() {
    box_run -d c1 sh -c 'trap "" TERM; while :; do sleep 0.1; done'
    box_ctr task delete --force c1
    same "$(box_ctr task ls -q)" ""
}

containerd_check_read_only() {
    like "$(status_of 1 box_run --rm --read-only c1 touch /x 2>&1)" 'Read-only file system'
}

containerd_check_join_namespace() {
    box_run -d c1 sleep 1234
    local pid
    pid=$(task_pid c1)
    # The same pid namespace: the other container's processes are to be seen.
    like "$(box_run --rm "--with-ns=pid:/proc/$pid/ns/pid" c2 ps)" 'sleep 1234'
}

containerd_check_seccomp() {
    same "$(box_run --rm c1 awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 2
    box_run -d c1 sleep 1000
    same "$(box_ctr task exec --exec-id e1 c1 awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 2
}

containerd_check_privileged() {
    # ctr asks only for what the daemon itself has.
    box_run --rm --privileged c1 mount -t tmpfs none /tmp
    like "$(box_run --rm c2 mount -t tmpfs none /tmp 2>&1 || true)" 'permission denied|Operation not permitted'
}

containerd_check_missing_program() {
    like "$(status_of 1 box_run --rm c1 /no/such 2>&1)" 'no such file or directory|not found'
    like "$(status_of 1 box_run --rm c2 no-such 2>&1)" 'executable file not found in'
    same "$(box_ctr task ls -q)" ""
}

containerd_check_user_namespace() {
    local map
    # Only the root file system's owner changes nothing here: the image's files belong to nobody inside.
    map=$(box_run --rm --uidmap=0:100000:65536 --gidmap=0:100000:65536 c1 cat /proc/self/uid_map)
    like "$map" '0 +100000 +65536'
}

containerd_check_many_at_once() {
    local n
    for n in {1..8}; do box_run -d "m$n" sleep 1000 & done
    wait
    same "$(box_ctr task ls | grep -c RUNNING)" 8
    for n in {1..8}; do box_ctr task delete --force "m$n" & done
    wait
    same "$(box_ctr task ls -q)" ""
}

containerd_check_checkpoint_restore() {
    # The number is a symlink's target: criu wants every file that is open for writing back as it was.
    local counting='i=0; while :; do i=$((i+1)); ln -sfn $i /tmp/m; mv /tmp/m /tmp/n; sleep 0.02; done' file n
    # Of the engine before, which has the same data.
    box_ctr image rm localhost/saved:latest >/dev/null 2>&1 || true
    box_run -d c1 sh -c "$counting"
    file=/proc/$(task_pid c1)/root/tmp/n
    until_true test -L "$file"
    sleep 0.5
    # With its file system's changes and its memory, as an image.
    box_ctr container checkpoint --rw --task c1 localhost/saved:latest
    task_is c1 RUNNING
    box_ctr task delete --force c1
    box_ctr container restore --rw --live c2 localhost/saved:latest
    until_true task_is c2 RUNNING
    file=/proc/$(task_pid c2)/root/tmp/n
    n=$(readlink "$file")
    [ "$n" -gt 10 ]
    until_true above "$file" "$n"
}

above() { [ "$(readlink "$1")" -gt "$2" ]; }
