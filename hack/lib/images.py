#!/usr/bin/env python3
"""Part of hack/images: trees to OCI layouts, and the images that need no Debian."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile

COMPRESSIONS = {
    "gzip": (["gzip", "-n", "-6"], "application/vnd.oci.image.layer.v1.tar+gzip"),
    "zstd": (["zstd", "-q", "-3", "-T1"], "application/vnd.oci.image.layer.v1.tar+zstd"),
}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def put(blobs, data):
    name = hashlib.sha256(data).hexdigest()
    with open(os.path.join(blobs, name), "wb") as file:
        file.write(data)
    return {"digest": f"sha256:{name}", "size": len(data)}


def layout(directory, layers, compression):
    """Writes the image whose layers are these archives, lowest first."""
    blobs = os.path.join(directory, "blobs/sha256")
    os.makedirs(blobs)
    command, media_type = COMPRESSIONS[compression]
    descriptors = []
    for archive in layers:
        compressed = f"{archive}.{compression}"
        if not os.path.exists(compressed):
            with open(archive, "rb") as source, open(compressed + ".part", "wb") as target:
                subprocess.run(command, stdin=source, stdout=target, check=True)
            os.rename(compressed + ".part", compressed)
        name = sha256(compressed)
        os.link(compressed, os.path.join(blobs, name)) if not os.path.exists(os.path.join(blobs, name)) else None
        descriptors.append({"mediaType": media_type, "digest": f"sha256:{name}", "size": os.path.getsize(compressed)})
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {
        "architecture": machine,
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(archive)}" for archive in layers]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "hack/images"} for _ in layers],
    }
    config = put(blobs, json.dumps(config).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": descriptors,
    }
    manifest = put(blobs, json.dumps(manifest).encode())
    manifest = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        **manifest,
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
        "platform": {"architecture": machine, "os": "linux"},
    }
    with open(os.path.join(directory, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, file)
    with open(os.path.join(directory, "oci-layout"), "w") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')


def tree(to, directory):
    """An archive of a directory in Docker's form: names without ./, pax where it must be."""
    options = ["--sort=name", "--numeric-owner", "--format=pax", "--pax-option=delete=atime,delete=ctime", "--mtime=@1767225600"]
    subprocess.run(["tar", "-cf", to, *options, "--transform=s,^\\./,,", "-C", directory, "."], check=True)


def text(source, size):
    """Bytes that compress about as a program's do."""
    words = [source.randbytes(source.randint(2, 12)) for _ in range(400)]
    data = b"".join(source.choices(words, k=size // 4 + 1))
    return (data * 3)[:size]


def files(to, names):
    """An archive of small files, the same ones each time."""
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as archive:
        seen = set()
        for name, size in names:
            directory = os.path.dirname(name)
            if directory not in seen:
                seen.add(directory)
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1767225600
                archive.addfile(entry)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = size, 0o644, 1767225600
            archive.addfile(entry, io.BytesIO(text(random.Random(name), size)))


def main():
    to = sys.argv[1]
    trees = [os.path.join(to, "trees", str(number)) for number in range(1, 7)]
    source = random.Random(1)
    archives = os.path.join(to, "archives")
    shutil.rmtree(archives, ignore_errors=True)
    os.mkdir(archives)

    def archive(name):
        return os.path.join(archives, name)

    debian = []
    for number, directory in enumerate(trees, 1):
        tree(archive(f"debian-{number}"), directory)
        debian.append(archive(f"debian-{number}"))
    total = sum(os.path.getsize(layer) for layer in debian)
    files(archive("update"), [(f"opt/update/{number}", total // 100 // 40) for number in range(40)])
    # Docker and podman take no archive that has a name twice, so the trees are put together first.
    whole = os.path.join(to, "trees", "whole")
    shutil.rmtree(whole, ignore_errors=True)
    os.mkdir(whole)
    for layer in debian:
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-f", layer, "-C", whole], check=True)
    tree(archive("big"), whole)
    shutil.rmtree(whole)
    sizes = [source.randint(50, 8000) for _ in range(60_000)]
    files(archive("files"), [(f"srv/{number // 30 % 50}-{number // 1500}/{number // 30}/file-{number}", size) for number, size in enumerate(sizes)])
    tiny = []
    for layer in range(60):
        tiny.append(archive(f"tiny-{layer}"))
        files(tiny[-1], [(f"layer-{layer}/{number}", source.randint(100, 3000)) for number in range(10)])
    images = {"debian": debian, "updated": [*debian, archive("update")], "big": [archive("big")], "files": [archive("files")], "tiny": tiny}
    for name, layers in images.items():
        for compression in COMPRESSIONS:
            directory = os.path.join(to, f"{name}-{compression}")
            shutil.rmtree(directory, ignore_errors=True)
            layout(directory, layers, compression)
        size = sum(os.path.getsize(layer) for layer in layers)
        print(f"{name}: {len(layers)} layers, {size >> 20} MiB")


main()
