# shellcheck shell=bash
# containerd with our shim, io.containerd.rrt.v2: all checks of interop-containerd.sh, and those that only a shim is about.
# Checks are called by name (lib/checks.sh).
# shellcheck disable=SC2016,SC2154 # $x in '' is for the container's shell; $work, $runtime, $shim, $cgroup: of hack/interop

# shellcheck source-path=SCRIPTDIR source=interop-containerd.sh
. "$top/hack/lib/interop-containerd.sh"

with_runtime=(--runtime io.containerd.rrt.v2)

# ctr gives options only to runc's shim, so the shim looks for `rrt` in containerd's PATH.
shim_up() {
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
