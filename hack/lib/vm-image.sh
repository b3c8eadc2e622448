# shellcheck shell=bash
# The recipe of hack/vm's machine: Debian with systemd, cgroup v2, AppArmor and a policy of SELinux in a file, with its kernel beside it.
# Built from packages alone, and kept in ${RRT_VM_CACHE:-/var/cache/rrt-vm} under a hash of this file.

vm_suite=trixie
vm_packages=(
    # The system: systemd as PID 1, a bus for root and for a user, what a login needs, the kernel.
    systemd-sysv dbus dbus-user-session libpam-systemd udev linux-image-amd64 initramfs-tools zstd kmod openssh-server
    # What the tests look for.
    apparmor busybox-static criu iproute2 iptables procps runc crun strace uidmap util-linux util-linux-extra
    # For `hack/vm selinux`, which boots with it.
    selinux-policy-default policycoreutils selinux-utils
)
# For `hack/vm interop`: the engine, the plugins of its pods' network, and what the client of its CRI plugin is written in. By apt, for
# debootstrap configures packages in no order that Python's scripts can work in.
vm_engine=(containerd containernetworking-plugins python3-grpcio)

# vm_image: set $image to the directory with disk, kernel and initrd; make it when it is not there.
vm_image() {
    local cache=${RRT_VM_CACHE:-/var/cache/rrt-vm} key
    key=$(cat "${BASH_SOURCE[0]}" | sha256sum | cut -c 1-16)
    image=$cache/$vm_suite-$key
    mkdir -p "$cache"
    # Two at once: the second one waits for the first one's image.
    exec 8>"$cache/lock"
    flock 8
    if [ ! -e "$image/disk" ]; then
        say "building the machine's image (once, about two minutes)"
        # Those of older recipes that nobody has used for a week.
        find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
        vm_build "$image" || { rm -rf "$image"; die "the image could not be built; see above"; }
    fi
    touch "$image"
    exec 8>&-
}

vm_build() {
    local dir=$1 root=$1/root list contexts
    packages debootstrap e2fsprogs
    mkdir -p "$root"
    debian_mirror
    list=$(IFS=, && echo "${vm_packages[*]}")
    debootstrap --variant=minbase --include="$list" "$vm_suite" "$root" "$mirror" >"$dir/log" || { tail -n 20 "$dir/log" && return 1; }
    chroot "$root" sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"' \
        apt "${vm_engine[@]}" >>"$dir/log" 2>&1 || { tail -n 20 "$dir/log" && return 1; }
    vm_configure "$root"
    cp "$root"/boot/vmlinuz-* "$dir/kernel"
    cp "$root"/boot/initrd.img-* "$dir/initrd"
    rm -rf "$root"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    # The labels of SELinux' policy, which mke2fs takes along: this kernel does not have to have it.
    contexts=/etc/selinux/default/contexts/files/file_contexts
    chroot "$root" setfiles -F -m "$contexts" / >>"$dir/log"
    # Written from the directory: no loop device, no mount.
    mke2fs -q -t ext4 -L root -d "$root" "$dir/disk.new" 6G
    rm -rf "$root"
    mv "$dir/disk.new" "$dir/disk"
}

vm_configure() {
    local root=$1 unit
    # The initrd needs the root disk's driver and nothing else; unpacking the usual one takes long under emulation.
    sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
    printf '%s\n' virtio_pci virtio_blk ext4 >"$root/etc/initramfs-tools/modules"
    chroot "$root" update-initramfs -u >/dev/null
    # AppArmor is there, but nobody's programs: compiling their profiles takes a quarter of the time to start.
    find "$root/etc/apparmor.d" -maxdepth 1 -type f -delete
    echo vm >"$root/etc/hostname"
    printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$root/etc/hosts"
    # The label, for a kernel with SELinux (mount(8) drops it otherwise), lets sshd read the key there.
    printf '/dev/vda / ext4 defaults 0 0\nhost /host 9p trans=virtio,version=9p2000.L,ro,msize=524288,context=system_u:object_r:etc_t:s0 0 0\n' >"$root/etc/fstab"
    printf 'install %s /bin/false\n' kvm_amd kvm_intel >"$root/etc/modprobe.d/vm.conf"
    mkdir "$root/host" "$root/rrt"
    printf '%s\n' 9pnet_virtio overlay bfq bridge veth >"$root/etc/modules-load.d/vm.conf"
    # Keys come with each start of the machine; nobody else can reach its network.
    printf '%s\n' 'AuthorizedKeysFile /host/key.pub' 'StrictModes no' 'UseDNS no' 'PrintMotd no' 'MaxSessions 100' \
        >"$root/etc/ssh/sshd_config.d/vm.conf"
    # Root's commands are no login session: that would start one more systemd.
    sed -i 's/^\(session.*\)pam_systemd.so/session [success=1 default=ignore] pam_succeed_if.so quiet uid = 0\n&/' \
        "$root/etc/pam.d/common-session"
    cat >"$root/etc/systemd/system/vm-net.service" <<-'END'
	[Unit]
	Description=The one address that qemu forwards to
	Wants=sys-subsystem-net-devices-eth0.device
	After=sys-subsystem-net-devices-eth0.device
	Before=ssh.service
	[Service]
	Type=oneshot
	RemainAfterExit=yes
	ExecStart=/bin/sh -c 'ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0'
	[Install]
	WantedBy=multi-user.target
	END
    ln -s ../vm-net.service "$root/etc/systemd/system/multi-user.target.wants/vm-net.service"
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer systemd-timesyncd.service containerd.service getty@tty1.service serial-getty@ttyS0.service; do
        ln -s /dev/null "$root/etc/systemd/system/$unit"
    done
    # An ordinary user whose systemd is always there, with ids to give to user namespaces.
    chroot "$root" useradd --uid 1000 --create-home --shell /bin/bash tester
    printf 'tester:100000:65536\n' | tee "$root/etc/subuid" >"$root/etc/subgid"
    mkdir -p "$root/var/lib/systemd/linger"
    touch "$root/var/lib/systemd/linger/tester"
    # What a distribution's own podman setup does: all controllers for users, too.
    mkdir -p "$root/etc/systemd/system/user@.service.d"
    printf '[Service]\nDelegate=cpu cpuset io memory pids\n' >"$root/etc/systemd/system/user@.service.d/delegate.conf"
}
