# shellcheck shell=bash
# containerd with our shim, io.containerd.rrt.v2: all checks of interop-containerd.sh, and those that only a shim is about.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2016,SC2154 # $x in '' is for the container's shell; $work, $runtime, $shim, $cgroup: of hack/interop

# shellcheck source-path=SCRIPTDIR source=interop-containerd.sh
. "$top/hack/lib/interop-containerd.sh"

with_runtime=(--runtime io.containerd.rrt.v2)

# ctr 1.6 gives options only to runc's shim, so the shim looks for `rrt` in containerd's PATH. Later ones give this path.
shim_up() {
    if [ -n "$systemd" ]; then
        printf 'SystemdCgroup = true\n' >"$work/shim.toml"
        with_runtime+=(--runtime-config-path "$work/shim.toml")
    fi
    mkdir -p "$work/bin"
    ln -sf "$runtime" "$work/bin/rrt"
    ln -sf "$shim" "$work/bin/containerd-shim-rrt-v2"
    PATH=$work/bin:$PATH containerd_up
}

shim_down() { containerd_down; }

shim_clean() { containerd_clean; }

shim_names() {
    names_in containerd "$top/hack/lib/interop-containerd.sh"
    names_in shim "$top/hack/lib/interop-shim.sh"
}

for check in $(names_in containerd "$top/hack/lib/interop-containerd.sh"); do
    eval "shim_check_$check() { containerd_check_$check; }"
done

shim_pid_of() { pgrep -f "containerd-shim-rrt-v2 -namespace default -id $1 "; }

# containerd is killed and comes back: the container that has ended meanwhile has its exit code, the other one runs.
shim_check_containerd_restarts() {
    box_run -d c1 sh -c 'while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 9'
    box_run -d c2 sleep 1000
    local root
    root=/proc/$(task_pid c1)/root
    kill -KILL "$(pidof containerd)"
    touch "$root/tmp/go"
    until_true test ! -e "$root"
    PATH=$work/bin:$PATH containerd --config "$work/containerd/config.toml" >>"$logs/containerd.daemon.log" 2>&1 9>&- &
    until_true box_ctr version
    until_true task_is c1 STOPPED
    task_is c2 RUNNING
    same "$(box_ctr task exec --exec-id x c2 echo still-here)" still-here
    like "$(box_ctr task delete c1 2>&1)" 'exit code 9'
}

# A killed shim: containerd calls `delete`, and nothing is left of the container.
shim_check_shim_is_killed() {
    box_run -d c1 sleep 1000
    local pid
    pid=$(task_pid c1)
    kill -KILL "$(shim_pid_of c1)"
    until_true test ! -d "/proc/$pid"
    until_true eval '! grep -q "$work/containerd/state.*/c1/" /proc/self/mountinfo'
    same "$(find /sys/fs/cgroup -path "*$(ctr_dir c1)")" ""
}

shim_check_pod() {
    box_run -d --annotation=io.kubernetes.cri.sandbox-id=p c1 sleep 1000
    box_run -d --annotation=io.kubernetes.cri.sandbox-id=p c2 sleep 1000
    same "$(pgrep -cf 'containerd-shim-rrt-v2 -namespace')" 1
    box_ctr task delete --force c1
    task_is c2 RUNNING
    box_ctr task delete --force c2
    until_true eval '! pgrep -f "containerd-shim-rrt-v2 -namespace"'
}

# The events of a life, in order, each once.
shim_check_events() {
    box_ctr events >"$work/events" 2>&1 9>&- &
    local listener=$!
    sleep 0.3
    box_run -d c1 sh -c 'exit 3'
    until_true task_is c1 STOPPED
    box_ctr task delete c1 || true
    until_true grep -q /tasks/delete "$work/events"
    kill "$listener"
    same "$(grep -o '/tasks/[a-z-]*' "$work/events" | tr '\n' ' ')" "/tasks/create /tasks/start /tasks/exit /tasks/delete "
}

shim_check_log_file() {
    rm -f "$work/c1.log"
    box_run -d "--log-uri=file://$work/c1.log" c1 sh -c 'echo out; echo err >&2'
    until_true task_is c1 STOPPED
    same "$(sort "$work/c1.log" | tr '\n' ' ')" "err out "
}

# Resident, with one container; the budget is of the issue "containerd-shim-rrt-v2".
shim_check_memory() {
    box_run -d c1 sleep 1000
    local kib
    kib=$(awk '/^VmRSS/ { print $2 }' "/proc/$(shim_pid_of c1)/status")
    say "resident: $kib KiB"
    [ "$kib" -le 2500 ]
}
