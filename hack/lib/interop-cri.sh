# shellcheck shell=bash
# containerd's CRI plugin with our shim, called as a kubelet calls it (lib/cri.py): pods with the host's network, and what is in them.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2154 # $work, $runtime, $shim, $cgroup, $top: of hack/interop

cri_up() {
    local dir=$work/cri
    mkdir -p "$dir/bin" "$dir/image"
    ln -sf "$shim" "$dir/bin/containerd-shim-rrt-v2"
    cat >"$dir/config.toml" <<-END
	version = 2
	root = "$dir/root"
	state = "$dir/state"
	[grpc]
	  address = "$dir/sock"
	[ttrpc]
	  address = "$dir/ttrpc"
	[plugins."io.containerd.grpc.v1.cri"]
	  # A machine may lack CAP_SYS_RESOURCE.
	  restrict_oom_score_adj = true
	  sandbox_image = "localhost/pause:latest"
	  [plugins."io.containerd.grpc.v1.cri".containerd]
	    default_runtime_name = "rrt"
	  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rrt]
	    runtime_type = "io.containerd.rrt.v2"
	    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rrt.options]
	      ConfigPath = "$dir/options.toml"
	END
    # containerd 1.6 gives a shim that it does not know nothing but this path.
    printf 'BinaryName = "%s"\n' "$runtime" >"$dir/options.toml"
    # The image of a pod's own container: it only has to wait.
    cp "$work/image/layer.tar" "$dir/image"
    sed 's/"Cmd":\["sh"\]/"Cmd":["sleep","1000000"]/' "$work/image/config.json" >"$dir/image/config.json"
    sed 's,localhost/box,localhost/pause,' "$work/image/manifest.json" >"$dir/image/manifest.json"
    tar -C "$dir/image" -cf "$dir/pause.tar" config.json manifest.json layer.tar
    cri_containerd
    for image in "$work/image.tar" "$dir/pause.tar"; do ctr --address "$dir/sock" -n k8s.io image import "$image"; done
}

cri_containerd() {
    PATH=$work/cri/bin:$PATH containerd --config "$work/cri/config.toml" >>"$logs/cri.daemon.log" 2>&1 9>&- &
    until_true test -S "$work/cri/sock"
    until_true ctr --address "$work/cri/sock" version
}

cri_down() {
    pkill -x containerd || true
    until_true eval '! pgrep -x containerd'
}

cri() { "$top/hack/lib/cri.py" "$work/cri/sock" "$@"; }

# The pods of a check are in $pods, so that cri_clean finds them.
new_pod() {
    pod=$(cri pod "$1" "$1" "$cgroup/$1" "$work/pods/$1" rrt)
    printf '%s\n' "$pod" >>"$work/pods.list"
}
new_container() {
    local name=$1 in_pod=$2
    shift 2
    cri create "$pod" "$name" localhost/box:latest "$name.log" "$in_pod" "$cgroup/$in_pod" "$work/pods/$in_pod" "$@"
}

cri_clean() {
    local id
    while read -r id; do
        cri stop-pod "$id"
        cri remove-pod "$id"
    done <"$work/pods.list"
    rm -f "$work/pods.list"
}

state_is() { [ "$(cri state "$1")" = "$2" ]; }

cri_check_a_pod() {
    local c
    new_pod p1
    c=$(new_container a p1 sh -c 'echo out; echo err >&2; sleep 1000')
    cri start "$c"
    same "$(cri state "$c")" "1 0"
    same "$(pgrep -cf containerd-shim-rrt-v2)" 1
    same "$(cri exec "$c" echo hello)" hello
    status_of 5 cri exec "$c" sh -c 'exit 5'
    until_true grep -q 'stdout F out' "$work/pods/p1/a.log"
    until_true grep -q 'stderr F err' "$work/pods/p1/a.log"
    cri stop "$c"
    same "$(cri state "$c")" "2 137"
    cri remove "$c"
    cri stop-pod "$pod"
    cri remove-pod "$pod"
    rm "$work/pods.list"
    until_true eval '! pgrep -f containerd-shim-rrt-v2'
    same "$(find /sys/fs/cgroup -type d -path "*$cgroup/p1/*")" ""
}

cri_check_exit_code() {
    local c
    new_pod p2
    c=$(new_container a p2 sh -c 'exit 7')
    cri start "$c"
    until_true state_is "$c" "2 7"
}

cri_check_statistics() {
    local c cpu memory
    new_pod p3
    c=$(new_container a p3 sh -c 'while :; do :; done')
    cri start "$c"
    sleep 1
    read -r cpu memory < <(cri stats "$c")
    [ "$cpu" -gt 1000000 ]
    [ "$memory" -gt 0 ]
}

# The pause container ends last, and a pod of several containers has one shim.
cri_check_many_containers() {
    local c n ids=()
    new_pod p4
    for n in {1..5}; do
        c=$(new_container "c$n" p4 sleep 1000)
        cri start "$c"
        ids+=("$c")
    done
    same "$(pgrep -cf containerd-shim-rrt-v2)" 1
    for c in "${ids[@]}"; do same "$(cri exec "$c" echo x)" x; done
}

cri_check_containerd_restarts() {
    local running ending
    new_pod p5
    running=$(new_container a p5 sleep 1000)
    ending=$(new_container b p5 sh -c 'sleep 2; exit 9')
    cri start "$running"
    cri start "$ending"
    pkill -KILL -x containerd
    sleep 3
    cri_containerd
    until_true state_is "$ending" "2 9"
    same "$(cri state "$running")" "1 0"
    same "$(cri exec "$running" echo still-here)" still-here
}
