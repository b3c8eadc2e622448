# shellcheck shell=bash
# The checks of interop-shim.sh with containerd 2: Debian unstable's, whose programs run here as they are.
# shellcheck disable=SC2154 # $top: of hack/interop

# shellcheck source-path=SCRIPTDIR source=interop-shim.sh
. "$top/hack/lib/interop-shim.sh"

old_path=$PATH

shim2_up() {
    PATH=/var/tmp/rrt-containerd/usr/bin:$old_path
    [[ $(containerd --version) == *containerd/v2* ]] || return 1
    shim_up
}

shim2_down() {
    containerd_down
    PATH=$old_path
}

shim2_clean() { containerd_clean; }

shim2_names() { shim_names; }

for check in $(shim_names); do
    eval "shim2_check_$check() { shim_check_$check; }"
done
