# shellcheck shell=bash
# Debian's podman with conmon, and our binary as --runtime.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2016,SC2154 # $x in '' is for the container's shell; $work, $runtime, $cgroup: of hack/interop

podman_up() {
    local dir=$work/podman
    mkdir "$dir"
    # podman reads a runtime's JSON log only from runtimes whose file name it knows, so ours has to be told.
    cat >"$dir/containers.conf" <<-END
	[containers]
	log_driver = "k8s-file"
	[engine]
	cgroup_manager = "cgroupfs"
	events_logger = "file"
	runtime_supports_json = ["crun", "runc", "rrt"]
	runtime_supports_nocgroup = ["crun", "rrt"]
	[network]
	network_backend = "cni"
	network_config_dir = "$dir/cni"
	END
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$dir/policy.json"
    mkdir -p "$dir/cni"
    box_podman load --signature-policy "$dir/policy.json" -i "$work/image.tar"
    # CNI's bridge needs the packet filter.
    podman_net=bridge
    iptables -t nat -L -n >/dev/null || podman_net=none
}

podman_down() { :; }

# CONTAINERS_CONF: this file and no other, so that the machine's own configuration does not matter.
box_podman() {
    CONTAINERS_CONF=$work/podman/containers.conf podman --runtime "$runtime" --root "$work/podman/root" \
        --runroot "$work/podman/run" --tmpdir "$work/podman/tmp" --storage-driver overlay "$@"
}

# Each container in our common cgroup; no network unless a check says otherwise.
pbox() { box_podman run --cgroup-parent "$cgroup/podman" "$@"; }

podman_clean() {
    box_podman pod rm -fa -t 0
    box_podman rm -fa -t 0
}

pinspect() { box_podman inspect --format "$2" "$1"; }
pinspect_is() { [ "$(pinspect "$1" "$2")" = "$3" ]; }
pfile_in() { box_podman exec "$1" test -e "$2"; }

podman_check_info() { same "$(box_podman info --format '{{.Host.OCIRuntime.Path}}')" "$runtime"; }

podman_check_run() {
    same "$(pbox --rm --net none -h box -w /tmp -e A=b localhost/box sh -c 'echo $A $FROM $$ $PWD $(hostname)')" \
        'b image 1 /tmp box'
}

podman_check_run_exit_status() { status_of 7 pbox --rm --net none localhost/box sh -c 'exit 7'; }

podman_check_run_stdin_and_stderr() {
    same "$(echo in | pbox --rm -i --net none localhost/box cat)" in
    same "$(pbox --rm --net none localhost/box sh -c 'echo out; echo err >&2' 2>/dev/null)" out
}

podman_check_run_missing_program() {
    like "$(status_of 127 pbox --rm --net none localhost/box no-such 2>&1)" 'executable file.*not found in \$PATH'
    like "$(status_of 127 pbox --rm --net none localhost/box /no/such 2>&1)" '[Nn]o such file or directory'
    like "$(status_of 126 pbox --rm --net none localhost/box /etc/passwd 2>&1)" '[Pp]ermission denied'
}

# podman_command WORDS...: the same as box_podman, as one line for on_terminal.
podman_command() {
    printf 'CONTAINERS_CONF=%q ' "$work/podman/containers.conf"
    printf '%q ' podman --runtime "$runtime" --root "$work/podman/root" --runroot "$work/podman/run" \
        --tmpdir "$work/podman/tmp" --storage-driver overlay "$@"
}

podman_check_terminal() {
    local run=(run --cgroup-parent "$cgroup/podman" --rm -it --net none localhost/box)
    like "$(on_terminal "$(podman_command "${run[@]}" sh -c 'tty; test -t 0 && echo on-a-tty')")" '/dev/pts/0.*on-a-tty'
    like "$(printf 'echo $((6*7))-typed\nexit 3\n' | status_of 3 on_terminal "$(podman_command "${run[@]}" sh)")" 42-typed
}

podman_check_exec() {
    pbox -d --name c1 --net none localhost/box sleep 1000
    same "$(box_podman exec -e A=b -w /tmp -u 1000:2000 c1 sh -c 'echo $A $PWD $(id -u) $(id -g)')" 'b /tmp 1000 2000'
    status_of 5 box_podman exec c1 sh -c 'exit 5'
    same "$(echo in | box_podman exec -i c1 cat)" in
    box_podman exec -d c1 sh -c 'echo >/tmp/detached'
    until_true pfile_in c1 /tmp/detached
    like "$(on_terminal "$(podman_command exec -it c1 tty)")" '/dev/pts/[0-9]'
}

podman_check_exec_missing_program() {
    pbox -d --name c1 --net none localhost/box sleep 1000
    like "$(status_of 127 box_podman exec c1 no-such 2>&1)" 'executable file.*not found in \$PATH'
    same "$(box_podman exec c1 echo still-there)" still-there
}

podman_check_stop_start_rm() {
    pbox -d --name c1 --net none localhost/box \
        sh -c 'trap "exit 9" TERM; echo >/tmp/ready; while :; do sleep 0.05; done'
    until_true pfile_in c1 /tmp/ready
    box_podman stop c1
    same "$(pinspect c1 '{{.State.Status}} {{.State.ExitCode}}')" 'exited 9'
    box_podman start c1
    same "$(pinspect c1 '{{.State.Status}}')" running
    box_podman restart -t 0 c1
    same "$(pinspect c1 '{{.State.Status}}')" running
    box_podman rm -f -t 0 c1
    same "$(box_podman ps -aq)" ''
}

podman_check_create_init_start() {
    box_podman create --cgroup-parent "$cgroup/podman" --name c1 --net none localhost/box sh -c 'echo hello; exit 4'
    # `init` is the runtime's create alone.
    box_podman init c1
    same "$(box_podman logs c1)" ''
    box_podman start c1
    same "$(box_podman wait c1)" 4
    same "$(box_podman logs c1)" hello
}

podman_check_kill() {
    pbox -d --name c1 --net none localhost/box \
        sh -c 'trap "exit 12" USR1; echo >/tmp/ready; while :; do sleep 0.05; done'
    until_true pfile_in c1 /tmp/ready
    box_podman kill -s USR1 c1
    same "$(box_podman wait c1)" 12
}

podman_check_pause() {
    pbox -d --name c1 --net none localhost/box sh -c 'i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.01; done'
    until_true box_podman exec c1 test -s /tmp/n
    local root before
    root=/proc/$(pinspect c1 '{{.State.Pid}}')/root
    box_podman pause c1
    same "$(pinspect c1 '{{.State.Status}}')" paused
    before=$(cat "$root/tmp/n")
    sleep 0.3
    same "$(cat "$root/tmp/n")" "$before"
    box_podman unpause c1
    until_true pdiffers "$root/tmp/n" "$before"
}
pdiffers() { [ "$(cat "$1")" != "$2" ]; }

podman_check_limits() {
    same "$(pbox --rm --net none -m 64m localhost/box sh -c "$(cgroup_value memory/memory.limit_in_bytes memory.max)")" 67108864
    same "$(pbox --rm --net none --pids-limit 20 localhost/box sh -c "$(cgroup_value pids/pids.max pids.max)")" 20
    like "$(pbox --rm --net none --cpuset-cpus 0 localhost/box grep Cpus_allowed_list /proc/self/status)" $'\t0$'
}

podman_check_top_and_stats() {
    pbox -d --name c1 --net none localhost/box sleep 1234
    like "$(box_podman top c1)" 'sleep 1234'
    like "$(box_podman stats --no-stream --format '{{.PIDs}}' c1)" '^1$'
}

podman_check_pod() {
    # The infra container holds the namespaces; podman would build its image, so it is told to take ours.
    box_podman pod create --name p1 --cgroup-parent "$cgroup/podman" --infra-image localhost/box \
        --infra-command 'sleep 1000' --net none
    box_podman run -d --pod p1 --name web localhost/box httpd -f -p 4000 -h /etc
    # One network, one IPC and one UTS namespace between them; each its own pids.
    until_true box_podman run --rm --pod p1 localhost/box \
        wget -q -O - http://127.0.0.1:4000/passwd
    box_podman run -d --pod p1 --name other localhost/box sleep 1000
    local kind
    for kind in net ipc uts; do
        same "$(box_podman exec other readlink "/proc/self/ns/$kind")" "$(box_podman exec web readlink "/proc/self/ns/$kind")"
    done
    same "$(box_podman exec other cat /proc/1/comm)" sleep
    like "$(box_podman exec web cat /proc/1/cmdline | tr '\0' ' ')" httpd
    box_podman pod stop -t 0 p1
    like "$(box_podman pod ps --format '{{.Status}}')" 'Exited'
    box_podman pod start p1
    same "$(box_podman pod ps --format '{{.Status}}')" Running
    box_podman pod rm -f -t 0 p1
    same "$(box_podman ps -aq)" ''
}

podman_check_bridge() {
    [ "$podman_net" = bridge ] || skip "no packet filter here"
    pbox -d --name c1 --net podman localhost/box httpd -f -h /etc
    local address
    address=$(pinspect c1 '{{.NetworkSettings.IPAddress}}')
    [ -n "$address" ] || address=$(pinspect c1 '{{.NetworkSettings.Networks.podman.IPAddress}}')
    until_true pbox --rm --net podman localhost/box wget -q -O - "http://$address/passwd"
}

podman_check_joined_namespaces() {
    pbox -d --name c1 --net none localhost/box sleep 1234
    like "$(pbox --rm --net container:c1 --pid container:c1 localhost/box ps)" 'sleep 1234'
}

podman_check_user_namespace() {
    like "$(pbox --rm --net none --uidmap 0:100000:65536 --gidmap 0:100000:65536 localhost/box cat /proc/self/uid_map)" \
        '0 +100000 +65536'
}

podman_check_volumes() {
    mkdir -p "$work/volume"
    pbox --rm --net none -v "$work/volume:/v" localhost/box sh -c 'echo written >/v/f'
    same "$(cat "$work/volume/f")" written
    like "$(status_of 1 pbox --rm --net none -v "$work/volume:/v:ro" localhost/box touch /v/g 2>&1)" 'Read-only file system'
    like "$(status_of 1 pbox --rm --net none --read-only localhost/box touch /x 2>&1)" 'Read-only file system'
    like "$(pbox --rm --net none --tmpfs /scratch:size=1m,noexec localhost/box grep /scratch /proc/mounts)" 'noexec'
}

podman_check_user() {
    same "$(pbox --rm --net none --user 1000:1000 --group-add 2000 localhost/box id)" \
        'uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)'
}

podman_check_capabilities() {
    like "$(status_of 1 pbox --rm --net none --cap-drop CHOWN localhost/box chown 1000 /etc/passwd 2>&1)" \
        'Operation not permitted'
    like "$(pbox --rm --net none --cap-drop ALL localhost/box grep CapBnd /proc/self/status)" '0000000000000000'
}

podman_check_seccomp() {
    same "$(pbox --rm localhost/box awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 2
    same "$(pbox --rm --security-opt seccomp=unconfined localhost/box awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 0
    pbox -d --name c1 localhost/box sleep 1000
    same "$(box_podman exec c1 awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 2
}

podman_check_privileged() {
    pbox --rm --net none --privileged localhost/box mount -t tmpfs none /tmp
}

podman_check_without_cgroups() {
    known_of runc "it cannot go without cgroups"
    same "$(box_podman run --rm --cgroups=disabled --net none localhost/box echo works)" works
}

podman_check_no_descriptors_leak() {
    # conmon's own pipes (_OCI_SYNCPIPE and others) must not arrive in the container.
    pbox -d --name c1 --net none localhost/box sleep 1000
    same "$(find "/proc/$(pinspect c1 '{{.State.Pid}}')/fd" -type l -printf '%f\n' | sort | tr '\n' ' ')" '0 1 2 '
}

podman_check_many_at_once() {
    local n
    for n in {1..8}; do pbox -d --name "m$n" --net none localhost/box sleep 1000 & done
    wait
    same "$(box_podman ps -q | wc -l)" 8
    box_podman rm -fa -t 0
    same "$(box_podman ps -aq)" ''
}

# A shell that counts in a variable: restored, it goes on; started anew, it begins at 1. The number is a symlink's
# target: criu wants every file that is open for writing back as it was.
counting='i=0; while :; do i=$((i+1)); ln -sfn $i /tmp/m; mv /tmp/m /tmp/n; sleep 0.02; done'

podman_count_above() { [ "$(box_podman exec "$1" readlink /tmp/n)" -gt "$2" ]; }

podman_check_checkpoint_restore() {
    local n
    pbox -d --name c1 --net none localhost/box sh -c "$counting"
    until_true podman_count_above c1 20
    box_podman container checkpoint c1
    same "$(pinspect c1 '{{.State.Status}}')" exited
    box_podman container restore c1
    same "$(pinspect c1 '{{.State.Status}}')" running
    n=$(box_podman exec c1 readlink /tmp/n)
    [ "$n" -ge 20 ]
    until_true podman_count_above c1 "$n"
    # Moved: another container from an archive, with a root file system of its own.
    box_podman container checkpoint --leave-running --export "$work/podman/c1.tar" c1
    same "$(pinspect c1 '{{.State.Status}}')" running
    box_podman container restore --import "$work/podman/c1.tar" --name c2
    until_true podman_count_above c2 "$n"
    same "$(box_podman ps -q | wc -l)" 2
}
