# shellcheck shell=bash
# What the scripts of this folder share: where things are, what is installed, how rrt is built, a root file system.
# To be sourced, by a script that has set -euo pipefail.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# The machine's own architecture; nothing here names one.
target=$(uname -m)-unknown-linux-musl

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "must be run as root: it makes namespaces, mounts and cgroups"; }

# packages PACKAGE...: install those which are missing, and start no service of theirs.
packages() {
    local missing=() package policy=/usr/sbin/policy-rc.d made=
    for package; do
        [ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    # A package's own script would start dockerd and containerd on the machine. invoke-rc.d asks this file first.
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=1
    fi
    local status=0
    if ! apt_install "${missing[@]}"; then
        # The lists may be missing (a fresh image) or old.
        { apt-get -qq update && apt_install "${missing[@]}"; } || status=$?
    fi
    [ -z "$made" ] || rm -f "$policy"
    [ "$status" = 0 ] || die "apt-get could not install: ${missing[*]}"
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# add_target: what it takes to build a static binary with a Rust toolchain.
add_target() {
    command -v cargo >/dev/null || die "no cargo: install a Rust toolchain first (https://rustup.rs)"
    if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$target"; then
        rustup target add "$target"
    fi
    # cargo asks for the linker `cc` even where the target brings its own C library.
    command -v cc >/dev/null || packages gcc libc6-dev
}

# build_rrt: build the release binary, static, and set $rrt to its path.
build_rrt() {
    add_target
    (cd "$top" && cargo build --quiet --release --target "$target" -p rrt)
    rrt=${CARGO_TARGET_DIR:-$top/target}/$target/release/rrt
}

# the_berth: set $berth to the absolute path of $BERTH_BIN, or of berth, built now.
the_berth() {
    if [ -n "${BERTH_BIN:-}" ]; then
        berth=$(realpath "$BERTH_BIN")
    else
        add_target
        # zstd and ring have C in them.
        command -v musl-gcc >/dev/null || packages musl-tools
        (cd "$top" && cargo build --quiet --release --target "$target" -p berth)
        # shellcheck disable=SC2034 # read by those who source this file
        berth=${CARGO_TARGET_DIR:-$top/target}/$target/release/berth
    fi
}

# the_runtime: set $runtime to the absolute path of what is to be tested: $RUNTIME, or rrt, built now.
the_runtime() {
    if [ -n "${RUNTIME:-}" ]; then
        runtime=$(command -v "$RUNTIME") || die "RUNTIME=$RUNTIME: no such program"
        runtime=$(realpath "$runtime")
    else
        build_rrt
        # shellcheck disable=SC2034 # read by those who source this file
        runtime=$rrt
    fi
}

# the_shim: set $shim to the absolute path of $SHIM, or of containerd-shim-rrt-v2, built now.
the_shim() {
    if [ -n "${SHIM:-}" ]; then
        shim=$(realpath "$SHIM")
    else
        add_target
        (cd "$top" && cargo build --quiet --release --target "$target" -p rrt-shim)
        # shellcheck disable=SC2034 # read by those who source this file
        shim=${CARGO_TARGET_DIR:-$top/target}/$target/release/containerd-shim-rrt-v2
    fi
}

# make_rootfs DIR: a root file system of busybox and nothing from any registry.
make_rootfs() {
    local root=$1 busybox name
    busybox=$(command -v busybox) || die "no busybox: apt-get install busybox-static"
    mkdir -p "$root"/{bin,dev,etc,proc,root,sys,tmp,var}
    chmod 1777 "$root/tmp"
    cp "$busybox" "$root/bin/busybox"
    for name in $("$busybox" --list); do
        [ "$name" = busybox ] || ln -sf busybox "$root/bin/$name"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\nextra:x:2000:user\n' >"$root/etc/group"
}

# make_image ROOTFS ARCHIVE: one layer as `docker save` would write it; all three engines load that form.
make_image() {
    local dir=${2%.tar} layer config architecture
    mkdir "$dir"
    tar -C "$1" --numeric-owner -cf "$dir/layer.tar" .
    layer=$(sha256sum "$dir/layer.tar" | cut -d' ' -f1)
    architecture=$(dpkg --print-architecture)
    config='{"architecture":"'$architecture'","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin","FROM=image"]},
"rootfs":{"type":"layers","diff_ids":["sha256:'$layer'"]},"history":[{"created_by":"busybox"}]}'
    printf '%s' "$config" >"$dir/config.json"
    printf '[{"Config":"config.json","RepoTags":["localhost/box:latest"],"Layers":["layer.tar"]}]' >"$dir/manifest.json"
    tar -C "$dir" -cf "$2" config.json manifest.json layer.tar
}

# debian_mirror: set $mirror to the one that this machine's apt uses.
debian_mirror() {
    # shellcheck disable=SC2016 # the words are apt's
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' | awk '$1 ~ /debian/ && $2 !~ /security/ { print $1; exit }')
    [ -n "$mirror" ] || die "apt names no Debian mirror; run apt-get update"
}

# make_sid_root DIR: Debian's unstable with runc, crun and criu in it, kept for the next time.
make_sid_root() {
    local root=$1
    [ -x "$root/usr/bin/crun" ] && [ -x "$root/usr/sbin/criu" ] && return
    packages debootstrap
    debian_mirror
    rm -rf "$root"
    debootstrap --variant=minbase --include=runc,crun,criu sid "$root" "$mirror" >/dev/null
}

# make_criu: have a criu in PATH that works with this kernel. Debian 12's does not from Linux 6.13 on, so it is unstable's, with its
# own loader and libraries beside it, because it needs newer ones than this machine may have.
make_criu() {
    local root=/var/tmp/rrt-bench-sid dir=/var/tmp/rrt-criu library loader
    if command -v criu >/dev/null && criu check >/dev/null 2>&1; then return; fi
    if [ ! -x "$dir/bin/criu" ]; then
        say "installing criu of Debian's unstable"
        make_sid_root "$root"
        rm -rf "$dir"
        mkdir -p "$dir/lib" "$dir/bin"
        chroot "$root" ldd /usr/sbin/criu | awk '$3 ~ /^\// { print $3 }' | while read -r library; do
            cp -L "$root$library" "$dir/lib/"
        done
        loader=$(chroot "$root" ldd /usr/sbin/criu | awk '$1 ~ /^\/.*ld-/ { print $1 }')
        cp -L "$root$loader" "$dir/lib/ld.so"
        cp "$root/usr/sbin/criu" "$dir/lib/criu"
        printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$dir/lib/ld.so" "$dir/lib" "$dir/lib/criu" >"$dir/bin/criu"
        chmod 755 "$dir/bin/criu"
    fi
    PATH=$dir/bin:$PATH
    criu check >/dev/null || die "criu does not work on this kernel: criu check"
}

# make_containerd2: have the programs of Debian unstable's containerd in /var/tmp/rrt-containerd. They are Go's, and need no newer
# library than this machine has.
make_containerd2() {
    local root=/var/tmp/rrt-bench-sid dir=/var/tmp/rrt-containerd
    [ ! -x "$dir/usr/bin/containerd" ] || return 0
    say "fetching containerd of Debian's unstable"
    make_sid_root "$root"
    rm -rf "$dir" "$root"/tmp/containerd_*.deb
    # The lists may be older than the package.
    chroot "$root" sh -c 'cd /tmp && { apt-get -qq download containerd 2>/dev/null ||
        { apt-get -qq -o Acquire::Check-Valid-Until=false update && apt-get -qq download containerd; }; }' >/dev/null
    dpkg -x "$root"/tmp/containerd_*.deb "$dir"
    rm -f "$root"/tmp/containerd_*.deb
}
