# shellcheck shell=bash
# containerd's CRI plugin with our shim, called as a kubelet calls it (lib/cri.py, and lib/cri_stream.py for streams): pods with
# the host's network and with a bridge of CNI, and what is in them; and the same plugin with containerd's own shim calling rrt.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2016,SC2154 # $x in '' is for the container; $work, $runtime, $shim, $cgroup, $top: of hack/interop

cri_up() {
    local dir=$work/cri
    # containerd 1.6 gives a shim that it does not know nothing but a path; 1.7 and later, without one, the whole table.
    local driver=false ours="ConfigPath = \"$work/cri/options.toml\""
    if [ -n "$systemd" ]; then
        driver=true
        ours=$(printf 'BinaryName = "%s"\n\t      SystemdCgroup = true' "$runtime")
    fi
    mkdir -p "$dir/bin" "$dir/image" "$dir/net.d"
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
	      $ours
	  # Our shim by its path: then containerd gives it options in the type of its own.
	  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rrt-by-path]
	    runtime_type = "io.containerd.runc.v2"
	    runtime_path = "$dir/bin/containerd-shim-rrt-v2"
	    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rrt-by-path.options]
	      BinaryName = "$runtime"
	      SystemdCgroup = $driver
	  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc-shim]
	    runtime_type = "io.containerd.runc.v2"
	    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc-shim.options]
	      BinaryName = "$runtime"
	      SystemdCgroup = $driver
	  [plugins."io.containerd.grpc.v1.cri".cni]
	    bin_dir = "/usr/lib/cni"
	    conf_dir = "$dir/net.d"
	END
    cat >"$dir/net.d/10-pods.conflist" <<-END
	{ "cniVersion": "0.4.0", "name": "pods", "plugins": [{ "type": "bridge", "bridge": "rrt-pods", "isGateway": true,
	  "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.213.0.0/24" }]] } }] }
	END
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

# new_pod NAME [pod|net-pod|user-pod [HANDLER]]: $pod is its id. The pods of a check are in a list, so that cri_clean finds them.
new_pod() {
    pod=$(cri "${2:-pod}" "$1" "$1" "$(pod_cgroup "$1")" "$work/pods/$1" "${3:-rrt}")
    printf '%s\n' "$pod" >>"$work/pods.list"
}
# new_container NAME POD WORD...: prints its id; $flags as cri.py has them.
new_container() {
    local name=$1 in_pod=$2
    shift 2
    cri create "$pod" "$name" "${flags:--}" localhost/box:latest "$name.log" "$in_pod" "$(pod_cgroup "$in_pod")" "$work/pods/$in_pod" "$@"
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
    same "$(pgrep -cf 'containerd-shim-rrt-v2 -namespace')" 1
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
    until_true eval '! pgrep -f "containerd-shim-rrt-v2 -namespace"'
    same "$(find /sys/fs/cgroup -type d -path "*$(pod_cgroup p1)/*")" ""
}

# A limit that CRI asks for is the kernel's, and systemd's when it has the cgroups; afterwards nobody knows of the container.
cri_check_limit() {
    local c dir file=memory.max
    new_pod p12
    c=$(flags=m new_container a p12 sleep 1000)
    cri start "$c"
    dir=$(find /sys/fs/cgroup -type d -path "*$(pod_cgroup p12)/*$c*" | { grep -E '/memory/' || true; } | head -n 1)
    [ -n "$dir" ] && file=memory.limit_in_bytes || dir=$(find /sys/fs/cgroup -type d -path "*$(pod_cgroup p12)/*$c*" | head -n 1)
    same "$(cat "$dir/$file")" 67108864
    if [ -n "$systemd" ]; then
        same "$(basename "$dir")" "cri-containerd-$c.scope"
        same "$(systemctl show --value --property MemoryMax "cri-containerd-$c.scope")" 67108864
        same "$(systemctl show --value --property Slice "cri-containerd-$c.scope")" "$(pod_cgroup p12)"
    fi
    cri stop "$c"
    cri remove "$c"
    [ ! -e "$dir" ]
    [ -z "$systemd" ] || until_true unknown_unit "cri-containerd-$c.scope"
}
unknown_unit() { [ "$(systemctl show --value --property LoadState "$1")" = not-found ]; }

# What a kubelet shows as the reason: from the shim's event, which comes before the end.
cri_check_out_of_memory() {
    local c
    new_pod p13
    c=$(flags=m new_container a p13 sh -c 'exec dd if=/dev/zero of=/dev/null bs=256M count=1')
    cri start "$c"
    until_true state_is "$c" "2 137"
    same "$(cri reason "$c")" OOMKilled
    c=$(flags=m new_container b p13 sh -c 'exit 137')
    cri start "$c"
    until_true state_is "$c" "2 137"
    same "$(cri reason "$c")" Error
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
    same "$(pgrep -cf 'containerd-shim-rrt-v2 -namespace')" 1
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

# Two pods on CNI's bridge, each with an address of its own, reach each other and nothing but their own loopback.
cri_check_bridge() {
    local a b c d
    new_pod p6 net-pod
    a=$(cri ip "$pod")
    c=$(new_container a p6 nc -ll -p 80 -e echo from-a)
    new_pod p7 net-pod
    b=$(cri ip "$pod")
    d=$(new_container b p7 nc -ll -p 80 -e echo from-b)
    cri start "$c"
    cri start "$d"
    like "$a $b" '^10\.213\.0\.[0-9]+ 10\.213\.0\.[0-9]+$'
    [ "$a" != "$b" ]
    until_true cri exec "$c" nc -w 5 "$b" 80
    until_true cri exec "$d" nc -w 5 "$a" 80
    same "$(cri exec "$c" nc -w 5 "$b" 80)" from-b
    same "$(cri exec "$d" nc -w 5 "$a" 80)" from-a
    same "$(cri exec "$d" nc -w 5 127.0.0.1 80)" from-b
    like "$(cri exec "$d" ip -o addr show eth0)" "inet $b/24"
    like "$(cri exec "$d" ip -o link show lo)" '[<,]UP[,>]'
    same "$(cri exec "$d" sh -c 'ls /sys/class/net | wc -w')" 2
    same "$(ip -o link show master rrt-pods | wc -l)" 2
    cri stop-pod "$pod"
    same "$(ip -o link show master rrt-pods | wc -l)" 1
}

# stream exec|attach ID FLAGS WORD...: what kubectl does; $sizes are sent to the terminal.
stream() {
    local url
    url=$(cri "$1-url" "${@:2}")
    # shellcheck disable=SC2086 # words
    "$top/hack/lib/cri_stream.py" "$url" "$3" ${sizes:-}
}

# The two streams apart, the exit code, and a half-close: the end of standard input is seen, and output comes afterwards.
cri_check_streaming_exec() {
    local c
    new_pod p8
    c=$(new_container a p8 sleep 1000)
    cri start "$c"
    status_of 7 stream exec "$c" - sh -c 'echo out; echo err >&2; exit 7' >"$work/out" 2>"$work/err"
    same "$(cat "$work/out")" out
    like "$(cat "$work/err")" '^err'
    same "$(printf 'one\ntwo\n' | stream exec "$c" i sh -c 'wc -l; sleep 0.3; echo late')" $'2\nlate'
    # More than any pipe or window on the way holds, both ways.
    head -c 3000000 /dev/urandom >"$work/blob"
    stream exec "$c" i cat <"$work/blob" >"$work/back"
    cmp "$work/back" "$work/blob"
    status_of 0 stream exec "$c" - true
    status_of 137 stream exec "$c" - sh -c 'kill -KILL $$'
}

cri_check_streaming_terminal() {
    local c sizes="40x120 24x80" script
    new_pod p9
    c=$(new_container a p9 sleep 1000)
    cri start "$c"
    script='for size in "40 120" "24 80"; do until [ "$(stty size 2>/dev/null)" = "$size" ]; do sleep 0.05; done; echo "<$size>"; done; tty; exit 4'
    status_of 4 stream exec "$c" t sh -c "$script" >"$work/out"
    same "$(tr -d '\r' <"$work/out" | tr '\n' ' ')" "<40 120> <24 80> /dev/pts/0 "
    # What is typed: the end is a character. containerd takes the end of the client's own input for a detachment.
    sizes='' status_of 0 stream exec "$c" it sh -c 'stty -echo; echo ready; cat' >"$work/out" < <(
        until_true grep -q ready "$work/out" >&2
        printf 'typed\n\004'
        sleep 20
    )
    same "$(tr -d '\r' <"$work/out" | tr '\n' ' ')" "ready typed "
}

# A container's own streams: what it gets is in the log too, and the end of the client's input is the end of its own.
cri_check_attach() {
    local c
    new_pod p10
    c=$(flags=i new_container a p10 sh -c 'read -r x; sleep 0.3; echo "got $x"; wc -c; echo err >&2; exit 6')
    cri start "$c"
    printf 'hello\n12345' | stream attach "$c" i >"$work/out" 2>"$work/err"
    same "$(cat "$work/out")" $'got hello\n5'
    like "$(cat "$work/err")" '^err'
    until_true state_is "$c" "2 6"
    until_true grep -q 'stdout F got hello' "$work/pods/p10/a.log"

    c=$(flags=it new_container b p10 sh -c 'until [ "$(stty size 2>/dev/null)" = "40 120" ]; do sleep 0.05; done; read -r x; echo "on $(tty): $x"')
    cri start "$c"
    sizes=40x120 stream attach "$c" it >"$work/out" < <(printf 'hi\n'; sleep 20)
    like "$(tr -d '\r' <"$work/out")" 'on /dev/pts/0: hi'
}

# Two clients at once have the same output; that one of them goes away is nothing to the other.
cri_check_two_attached() {
    local c first second
    new_pod p14
    c=$(new_container a p14 sh -c 'until [ -e /tmp/go ]; do echo tick; sleep 0.1; done; echo end; exit 6')
    cri start "$c"
    stream attach "$c" - >"$work/first" 2>&1 &
    first=$!
    stream attach "$c" - >"$work/second" 2>&1 &
    second=$!
    until_true grep -q tick "$work/first"
    until_true grep -q tick "$work/second"
    pkill -KILL -P "$first"
    wait "$first" || true
    : >"$work/second"
    until_true grep -q tick "$work/second"
    cri exec "$c" touch /tmp/go
    wait "$second" || true
    like "$(cat "$work/second")" end
    until_true state_is "$c" "2 6"
}

# As `kubectl port-forward`: to a port of the pod's own network, both ways, more than once; a port where nobody listens is an error.
cri_check_port_forward() {
    local c
    new_pod p15 net-pod
    c=$(new_container a p15 nc -ll -p 8080 -e cat)
    cri start "$c"
    until_true forwarded
    same "$(echo hello | port_forward 8080)" hello
    head -c 1000000 /dev/urandom >"$work/blob"
    port_forward 8080 <"$work/blob" >"$work/back"
    cmp "$work/back" "$work/blob"
    like "$(status_of 1 port_forward 8081 2>&1 </dev/null)" 'refused'
}
port_forward() { "$top/hack/lib/cri_stream.py" "$(cri forward-url "$pod" "$1")" forward "$1"; }
forwarded() { [ "$(echo x | port_forward 8080)" = x ]; }

# Our shim in the place of containerd's own, under its name: whatever is done for that one is done for ours.
cri_check_shim_by_its_path() {
    local c
    [[ $(containerd --version) != *" 1.6."* ]] || { say "containerd 1.6 knows no runtime_path" && exit 78; }
    new_pod p16 pod rrt-by-path
    c=$(new_container a p16 sleep 1000)
    cri start "$c"
    same "$(pgrep -cf 'containerd-shim-rrt-v2 -namespace')" 1
    same "$(cri exec "$c" echo hello)" hello
    cri stop "$c"
    same "$(cri state "$c")" "2 137"
}

# containerd's own shim, which calls rrt by its option BinaryName.
cri_check_runc_shim() {
    local c
    new_pod p11 pod runc-shim
    c=$(new_container a p11 sh -c 'echo out; echo err >&2; sleep 1000')
    cri start "$c"
    same "$(pgrep -cf 'containerd-shim-runc-v2 -namespace')" 1
    same "$(pgrep -cf 'containerd-shim-rrt-v2 -namespace')" 0
    same "$(cri state "$c")" "1 0"
    same "$(cri exec "$c" echo hello)" hello
    status_of 5 cri exec "$c" sh -c 'exit 5'
    until_true grep -q 'stdout F out' "$work/pods/p11/a.log"
    until_true grep -q 'stderr F err' "$work/pods/p11/a.log"
    cri stop "$c"
    same "$(cri state "$c")" "2 137"
}
