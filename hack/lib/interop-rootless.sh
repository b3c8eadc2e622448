# shellcheck shell=bash
# Debian's podman and buildah as an ordinary user, and our binary as --runtime.
# podman is root of a user namespace of its own then, with the ids lent to the user, and calls the runtime in there.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2016,SC2154 # $x in '' is for the container's shell; $work, $runtime: of hack/interop

# Nobody's, on any machine; and what is lent to it. The user is in a further group, which is not lent.
user=54321
user_group=54322
user_range=100000:65536

rootless_up() {
    local dir=$work/rootless
    mkdir -p "$dir/etc/cni/net.d" "$dir/home/v" "$dir/build" "/run/user/$user"
    # Root's home, where the runtime may have been built, is closed to others.
    cp "$runtime" "$dir/${runtime##*/}"
    user_runtime=$dir/${runtime##*/}
    { cat /etc/passwd && echo "tester:x:$user:$user::$dir/home:/bin/sh"; } >"$dir/etc/passwd"
    { cat /etc/group && echo "tester:x:$user:" && echo "testers:x:$user_group:tester"; } >"$dir/etc/group"
    echo "tester:$user_range" | tee "$dir/etc/subuid" >"$dir/etc/subgid"
    # Here as in hack/rootless the user exists for this script alone.
    mount -t overlay -o "lowerdir=$dir/etc:/etc" overlay /etc
    mknod -m 666 "$dir/tun" c 10 200
    mount --bind "$dir/tun" /dev/net/tun
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
	END
    printf '[storage]\ndriver = "overlay"\n' >"$dir/storage.conf"
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$dir/policy.json"
    printf 'FROM localhost/box\nRUN id -u >/uid && grep -c . /proc/self/uid_map >/maps\nCMD cat /uid /maps\n' >"$dir/build/Containerfile"
    chmod 700 "/run/user/$user"
    chown -R "$user:$user" "$dir/home" "/run/user/$user"
    user_podman load --signature-policy "$dir/policy.json" -i "$work/image.tar"
    same "$(user_podman info --format '{{.Host.Security.Rootless}}')" true
}

rootless_down() {
    user_podman system migrate >/dev/null 2>&1 || true
    umount -l /dev/net/tun
    umount -l /etc
}

# as_user PROGRAM...: with nothing of root's environment. PATH is not root's either, whose parts a user may not enter.
as_user() {
    (cd "$work/rootless/home" && setpriv --reuid "$user" --regid "$user" --groups "$user,$user_group" env -i \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME="$work/rootless/home" XDG_RUNTIME_DIR="/run/user/$user" \
        TMPDIR=/tmp CONTAINERS_CONF="$work/rootless/containers.conf" CONTAINERS_STORAGE_CONF="$work/rootless/storage.conf" \
        "$@")
}

user_podman() { as_user podman --runtime "$user_runtime" "$@"; }
ubox() { user_podman run --net none "$@"; }
urun() { ubox --rm "$@"; }

rootless_clean() {
    user_podman pod rm -fa -t 0
    user_podman rm -fa -t 0
    user_podman volume prune -f
}

uinspect_is() { [ "$(user_podman inspect --format "$2" "$1")" = "$3" ]; }
ulogged() { [ "$(user_podman logs "$1" 2>&1 | sort | tr '\n' ' ')" = "$2" ]; }
ustarted() { [ "$(user_podman exec "$1" grep -c '' /tmp/starts)" = "$2" ]; }
ufile_in() { user_podman exec "$1" test -e "$2"; }
uname_of() { user_podman exec "$1" readlink "/proc/self/ns/$2"; }

rootless_check_run() {
    same "$(urun -h box -w /tmp -e A=b localhost/box sh -c 'echo $A $FROM $$ $PWD $(hostname) $(id -u)')" 'b image 1 /tmp box 0'
    same "$(urun localhost/box cat /proc/self/uid_map | tr -s ' ')" $' 0 54321 1\n 1 100000 65536'
    status_of 7 urun localhost/box sh -c 'exit 7'
    same "$(echo in | urun -i localhost/box cat)" in
}

rootless_check_run_missing_program() {
    like "$(status_of 127 urun localhost/box no-such 2>&1)" 'executable file.*not found in \$PATH'
    like "$(status_of 126 urun localhost/box /etc/passwd 2>&1)" '[Pp]ermission denied'
    same "$(user_podman ps -aq)" ''
}

rootless_check_terminal() {
    local line
    printf -v line '%q ' podman --runtime "$user_runtime" run --rm -it --net none localhost/box sh -c 'tty; sleep 0.3; test -t 0 && exit 3'
    export -f as_user
    like "$(user=$user user_group=$user_group work=$work status_of 3 on_terminal "as_user $line")" '/dev/pts/0'
}

rootless_check_exec() {
    ubox -d --name c1 localhost/box sleep 1000
    same "$(user_podman exec -e A=b -w /tmp -u 1000:2000 c1 sh -c 'echo $A $PWD $(id -u) $(id -g)')" 'b /tmp 1000 2000'
    status_of 5 user_podman exec c1 sh -c 'exit 5'
    same "$(echo in | user_podman exec -i c1 cat)" in
    like "$(status_of 127 user_podman exec c1 no-such 2>&1)" 'executable file.*not found in \$PATH'
    user_podman exec -d c1 sh -c 'echo >/tmp/detached'
    until_true ufile_in c1 /tmp/detached
}

rootless_check_ps_top_inspect_logs() {
    ubox -d --name c1 localhost/box sh -c 'echo out; echo err >&2; exec sleep 1234'
    like "$(user_podman ps --format '{{.Names}} {{.Status}}')" '^c1 Up '
    like "$(user_podman top c1)" 'sleep 1234'
    same "$(user_podman inspect --format '{{.State.Status}} {{.OCIRuntime}}' c1)" "running $user_runtime"
    until_true ulogged c1 'err out '
}

rootless_check_stop_start_kill_rm() {
    ubox -d --name c1 localhost/box \
        sh -c 'trap "exit 9" TERM; trap "exit 12" USR1; echo >>/tmp/starts; while :; do sleep 0.05; done'
    until_true ustarted c1 1
    user_podman stop c1
    same "$(user_podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' c1)" 'exited 9'
    user_podman start c1
    until_true ustarted c1 2
    user_podman kill -s USR1 c1
    same "$(user_podman wait c1)" 12
    user_podman rm c1
    ubox -d --name c2 localhost/box sleep 1000
    user_podman rm -f -t 0 c2
    same "$(user_podman ps -aq)" ''
    same "$(ls "/run/user/$user/${runtime##*/}" 2>/dev/null)" ''
}

# The container has no cgroup: all its processes are found all the same.
rootless_check_kill_leaves_no_process() {
    ubox -d --name c1 --pid host localhost/box sh -c 'sleep 4321 & sleep 4321 & wait'
    until_true pgrep -f 'sleep 4321'
    user_podman rm -f -t 0 c1
    known_of runc "without a cgroup it does not find what a shared pid namespace hides"
    until_true none_runs 'sleep 4321'
}
none_runs() { ! pgrep -f "$1"; }

rootless_check_create_init_start() {
    user_podman create --name c1 --net none localhost/box sh -c 'echo hello; exit 4'
    user_podman init c1
    same "$(user_podman logs c1)" ''
    user_podman start c1
    same "$(user_podman wait c1)" 4
    same "$(user_podman logs c1)" hello
}

rootless_check_keep_id() {
    same "$(urun --userns keep-id localhost/box sh -c 'echo $(id -u) $(id -g)')" "$user $user"
    # A file of the user's is the user's inside, and one made inside is his outside.
    urun --userns keep-id -v "$work/rootless/home/v:/v" localhost/box sh -c 'echo x >/v/kept'
    same "$(stat -c '%u:%g' "$work/rootless/home/v/kept")" "$user:$user"
    same "$(urun --userns nomap localhost/box cat /proc/self/uid_map | tr -s ' ')" ' 0 1 65536'
    like "$(urun --userns auto localhost/box cat /proc/self/uid_map)" '0 +[0-9]+ +1024'
    same "$(urun --uidmap 0:1:1000 --gidmap 0:1:1000 localhost/box cat /proc/self/uid_map | tr -s ' ')" ' 0 1 1000'
}

rootless_check_joined_namespaces() {
    ubox -d --name c1 localhost/box sleep 1234
    like "$(user_podman run --rm --net container:c1 --pid container:c1 localhost/box ps)" 'sleep 1234'
    like "$(user_podman run --rm --net container:c1 --ipc container:c1 --uts container:c1 localhost/box hostname)" '^[0-9a-f]+$'
    like "$(user_podman run --rm --pid container:c1 localhost/box sh -c 'ps; ip addr')" 'sleep 1234.*tap0'
    same "$(user_podman exec c1 cat /proc/1/comm)" sleep
    ubox -d --name c2 --userns keep-id localhost/box sleep 1234
    same "$(urun --userns container:c2 localhost/box cat /proc/self/uid_map)" "$(user_podman exec c2 cat /proc/self/uid_map)"
    like "$(user_podman run --rm --userns container:c2 --net container:c2 --pid container:c2 localhost/box ps)" 'sleep 1234'
}

rootless_check_host_namespaces() {
    like "$(user_podman run --rm --net host localhost/box ip addr)" '127.0.0.1'
    like "$(urun --pid host localhost/box ps)" 'podman pause'
    same "$(urun --uts host localhost/box hostname)" "$(hostname)"
}

# pod_works FLAG...: a pod whose containers share network, IPC, UTS and pid namespace.
pod_works() {
    user_podman pod create --name p1 --infra-image localhost/box --infra-command 'sleep 1000' --net none \
        --share net,ipc,uts,pid "$@"
    user_podman run -d --pod p1 --name web localhost/box httpd -f -p 4000 -h /etc
    until_true user_podman run --rm --pod p1 localhost/box wget -q -O - http://127.0.0.1:4000/passwd
    user_podman run -d --pod p1 --name other localhost/box sleep 1000
    local kind
    for kind in net ipc uts pid user; do same "$(uname_of other "$kind")" "$(uname_of web "$kind")"; done
    same "$(user_podman exec other cat /proc/1/comm)" sleep
    user_podman pod stop -t 0 p1
    user_podman pod start p1
    same "$(user_podman pod ps --format '{{.Status}}')" Running
    user_podman pod rm -f -t 0 p1
    same "$(user_podman ps -aq)" ''
}

rootless_check_pod() { pod_works; }
rootless_check_pod_with_keep_id() { pod_works --userns keep-id; }

rootless_check_volumes() {
    urun -v "$work/rootless/home/v:/v" localhost/box sh -c 'echo written >/v/f'
    same "$(cat "$work/rootless/home/v/f") $(stat -c %u "$work/rootless/home/v/f")" "written $user"
    like "$(status_of 1 urun -v "$work/rootless/home/v:/v:ro" localhost/box touch /v/g 2>&1)" 'Read-only file system'
    urun -v named:/v localhost/box sh -c 'echo kept >/v/f'
    same "$(urun -v named:/v:ro localhost/box cat /v/f)" kept
    like "$(status_of 1 urun --read-only localhost/box touch /x 2>&1)" 'Read-only file system'
    like "$(urun --tmpfs /scratch:size=1m,noexec localhost/box grep /scratch /proc/mounts)" 'noexec'
    # What the host's root has made read-only stays so.
    mount -t tmpfs tmpfs /mnt && mount -o remount,ro,nosuid,nodev /mnt
    status_of 1 user_podman system migrate 2>/dev/null || true
    like "$(status_of 1 urun --privileged -v /mnt:/v localhost/box sh -c 'mount -o remount,bind,rw /v; touch /v/x' 2>&1)" 'Read-only|denied|permitted'
    umount -l /mnt
}

rootless_check_devices() {
    urun --device /dev/net/tun localhost/box sh -c 'test -c /dev/net/tun && : <>/dev/net/tun'
    like "$(status_of 1 urun localhost/box mknod /dev/x c 1 3 2>&1)" 'not permitted'
}

rootless_check_user_and_groups() {
    same "$(urun --user 1000:1000 --group-add 2000 localhost/box id)" 'uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)'
    known_of runc "it has no run.oci.keep_original_groups"
    # The group is not lent, so it has no name in there, but its rights.
    install -m 640 -o root -g "$user_group" /dev/null "$work/rootless/home/v/group"
    status_of 1 urun -v "$work/rootless/home/v:/v" localhost/box cat /v/group
    urun --group-add keep-groups -v "$work/rootless/home/v:/v" localhost/box cat /v/group
}

rootless_check_process_properties() {
    like "$(urun --cap-drop ALL localhost/box grep CapBnd /proc/self/status)" '0000000000000000'
    same "$(urun --ulimit nofile=100:100 localhost/box sh -c 'ulimit -n')" 100
    same "$(urun --sysctl kernel.msgmax=1234 localhost/box cat /proc/sys/kernel/msgmax)" 1234
    same "$(urun --oom-score-adj 100 localhost/box cat /proc/self/oom_score_adj)" 100
    same "$(urun localhost/box awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 2
    same "$(urun --security-opt seccomp=unconfined localhost/box awk '/^Seccomp:/ { print $2 }' /proc/self/status)" 0
}

rootless_check_privileged() { urun --privileged localhost/box mount -t tmpfs none /tmp; }

rootless_check_without_cgroups() {
    known_of runc "podman does not ask it to go without cgroups"
    same "$(urun --cgroups disabled localhost/box echo works)" works
}

# A machine on which no cgroup is mounted at all.
rootless_check_no_cgroup_mounted() {
    known_of runc "podman does not ask it to go without cgroups"
    user_podman system migrate
    export -f as_user user_podman urun ubox
    export user user_group work user_runtime
    same "$(unshare --mount bash -c 'umount -R -l /sys/fs/cgroup && urun --cgroups disabled localhost/box echo works')" works
    user_podman system migrate
}

rootless_check_limits_are_told() {
    same "$(urun -m 64m localhost/box echo works 2>/dev/null)" works
    ubox -d --name c1 localhost/box sleep 1000
    like "$(status_of 125 user_podman pause c1 2>&1)" 'cgroup'
    same "$(user_podman exec c1 echo still-there)" still-there
}

rootless_check_slirp4netns() {
    like "$(user_podman run --rm localhost/box ip addr)" 'tap0.*10\.0\.2\.100'
    user_podman run -d --name w -p 127.0.0.1:4001:4000 localhost/box httpd -f -p 4000 -h /etc
    until_true busybox wget -q -O - http://127.0.0.1:4001/passwd
    like "$(user_podman run --rm --net slirp4netns:allow_host_loopback=true localhost/box wget -q -O - http://10.0.2.2:4001/passwd)" root
}

rootless_check_build() {
    local isolation
    for isolation in oci rootless; do
        user_podman build --no-cache --signature-policy "$work/rootless/policy.json" --isolation "$isolation" --net none \
            -t "localhost/built-$isolation" "$work/rootless/build"
        same "$(urun "localhost/built-$isolation")" $'0\n2'
    done
}

rootless_check_buildah() {
    local from
    as_user buildah bud --no-cache --signature-policy "$work/rootless/policy.json" --isolation oci --runtime "$user_runtime" \
        --net none -t localhost/built-bud "$work/rootless/build"
    same "$(urun localhost/built-bud)" $'0\n2'
    from=$(as_user buildah from --signature-policy "$work/rootless/policy.json" localhost/box)
    same "$(as_user buildah run --isolation oci --runtime "$user_runtime" --net none "$from" -- id -u)" 0
    as_user buildah rm "$from"
}

# The runtime inside of a container of the user's, with CAP_SYS_ADMIN and CAP_NET_ADMIN; and without, where the inner
# container has a user namespace, with /proc unmasked and without podman's seccomp profile, which has no sethostname(2) then.
rootless_check_inside_of_a_container() {
    known_of runc "no static program that could be put into a container"
    local bundle=$work/rootless/home/inner in
    mkdir -p "$bundle"
    [ -d "$bundle/rootfs" ] || make_rootfs "$bundle/rootfs"
    in="cd /in && rm -f config.json && rt spec \$how && sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"\$/\"id\", \"-u\"/' config.json &&
        rt --root /tmp/state run inner"
    chown -R "$user:$user" "$bundle"
    in_container() { urun -v "$user_runtime:/bin/rt:ro" -v "$bundle:/in" "$@"; }
    same "$(in_container --cap-add SYS_ADMIN,NET_ADMIN localhost/box sh -c "how=; $in")" 0
    same "$(in_container --security-opt unmask=ALL --security-opt seccomp=unconfined localhost/box sh -c "how=--rootless; $in")" 0
    # What podman's own masks and seccomp profile are in the way of is told.
    like "$(status_of 1 in_container --security-opt unmask=ALL localhost/box sh -c "how=--rootless; $in" 2>&1)" seccomp=unconfined
    like "$(status_of 1 in_container --security-opt seccomp=unconfined localhost/box sh -c "how=--rootless; $in" 2>&1)" unmask=ALL
}

rootless_check_no_descriptors_leak() {
    ubox -d --name c1 localhost/box sleep 1000
    same "$(find "/proc/$(user_podman inspect --format '{{.State.Pid}}' c1)/fd" -type l -printf '%f\n' | sort | tr '\n' ' ')" '0 1 2 '
}

rootless_check_many_at_once() {
    local n
    for n in {1..6}; do ubox -d --name "m$n" localhost/box sleep 1000 & done
    wait
    same "$(user_podman ps -q | wc -l)" 6
    user_podman rm -fa -t 0
    same "$(user_podman ps -aq)" ''
}
