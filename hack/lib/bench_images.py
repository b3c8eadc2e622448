#!/usr/bin/env python3
"""Part of hack/bench-images, which says what it does."""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROWS = ("unpack", "pull", "second", "push")
IMAGES = ("debian", "files", "big", "tiny")
COMPRESSIONS = ("gzip", "zstd")
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A tool can't do it."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"bench-images: {what} did not start")
        time.sleep(0.05)


class Registry:
    """Debian's docker-registry on a port of its own."""

    def __init__(self, root):
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        os.makedirs(root, exist_ok=True)
        self.config = os.path.join(root, "config.yml")
        with open(self.config, "w") as file:
            file.write(
                f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                f"storage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: '{self.host}'}}\n"
            )
        self.process = subprocess.Popen(
            ["docker-registry", "serve", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self.answers, "docker-registry")

    def answers(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait()


def run(command, log, env=None):
    """Runs it; returns seconds, CPU seconds and peak memory in KiB of it and its children."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(" ".join(command))
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


class Command:
    """A tool that is one process."""

    def __init__(self, root, log):
        self.root, self.log = root, log
        os.makedirs(root)

    def stop(self):
        pass

    def do(self, *command):
        return run(command, self.log)


class Berth(Command):
    name = "berth"

    def do(self, *command):
        return run([os.environ["BERTH"], "--root", self.root, *command], self.log)

    def pull(self, reference):
        return self.do("pull", "--quiet", reference)

    def push(self, reference, to):
        self.do("tag", reference, to)
        return self.do("push", "--quiet", to)


class Podman(Command):
    name = "podman"

    def do(self, *command):
        roots = ["--root", f"{self.root}/root", "--runroot", f"{self.root}/run", "--tmpdir", f"{self.root}/tmp"]
        return run(["podman", *roots, "--storage-driver", "overlay", *command], self.log)

    def pull(self, reference):
        return self.do("pull", "-q", "--tls-verify=false", reference)

    def push(self, reference, to):
        return self.do("push", "-q", "--tls-verify=false", reference, to)

    def stop(self):
        subprocess.run(["umount", f"{self.root}/root/overlay"], stderr=subprocess.DEVNULL, check=False)


class Skopeo(Command):
    name = "skopeo (no unpacking)"

    def pull(self, reference):
        return self.do("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"oci:{self.root}/oci:x")

    def push(self, _, to):
        return self.do("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{self.root}/oci:x", f"docker://{to}")


class Daemon(Command):
    """A tool whose daemon does the work: what that uses is counted."""

    daemon = None

    def start(self, command, socket_path):
        self.daemon = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_for(lambda: os.path.exists(socket_path), command[0])

    def processes(self):
        """The daemon and what it started, by process id."""
        found, seen = [self.daemon.pid], 0
        while seen < len(found):
            try:
                with open(f"/proc/{found[seen]}/task/{found[seen]}/children") as file:
                    found += [int(child) for child in file.read().split()]
                for task in os.listdir(f"/proc/{found[seen]}/task"):
                    with open(f"/proc/{found[seen]}/task/{task}/children") as file:
                        found += [int(child) for child in file.read().split() if int(child) not in found]
            except OSError:
                pass
            seen += 1
        return found

    def used(self):
        total = 0
        for process in self.processes():
            try:
                with open(f"/proc/{process}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                total += sum(int(field) for field in fields[11:15])
            except OSError:
                pass
        return total / TICK

    def peak(self):
        peaks = [0]
        for process in self.processes():
            try:
                with open(f"/proc/{process}/status") as file:
                    peaks += [int(line.split()[1]) for line in file if line.startswith("VmHWM:")]
            except OSError:
                pass
        return max(peaks)

    def measured(self, *command):
        before = self.used()
        for process in self.processes():
            try:
                with open(f"/proc/{process}/clear_refs", "w") as file:
                    file.write("5")
            except OSError:
                pass
        seconds, used, peak = run(command, self.log)
        return seconds, used + self.used() - before, max(peak, self.peak())

    def stop(self):
        if self.daemon:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait()


class Containerd(Daemon):
    name = "containerd (ctr)"

    def __init__(self, root, log):
        super().__init__(root, log)
        self.socket = f"{root}/sock"
        with open(f"{root}/config.toml", "w") as file:
            file.write(
                f"version = 2\nroot = '{root}/root'\nstate = '{root}/state'\n"
                f"disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\n  address = '{self.socket}'\n"
            )
        self.start(["containerd", "--config", f"{root}/config.toml"], self.socket)

    def pull(self, reference):
        return self.measured("ctr", "-a", self.socket, "images", "pull", "--plain-http", reference)

    def push(self, reference, to):
        return self.measured("ctr", "-a", self.socket, "images", "push", "--plain-http", to, reference)


class Docker(Daemon):
    name = "docker"

    def __init__(self, root, log):
        super().__init__(root, log)
        self.socket = f"{root}/sock"
        with open(f"{root}/daemon.json", "w") as file:
            file.write("{}")
        self.start(
            [
                *("dockerd", "--config-file", f"{root}/daemon.json", "--host", f"unix://{self.socket}"),
                *("--pidfile", f"{root}/pid", "--data-root", f"{root}/data", "--exec-root", f"{root}/exec"),
                *("--iptables=false", "--ip6tables=false", "--bridge=none", "--log-level=error"),
            ],
            self.socket,
        )
        self.client = ["docker", "-H", f"unix://{self.socket}"]
        wait_for(lambda: subprocess.run([*self.client, "version"], capture_output=True).returncode == 0, "dockerd")

    def pull(self, reference):
        return self.measured(*self.client, "pull", "-q", reference)

    def push(self, reference, to):
        run([*self.client, "tag", reference, to], self.log)
        return self.measured(*self.client, "push", "-q", to)


class Unpacking(Command):
    """Unpacks the layers of a layout, one after the other, each into its own directory."""

    def layers(self, layout):
        def blob(descriptor):
            return f"{layout}/blobs/{descriptor['digest'].replace(':', '/')}"

        with open(f"{layout}/index.json") as file:
            manifest = json.load(file)["manifests"][0]
        with open(blob(manifest)) as file:
            return [blob(layer) for layer in json.load(file)["layers"]]

    def unpack(self, layout):
        seconds, used, peak = 0, 0, 0
        for number, layer in enumerate(self.layers(layout)):
            os.mkdir(f"{self.root}/{number}")
            one = self.one(layer, f"{self.root}/{number}")
            seconds, used, peak = seconds + one[0], used + one[1], max(peak, one[2])
        return seconds, used, peak


class Ours(Unpacking):
    name = "rrt-images"

    def one(self, layer, to):
        return run([os.environ["UNPACK"], layer, to], self.log)


class Tar(Unpacking):
    name = "tar"

    def one(self, layer, to):
        with open(layer, "rb") as file:
            program = "gzip" if file.read(2) == b"\x1f\x8b" else "zstd"
        # tar starts the program, so both are counted.
        return run(["tar", "-x", "--xattrs", "-I", program, "-f", layer, "-C", to], self.log)


class Umoci(Unpacking):
    name = "umoci"

    def unpack(self, layout):
        return run(["umoci", "unpack", "--image", f"{layout}:latest", f"{self.root}/bundle"], self.log)


def median(runs):
    """Seconds, CPU seconds, peak memory in KiB, seconds of the sync after it."""
    return tuple(statistics.median(run[at] for run in runs) for at in range(4))


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.state = tempfile.mkdtemp(prefix="state-", dir=arguments.directory)
        self.disk = os.path.join(self.state, "disk")
        # A short name: podman's runroot may have 50 characters.
        self.mounted = tempfile.mkdtemp(prefix="bi-", dir="/var/tmp")
        self.log = open(f"{arguments.directory}/bench.log", "w")
        self.source = Registry(f"{arguments.directory}/registry")

    def fill(self):
        """Copies the layouts into the registry, once."""
        done = f"{self.arguments.directory}/registry/filled"
        if os.path.exists(done):
            return
        for name in (*IMAGES, "updated"):
            for compression in COMPRESSIONS:
                layout = f"oci:{self.arguments.directory}/{name}-{compression}:latest"
                to = f"docker://{self.source.host}/{name}:{compression}"
                subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", layout, to], check=True)
        open(done, "w").close()

    def with_tool(self, tool, work):
        """Works on a file system of its own: ext4 gives out inodes of deleted files slowly for minutes, so what one tool leaves behind
        would cost the next."""
        with open(self.disk, "wb") as disk:
            disk.truncate(16 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.disk], check=True)
        loop = ["losetup", "--find", "--show", "--direct-io=on", self.disk]
        loop = subprocess.run(loop, check=True, capture_output=True, text=True).stdout.strip()
        instance = None
        try:
            subprocess.run(["mount", loop, self.mounted], check=True)
            self.settle()
            instance = tool(os.path.join(self.mounted, "root"), self.log)
            result = work(instance)
            begin = time.monotonic()
            self.settle()
            # What a tool has not written yet it has put off.
            return (*result, time.monotonic() - begin)
        except (Failed, OSError) as error:
            self.log.write(f"{tool.name}: {error}\n")
            self.log.flush()
            return None
        finally:
            if instance:
                instance.stop()
            self.unmount()
            subprocess.run(["losetup", "--detach", loop], check=False)
            os.unlink(self.disk)

    def unmount(self):
        """With what a tool has mounted below."""
        for _ in range(100):
            subprocess.run(["umount", "--recursive", self.mounted], stderr=subprocess.DEVNULL, check=False)
            if not os.path.ismount(self.mounted):
                return
            time.sleep(0.1)
        sys.exit(f"bench-images: {self.mounted} can't be unmounted")

    def settle(self):
        subprocess.run(["sync", "--file-system", self.mounted], check=True)

    def unpack(self, image, compression, tool):
        return self.with_tool(tool, lambda t: t.unpack(f"{self.arguments.directory}/{image}-{compression}"))

    def pull(self, image, compression, tool):
        return self.with_tool(tool, lambda t: t.pull(f"{self.source.host}/{image}:{compression}"))

    def second(self, _, compression, tool):
        def work(instance):
            instance.pull(f"{self.source.host}/debian:{compression}")
            self.settle()
            return instance.pull(f"{self.source.host}/updated:{compression}")

        return self.with_tool(tool, work)

    def push(self, image, compression, tool):
        root = os.path.join(self.state, "registry")
        target = Registry(root)

        def work(instance):
            reference = f"{self.source.host}/{image}:{compression}"
            instance.pull(reference)
            self.settle()
            return instance.push(reference, f"{target.host}/{image}:{compression}")

        try:
            return self.with_tool(tool, work)
        finally:
            target.stop()
            shutil.rmtree(root, ignore_errors=True)

    def row(self, row, image, compression):
        tools = [Ours, Tar, Umoci] if row == "unpack" else [Berth, Docker, Podman, Containerd, Skopeo]
        runs = {tool: [] for tool in tools}
        for _ in range(self.arguments.n):
            for tool in tools:
                result = getattr(self, row)(image, compression, tool)
                if result:
                    runs[tool].append(result)
        rivals = [tool for tool in tools[1:] if runs[tool] and (row == "push" or tool is not Skopeo)]
        best = min((min(run[0] for run in runs[tool]) for tool in rivals), default=None)
        print(f"{row} {image} {compression}")
        for tool in tools:
            if not runs[tool]:
                print(f"  {tool.name:22} -")
                continue
            least = min(run[0] for run in runs[tool])
            middle, used, peak, sync = median(runs[tool])
            ratio = f"{least / best:5.2f}" if best else "    -"
            print(
                f"  {tool.name:22} {least:7.2f} s  median {middle:7.2f}  x {ratio}  sync {sync:5.2f} s"
                f"  cpu {used:6.2f} s  peak {peak / 1024:5.0f} MiB"
            )
        sys.stdout.flush()

    def main(self):
        try:
            self.fill()
            for row in self.arguments.rows or ROWS:
                for image in ("debian",) if row in ("second", "push") else IMAGES:
                    for compression in COMPRESSIONS:
                        if not self.arguments.only or f"{image}-{compression}" in self.arguments.only:
                            self.row(row, image, compression)
        finally:
            self.source.stop()
            shutil.rmtree(self.state, ignore_errors=True)
            os.rmdir(self.mounted)


def arguments():
    parser = argparse.ArgumentParser(prog="hack/bench-images")
    parser.add_argument("-n", type=int, default=3, help="rounds")
    parser.add_argument("-d", dest="directory", default="/var/tmp/berth-images", help="of hack/images")
    parser.add_argument("--only", action="append", help="IMAGE-COMPRESSION, several times")
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help=" ".join(ROWS))
    return parser.parse_args()


Bench(arguments()).main()
