# shellcheck shell=bash
# Debian's dockerd, its own containerd, and its own client, with our binary as the default runtime.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2016,SC2154 # $x in '' is for the container's shell; $work, $runtime, $cgroup: of hack/interop

docker_up() {
    local dir=$work/docker flags=()
    mkdir "$dir"
    # Bridges and ports need the packet filter; without it Docker still runs containers that have no network.
    docker_net=bridge
    if ! iptables -t nat -L -n >/dev/null; then
        docker_net=none
        flags=(--bridge=none --iptables=false)
    fi
    # An empty configuration: what the machine's own /etc/docker/daemon.json says must not matter.
    echo '{}' >"$dir/daemon.json"
    # The steps of a BuildKit build run on whatever is called runc.
    mkdir "$dir/bin"
    ln -s "$runtime" "$dir/bin/runc"
    PATH=$dir/bin:$PATH dockerd --config-file "$dir/daemon.json" --host "unix://$dir/sock" --pidfile "$dir/pid" \
        --data-root "$dir/data" --exec-root "$dir/exec" --cgroup-parent "$cgroup/docker" \
        --exec-opt native.cgroupdriver=cgroupfs --add-runtime "rrt=$runtime" --default-runtime rrt \
        "${flags[@]}" >"$logs/docker.daemon.log" 2>&1 &
    docker_pid=$!
    until_true box_docker version
    box_docker load <"$work/image.tar"
}

docker_down() {
    kill "$docker_pid" 2>/dev/null || true
    wait "$docker_pid" 2>/dev/null || true
}

# Debian's client by its path: another one may come first in PATH.
box_docker() { /usr/bin/docker --host "unix://$work/docker/sock" "$@"; }

box() { box_docker run "$@"; }

docker_clean() {
    # shellcheck disable=SC2046 # ids, one word each
    box_docker rm -f $(box_docker ps -aq)
}

inspect() { box_docker inspect --format "$2" "$1"; }
inspect_is() { [ "$(inspect "$1" "$2")" = "$3" ]; }
file_in() { box_docker exec "$1" test -e "$2"; }

# A program that answers TERM by leaving with 9, and says when it is ready for it.
ready_for_term='trap "exit 9" TERM; echo >/tmp/ready; while :; do sleep 0.05; done'
counter='i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.01; done'

docker_check_info() { like "$(box_docker info 2>&1)" 'Default Runtime: rrt'; }

docker_check_run() {
    same "$(box --rm -h box -w /tmp -e A=b localhost/box sh -c 'echo $A $FROM $$ $PWD $(hostname)')" 'b image 1 /tmp box'
}

docker_check_run_exit_status() { status_of 7 box --rm localhost/box sh -c 'exit 7'; }

docker_check_run_stdin_and_stderr() {
    same "$(echo in | box --rm -i localhost/box cat)" in
    same "$(box --rm localhost/box sh -c 'echo out; echo err >&2' 2>/dev/null)" out
}

docker_check_run_missing_program() {
    like "$(status_of 127 box --rm localhost/box no-such 2>&1)" 'executable file not found in \$PATH'
    like "$(status_of 127 box --rm localhost/box /no/such 2>&1)" 'no such file or directory'
    like "$(status_of 126 box --rm localhost/box /etc/passwd 2>&1)" 'permission denied'
}

docker_check_terminal() {
    local command="/usr/bin/docker --host unix://$work/docker/sock run --rm -it localhost/box"
    like "$(on_terminal "$command sh -c 'tty; test -t 0 && echo on-a-tty'")" '/dev/pts/0.*on-a-tty'
    # What is typed reaches the shell, and the shell's exit status comes back.
    like "$(printf 'echo $((6*7))-typed\nexit 3\n' | status_of 3 on_terminal "$command sh")" 42-typed
}

docker_check_terminal_size() {
    local command="/usr/bin/docker --host unix://$work/docker/sock run --rm -it localhost/box"
    like "$(on_terminal "stty rows 33 cols 111; $command sh -c 'sleep 0.5; stty size'")" '33 111'
}

docker_check_memory() {
    same "$(box --rm -m 64m localhost/box sh -c \
        "$(cgroup_value memory/memory.limit_in_bytes memory.max)")" 67108864
}

docker_check_out_of_memory() {
    # tail keeps its one endless line in memory.
    status_of 137 box --name c1 -m 16m --memory-swap 16m localhost/box tail /dev/zero
    same "$(inspect c1 '{{.State.OOMKilled}}')" true
}

docker_check_cpuset() {
    like "$(box --rm --cpuset-cpus 0 localhost/box grep Cpus_allowed_list /proc/self/status)" $'\t0$'
}

docker_check_cpus() {
    same "$(box --rm --cpus 0.5 localhost/box sh -c \
        "$(cgroup_value cpu/cpu.cfs_quota_us cpu.max)" | cut -d' ' -f1)" 50000
}

docker_check_pids_limit() {
    like "$(box --rm --pids-limit 8 localhost/box sh -c \
        'for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait' 2>&1 || true)" "can't fork"
}

docker_check_pid_of_container() {
    box -d --name c1 localhost/box sleep 1234
    like "$(box --rm --pid=container:c1 localhost/box ps)" 'sleep 1234'
}

docker_check_net_of_container() {
    box -d --name c1 localhost/box httpd -f -p 4000 -h /etc
    until_true box --rm --net=container:c1 localhost/box wget -q -O - http://127.0.0.1:4000/passwd
}

docker_check_ipc_and_uts() {
    box -d --name c1 --ipc=shareable localhost/box sleep 1000
    same "$(box --rm --ipc=container:c1 localhost/box readlink /proc/self/ns/ipc)" \
        "$(readlink "/proc/$(inspect c1 '{{.State.Pid}}')/ns/ipc")"
    same "$(box --rm --uts=host localhost/box hostname)" "$(hostname)"
}

docker_check_host_namespaces() {
    same "$(box --rm --net=host localhost/box readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
    same "$(box --rm --pid=host localhost/box readlink /proc/self/ns/pid)" "$(readlink /proc/self/ns/pid)"
    same "$(box --rm --ipc=host localhost/box readlink /proc/self/ns/ipc)" "$(readlink /proc/self/ns/ipc)"
}

docker_check_bridge() {
    [ "$docker_net" = bridge ] || return 0
    box -d --name c1 localhost/box sh -c 'mkdir /w; echo page >/w/index.html; httpd -f -h /w'
    local address
    address=$(inspect c1 '{{.NetworkSettings.IPAddress}}')
    until_true box --rm localhost/box wget -q -O - "http://$address/"
    box -d --name c2 -p 127.0.0.1:8080:80 localhost/box sh -c 'mkdir /w; echo port >/w/index.html; httpd -f -h /w'
    until_true wget_port
}
wget_port() { busybox wget -q -O - http://127.0.0.1:8080/ | grep -q port; }

docker_check_exec() {
    box -d --name c1 localhost/box sleep 1000
    same "$(box_docker exec -e A=b -w /tmp -u 1000:2000 c1 sh -c 'echo $A $PWD $(id -u) $(id -g)')" 'b /tmp 1000 2000'
    status_of 5 box_docker exec c1 sh -c 'exit 5'
    same "$(echo in | box_docker exec -i c1 cat)" in
    box_docker exec -d c1 sh -c 'echo >/tmp/detached'
    until_true file_in c1 /tmp/detached
}

docker_check_exec_terminal() {
    box -d --name c1 localhost/box sleep 1000
    like "$(on_terminal "/usr/bin/docker --host unix://$work/docker/sock exec -it c1 tty")" '/dev/pts/[0-9]'
}

docker_check_exec_missing_program() {
    box -d --name c1 localhost/box sleep 1000
    like "$(status_of 127 box_docker exec c1 no-such 2>&1 || status_of 126 box_docker exec c1 no-such 2>&1)" \
        'executable file not found in \$PATH'
    same "$(box_docker exec c1 echo still-there)" still-there
}

docker_check_stop() {
    box -d --name c1 localhost/box sh -c "$ready_for_term"
    until_true file_in c1 /tmp/ready
    box_docker stop c1
    same "$(inspect c1 '{{.State.Status}} {{.State.ExitCode}}')" 'exited 9'
}

docker_check_stop_by_kill() {
    box -d --name c1 localhost/box sh -c 'trap "" TERM; while :; do sleep 1; done'
    box_docker stop -t 1 c1
    same "$(inspect c1 '{{.State.Status}} {{.State.ExitCode}}')" 'exited 137'
}

docker_check_restart() {
    box -d --name c1 localhost/box sh -c "echo start; $ready_for_term"
    until_true file_in c1 /tmp/ready
    local before
    before=$(inspect c1 '{{.State.Pid}}')
    box_docker restart c1
    same "$(inspect c1 '{{.State.Running}}')" true
    [ "$(inspect c1 '{{.State.Pid}}')" != "$before" ]
    until_true log_lines c1 2
}
log_lines() { [ "$(box_docker logs "$1" | wc -l)" = "$2" ]; }

docker_check_restart_policy() {
    box -d --name c1 --restart on-failure:2 localhost/box sh -c 'echo start; exit 1'
    until_true log_lines c1 3
    until_true inspect_is c1 '{{.State.Status}} {{.RestartCount}}' 'exited 2'
}

docker_check_create_start_wait() {
    box_docker create --name c1 localhost/box sh -c 'echo hello; exit 4'
    box_docker start c1
    same "$(box_docker wait c1)" 4
    same "$(box_docker logs c1)" hello
}

docker_check_kill() {
    box -d --name c1 localhost/box sh -c 'trap "exit 12" USR1; echo >/tmp/ready; while :; do sleep 0.05; done'
    until_true file_in c1 /tmp/ready
    box_docker kill -s USR1 c1
    same "$(box_docker wait c1)" 12
    like "$(status_of 1 box_docker kill c1 2>&1)" 'is not running'
}

docker_check_pause() {
    box -d --name c1 localhost/box sh -c "$counter"
    until_true box_docker exec c1 test -s /tmp/n
    local root before
    root=/proc/$(inspect c1 '{{.State.Pid}}')/root
    box_docker pause c1
    same "$(inspect c1 '{{.State.Status}}')" paused
    before=$(cat "$root/tmp/n")
    sleep 0.3
    same "$(cat "$root/tmp/n")" "$before"
    box_docker unpause c1
    until_true differs "$root/tmp/n" "$before"
    box_docker pause c1
    box_docker rm -f c1
}
differs() { [ "$(cat "$1")" != "$2" ]; }

docker_check_init() {
    like "$(box --rm --init localhost/box cat /proc/1/comm)" 'docker-init|tini'
}

docker_check_read_only() {
    like "$(status_of 1 box --rm --read-only localhost/box touch /x 2>&1)" 'Read-only file system'
    box --rm --read-only --tmpfs /scratch localhost/box touch /scratch/x
}

docker_check_tmpfs() {
    like "$(box --rm --tmpfs /scratch:size=1m,mode=700,noexec localhost/box grep /scratch /proc/mounts)" \
        'tmpfs.*noexec.*size=1024k.*mode=700'
    like "$(box --rm --shm-size 2m localhost/box grep /dev/shm /proc/mounts)" 'size=2048k'
}

docker_check_volumes() {
    mkdir "$work/volume"
    box --rm -v "$work/volume:/v" localhost/box sh -c 'echo written >/v/f'
    same "$(cat "$work/volume/f")" written
    like "$(status_of 1 box --rm -v "$work/volume:/v:ro" localhost/box touch /v/g 2>&1)" 'Read-only file system'
    box --rm -v named:/v localhost/box touch /v/kept
    box --rm -v named:/v localhost/box test -e /v/kept
    # One file, on a mount point that does not exist in the image.
    same "$(box --rm -v "$work/volume/f:/new/dir/f:ro" localhost/box cat /new/dir/f)" written
    box_docker volume rm named
}

docker_check_mount_propagation() {
    mkdir -p "$work/shared"
    mount -t tmpfs none "$work/shared"
    mount --make-shared "$work/shared"
    mkdir "$work/shared/d"
    box -d --name c1 -v "$work/shared:/v:rslave" localhost/box sleep 1000
    mount -t tmpfs none "$work/shared/d"
    touch "$work/shared/d/late"
    until_true file_in c1 /v/d/late
    umount "$work/shared/d" "$work/shared"
}

docker_check_update() {
    box -d --name c1 -m 64m localhost/box sleep 1000
    box_docker update -m 32m --memory-swap 32m --cpus 0.25 --pids-limit 20 c1
    same "$(box_docker exec c1 sh -c "$(cgroup_value memory/memory.limit_in_bytes memory.max)")" 33554432
    same "$(box_docker exec c1 sh -c "$(cgroup_value cpu/cpu.cfs_quota_us cpu.max)" | cut -d' ' -f1)" 25000
    same "$(box_docker exec c1 sh -c "$(cgroup_value pids/pids.max pids.max)")" 20
}

docker_check_top() {
    box -d --name c1 localhost/box sleep 1234
    like "$(box_docker top c1)" 'sleep 1234'
}

docker_check_stats() {
    box -d --name c1 -m 64m localhost/box sleep 1000
    like "$(box_docker stats --no-stream --format '{{.PIDs}} {{.MemUsage}}' c1)" '^1 [1-9].* / 64MiB'
}

docker_check_user() {
    same "$(box --rm --user 1000:1000 --group-add 2000 localhost/box id)" \
        'uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)'
    same "$(box --rm --user user localhost/box id -u)" 1000
    like "$(box --rm --user 1000 localhost/box grep CapEff /proc/self/status)" '0000000000000000'
}

docker_check_capabilities() {
    like "$(status_of 1 box --rm --cap-drop CHOWN localhost/box chown 1000 /etc/passwd 2>&1)" 'Operation not permitted'
    box --rm localhost/box chown 1000 /etc/passwd
    box --rm --cap-add SYS_ADMIN localhost/box mount -t tmpfs none /tmp
    like "$(box --rm --cap-drop ALL localhost/box grep CapBnd /proc/self/status)" '0000000000000000'
}

docker_check_no_new_privileges() {
    like "$(box --rm --security-opt no-new-privileges localhost/box grep NoNewPrivs /proc/self/status)" '1$'
    like "$(box --rm localhost/box grep NoNewPrivs /proc/self/status)" '0$'
}

docker_check_seccomp() {
    # Docker's own profile, which is what every container above and below has.
    same "$(box --rm localhost/box awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 2
    same "$(box --rm --security-opt seccomp=unconfined localhost/box awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 0
    box -d --name c1 localhost/box sleep 1000
    same "$(box_docker exec c1 awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 2
    # The profile allows mount(2) with CAP_SYS_ADMIN only, and chmod always.
    echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat"],"action":"SCMP_ACT_ERRNO"}]}' \
        >"$work/docker/profile.json"
    box --rm localhost/box sh -c 'touch /tmp/x && chmod 700 /tmp/x'
    like "$(box --rm --security-opt "seccomp=$work/docker/profile.json" localhost/box \
        sh -c 'touch /tmp/x && chmod 700 /tmp/x' 2>&1 || true)" 'Operation not permitted'
}

docker_check_build() {
    local dir=$work/docker/build kit
    mkdir -p "$dir"
    printf 'FROM localhost/box\nRUN awk "/^Seccomp:/ { print \\$2 }" /proc/self/status >/seccomp && echo made >/made\n' >"$dir/Dockerfile"
    # Docker's old builder, which makes containers, and BuildKit, which calls the runtime itself.
    for kit in 0 1; do
        DOCKER_BUILDKIT=$kit box_docker build --no-cache -t "localhost/built$kit" "$dir"
        same "$(box --rm "localhost/built$kit" cat /made /seccomp | tr '\n' ' ')" 'made 2 '
    done
    # The group above BuildKit's steps, which nobody removes.
    find /sys/fs/cgroup -depth -type d -path "*$cgroup/docker/buildkit" -exec rmdir {} +
}

docker_check_privileged() {
    # Where root itself lacks some of them, as in a container.
    ! lacks_capabilities || known_of runc "a capability that cannot be granted is an error before runtime-spec 1.3"
    box --rm --privileged localhost/box mount -t tmpfs none /tmp
    # Every device of the host, and nothing masked or read-only.
    box --rm --privileged localhost/box sh -c 'test -e /dev/kmsg && ! grep -q " /proc/sys proc ro" /proc/mounts'
    box --rm localhost/box sh -c '! test -e /dev/kmsg && grep -q " /proc/sys proc ro" /proc/mounts'
}

docker_check_exec_privileged() {
    ! lacks_capabilities || known_of runc "a capability that cannot be granted is an error before runtime-spec 1.3"
    # The container's seccomp profile holds for it all the same, and Docker's forbids mounting.
    box -d --name c1 --security-opt seccomp=unconfined localhost/box sleep 1000
    box_docker exec --privileged c1 mount -t tmpfs none /tmp
    status_of 1 box_docker exec c1 mount -t tmpfs none /tmp
}

docker_check_masked_paths() {
    same "$(box --rm localhost/box sh -c 'cat /proc/kcore; ls /proc/acpi /sys/firmware' 2>/dev/null | grep -v : | tr -d '\n')" ''
}

docker_check_devices() {
    # kmsg: not on the list of devices that every container may use, and at hand everywhere.
    local open_both='dd if=/dev/mine of=/dev/null count=0; echo $?; dd if=/dev/null of=/dev/mine; echo $?'
    same "$(box --rm --cap-add SYSLOG --device /dev/kmsg:/dev/mine localhost/box sh -c "$open_both" 2>/dev/null)" $'0\n0'
    same "$(box --rm --cap-add SYSLOG --device /dev/kmsg:/dev/mine:r localhost/box sh -c "$open_both" 2>/dev/null)" $'0\n1'
    # A node made inside, for a device that is not on the list, must not open.
    like "$(status_of 1 box --rm localhost/box sh -c 'mknod /tmp/k c 1 11 && cat /tmp/k' 2>&1)" 'Operation not permitted'
}

docker_check_sysctl_and_ulimit() {
    same "$(box --rm --sysctl net.ipv4.ip_default_ttl=33 localhost/box cat /proc/sys/net/ipv4/ip_default_ttl)" 33
    same "$(box --rm --ulimit nofile=123:456 localhost/box sh -c 'ulimit -Sn; ulimit -Hn' | tr '\n' ' ')" '123 456 '
}

docker_check_cgroup_namespace() {
    like "$(box --rm --cgroupns private localhost/box cat /proc/self/cgroup)" ':/($|[[:space:]])'
    like "$(box --rm --cgroupns host localhost/box cat /proc/self/cgroup)" "$cgroup/docker"
}

docker_check_health() {
    box -d --name c1 --health-cmd 'test -e /tmp/well' --health-interval 0.2s --health-start-period 30s \
        localhost/box sh -c 'touch /tmp/well; sleep 1000'
    until_true inspect_is c1 '{{.State.Health.Status}}' healthy
}

docker_check_copy_and_diff() {
    box -d --name c1 localhost/box sh -c 'echo in >/made; sleep 1000'
    until_true file_in c1 /made
    box_docker cp c1:/made "$work/made"
    same "$(cat "$work/made")" in
    box_docker cp "$work/made" c1:/tmp/back
    same "$(box_docker exec c1 cat /tmp/back)" in
}

docker_check_many_at_once() {
    local n
    for n in {1..8}; do box -d --name "m$n" localhost/box sleep 1000 & done
    wait
    same "$(box_docker ps -q | wc -l)" 8
    # shellcheck disable=SC2046 # ids, one word each
    box_docker rm -f $(box_docker ps -aq)
}

docker_check_nothing_left() {
    same "$(find /sys/fs/cgroup -path "*$cgroup/docker/*" -type d)" ''
    same "$(find "$work/docker/exec/runtime-runc/moby" "$work"/docker/exec/runtime-*/moby -mindepth 1 -maxdepth 1 2>/dev/null)" ''
}
