# shellcheck shell=bash
# The checks of interop-cri.sh with containerd 2, see interop-shim2.sh.
# shellcheck disable=SC2154 # $top, $containerd2: of hack/interop

# shellcheck source-path=SCRIPTDIR source=interop-cri.sh
. "$top/hack/lib/interop-cri.sh"

old_path=$PATH

cri2_up() {
    PATH=$containerd2:$old_path
    [[ $(containerd --version) == *containerd/v2* ]] || return 1
    rm -rf "$work/cri"
    cri_up
}

cri2_down() {
    cri_down
    PATH=$old_path
}

cri2_clean() { cri_clean; }

cri2_names() {
    names_in cri "$top/hack/lib/interop-cri.sh"
    names_in cri2 "$top/hack/lib/interop-cri2.sh"
}

for check in $(names_in cri "$top/hack/lib/interop-cri.sh"); do
    eval "cri2_check_$check() { cri_check_$check; }"
done

# `hostUsers: false`: ids of the pod's own, an image whose files are root's in there, and a network that belongs to its root.
# By its path: of a pod with a user namespace containerd takes only options of its own shim's type.
cri2_check_user_namespace() { user_namespace rrt-by-path; }
cri2_check_user_namespace_of_runc_shim() { user_namespace runc-shim; }
user_namespace() {
    local c map='0 200000 65536'
    new_pod u1 user-pod "$1"
    c=$(flags=u new_container a u1 sleep 1000)
    cri start "$c"
    same "$(cri exec "$c" sh -c 'echo $(cat /proc/self/uid_map)')" "$map"
    same "$(cri exec "$c" sh -c 'echo $(cat /proc/1/gid_map)')" "$map"
    same "$(cri exec "$c" sh -c 'echo >/new; echo $(stat -c "%u %g %n" /bin/busybox /new)')" "0 0 /bin/busybox 0 0 /new"
    same "$(stat -c %u "/proc/$(pgrep -fx 'sleep 1000')")" 200000
    same "$(cri exec "$c" stat -c %u /proc/sys/net/ipv4)" 0
    like "$(cri exec "$c" ip -o addr show eth0)" 'inet 10\.213\.0\.'
    cri stop "$c"
    same "$(cri state "$c")" "2 137"
}
