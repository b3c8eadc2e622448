# shellcheck shell=bash
# The checks of interop-shim.sh with containerd 2: Debian unstable's, whose programs run here as they are.
# shellcheck disable=SC2154 # $top, $containerd2: of hack/interop

# shellcheck source-path=SCRIPTDIR source=interop-shim.sh
. "$top/hack/lib/interop-shim.sh"

old_path=$PATH

shim2_up() {
    PATH=$containerd2:$old_path
    [[ $(containerd --version) == *containerd/v2* ]] || return 1
    shim_up
}

shim2_down() {
    containerd_down
    PATH=$old_path
}

shim2_clean() { containerd_clean; }

shim2_names() {
    shim_names
    names_in shim2 "$top/hack/lib/interop-shim2.sh"
}

for check in $(shim_names); do
    eval "shim2_check_$check() { shim_check_$check; }"
done

# What the shim was asked to speak: containerd 2.3 and later send it a message that says so.
shim2_check_version_of_the_service() {
    local minor version=2
    minor=$(containerd --version | sed 's/.* v\?2\.\([0-9]*\).*/\1/')
    [ "$minor" -lt 3 ] || version=3
    box_run -d c1 sleep 1000
    like "$(cat "$work/containerd/state/io.containerd.runtime.v2.task/default/c1/bootstrap.json")" "\"version\":$version"
}
