# shellcheck shell=bash
# The checks of interop-cri.sh with containerd 2, see interop-shim2.sh.
# shellcheck disable=SC2154 # $top: of hack/interop

# shellcheck source-path=SCRIPTDIR source=interop-cri.sh
. "$top/hack/lib/interop-cri.sh"

old_path=$PATH

cri2_up() {
    PATH=/var/tmp/rrt-containerd/usr/bin:$old_path
    [[ $(containerd --version) == *containerd/v2* ]] || return 1
    rm -rf "$work/cri"
    cri_up
}

cri2_down() {
    cri_down
    PATH=$old_path
}

cri2_clean() { cri_clean; }

cri2_names() { names_in cri "$top/hack/lib/interop-cri.sh"; }

for check in $(cri2_names); do
    eval "cri2_check_$check() { cri_check_$check; }"
done
