# shellcheck shell=bash
# One virtual machine: start it, reach it by ssh over a loopback port, end it. To be sourced after common.sh.
# A machine is a directory, $vm: its key, the port, qemu's pid, what it says on its console, and the folder it sees.

# shellcheck source-path=SCRIPTDIR source=vm-image.sh
. "$top/hack/lib/vm-image.sh"

# Seconds a machine may take to start: ten times what it needs on two idle processors.
vm_patience=600
# Seconds one command may take there; far above what any needs.
vm_limit=3600

vm_tools() {
    packages openssh-client util-linux
    vm_qemu
}

# qemu of the release the machine's other qemu packages have: backports where the release's own cannot be installed.
vm_qemu() {
    command -v qemu-system-x86_64 >/dev/null && return
    local codename sources=/etc/apt/sources.list.d/rrt-backports.sources
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    if (packages qemu-system-x86) 2>/dev/null; then return; fi
    debian_mirror
    say "adding $codename-backports for qemu"
    printf '%s\n' "Types: deb" "URIs: $mirror" "Suites: $codename-backports" "Components: main" \
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" >"$sources"
    apt-get -qq update
    apt_install -t "$codename-backports" qemu-system-x86 || die "apt-get could not install qemu-system-x86"
}

# vm_start DIR WORD...: start a machine there, with WORDs (which end in a `timeout`) before qemu's command line.
# Returns when it can be used.
vm_start() {
    vm=$1
    shift
    vm_image
    mkdir -p "$vm/host"
    [ -e "$vm/key" ] || ssh-keygen -q -t ed25519 -N '' -C rrt-vm -f "$vm/key"
    cp "$vm/key.pub" "$vm/host/key.pub"
    # A disk of its own for limits on block devices.
    truncate -s 1G "$vm/disk"
    local try
    for try in {1..20}; do
        # Any free port will do; where another machine has just taken it, qemu ends at once.
        port=$((20000 + (RANDOM + try) % 40000))
        vm_launch "$@"
        sleep 1
        kill -0 "$pid" 2>/dev/null && break
        pid=
    done
    [ -n "${pid:-}" ] || die "qemu does not start: $(tail -n 3 "$vm/qemu.log")"
    echo "$pid" >"$vm/pid"
    echo "$port" >"$vm/port"
    vm_wait
}

vm_launch() {
    local accel=${RRT_VM_ACCEL:-tcg,thread=multi}
    "$@" qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -name rrt-vm \
        -accel "$accel" -machine q35,sata=off,smbus=off,usb=off -cpu max -smp 2 -m "${RRT_VM_MEMORY:-3G}" \
        -kernel "$image/kernel" -initrd "$image/initrd" \
        -append "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0 mitigations=off systemd.show_status=error ${RRT_VM_CMDLINE:-}" \
        -serial "file:$vm/console.log" \
        -drive "file=$image/disk,format=raw,if=virtio,snapshot=on" \
        -drive "file=$vm/disk,format=raw,if=virtio" \
        -fsdev "local,id=host,path=$vm/host,security_model=none,readonly=on" -device virtio-9p-pci,fsdev=host,mount_tag=host \
        -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-10.0.2.15:22" -device virtio-net-pci,netdev=net \
        -device virtio-rng-pci >"$vm/qemu.log" 2>&1 </dev/null &
    pid=$!
}

# vm_ssh USER WORD...: ssh to the machine in $vm, for a limited time; one connection serves all calls.
vm_ssh() {
    local user=$1
    shift
    timeout --foreground "$vm_limit" ssh -q -i "$vm/key" -p "$(cat "$vm/port")" -l "$user" -o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=30 \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ServerAliveInterval=60 -o ServerAliveCountMax=5 \
        -o ControlMaster=auto -o ControlPersist=600 -o "ControlPath=$vm/ssh-$user" "$@"
}

vm_alive() { [ -e "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null; }

# qemu takes a connection before the machine can, and forgets about it; so look whether somebody speaks first.
vm_greets() { timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/$0 && read -r line <&3 && [[ $line == SSH-* ]]' "$port" 2>/dev/null; }

vm_wait() {
    local begin=$SECONDS
    until vm_greets && vm_ssh root 127.0.0.1 true </dev/null; do
        vm_alive "$vm" || { tail -n 20 "$vm/console.log" "$vm/qemu.log" >&2; die "the machine has ended"; }
        [ $((SECONDS - begin)) -lt $vm_patience ] || { tail -n 40 "$vm/console.log" >&2; die "no answer from the machine after $vm_patience s"; }
        sleep 1
    done
    # While systemd still starts units it takes controllers off slices in which the tests have their cgroups.
    vm_ssh root 127.0.0.1 timeout 120 systemctl is-system-running --wait </dev/null >/dev/null || true
    say "the machine answers after $((SECONDS - begin)) s"
}

# vm_stop DIR: end the machine there and remove the directory.
vm_stop() {
    local pid
    [ -e "$1/pid" ] || { rm -rf "$1" && return; }
    pid=$(cat "$1/pid")
    # Nothing in there is worth an orderly end: its disk is thrown away. `timeout` passes the signal on to qemu.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != timeout ] || kill -TERM "$pid" 2>/dev/null || true
    rm -rf "$1"
}
