#!/usr/bin/python3
"""The client's end of a streaming exec, attach or port forwarding: SPDY 3.1, as kubectl and crictl speak it to a kubelet and to containerd.

cri_stream.py URL FLAGS [ROWSxCOLUMNS...]   URL of `cri.py exec-url` or `attach-url`, with the same FLAGS

cri_stream.py URL forward PORT   URL of `cri.py forward-url`; one connection, with standard input and output at this end

FLAGS are letters, or `-`: `i` sends standard input, and its end when it ends; `t` is a terminal. The first size is sent at once,
each further one when there is output. Ends with the exit code that the server tells, 255 for any other error of it.
"""
import json
import os
import select
import socket
import struct
import sys
import urllib.parse
import zlib

SYN_STREAM, RST_STREAM, PING = 1, 3, 6
FIN = 1


class Connection:
    def __init__(self, url, protocol="v4.channel.k8s.io"):
        url = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=60)
        self.socket.sendall(
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        self.file = self.socket.makefile("rb", buffering=0)
        status = self.file.readline()
        if b" 101 " not in status:
            sys.exit("no upgrade: " + status.decode())
        while self.file.readline().strip():
            pass
        # One compressor for all headers. SPDY's dictionary need not be used.
        self.compressor = zlib.compressobj()
        self.streams = {}

    def open(self, kind, **headers):
        """A stream of Kubernetes' protocols: error, stdin, stdout, stderr or resize of a command; error or data of a forwarded port."""
        number = 2 * len(self.streams) + 1
        self.streams[number] = kind
        headers["streamtype"] = kind
        block = struct.pack(">I", len(headers))
        for text in (text.encode() for pair in headers.items() for text in pair):
            block += struct.pack(">I", len(text)) + text
        block = self.compressor.compress(block) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        self.control(SYN_STREAM, struct.pack(">IIH", number, 0, 0) + block)
        return number

    def control(self, kind, payload):
        self.socket.sendall(struct.pack(">HHI", 0x8003, kind, len(payload)) + payload)

    def send(self, stream, data, flags=0):
        self.socket.sendall(struct.pack(">II", stream, flags << 24 | len(data)) + data)

    def exactly(self, length):
        data = b""
        while len(data) < length:
            more = self.file.read(length - len(data))
            if not more:
                return None
            data += more
        return data

    def receive(self):
        """The stream's name, the data, and whether they are its last; no name for control frames, None at the end."""
        head = self.exactly(8)
        if head is None:
            return None
        first, second = struct.unpack(">II", head)
        data = self.exactly(second & 0xFFFFFF)
        if data is None:
            return None
        if first >> 31:
            if first & 0xFFFF == PING:
                self.control(PING, data)
            if first & 0xFFFF == RST_STREAM:
                return self.streams[struct.unpack_from(">I", data)[0]], b"", True
            return "", b"", False
        return self.streams[first], data, bool(second >> 24 & FIN)


def exit_code(answer):
    if answer.get("status") == "Success":
        return 0
    for cause in answer.get("details", {}).get("causes", []):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    sys.stderr.write(json.dumps(answer) + "\n")
    return 255


def forward(url, port):
    """One connection to a port of a pod: the data stream is it, both ways; the error stream has what went wrong."""
    connection = Connection(url, "portforward.k8s.io")
    connection.send(connection.open("error", port=port, requestid="0"), b"", FIN)
    stream = connection.open("data", port=port, requestid="0")
    waiting, told, open_streams = [connection.socket, 0], b"", {"error", "data"}
    while open_streams:
        ready = select.select(waiting, [], [], 60)[0]
        if not ready:
            sys.exit("nothing for 60 s")
        if 0 in ready:
            data = os.read(0, 65536)
            connection.send(stream, data, 0 if data else FIN)
            if not data:
                waiting.remove(0)
        if connection.socket in ready:
            received = connection.receive()
            if received is None:
                break
            kind, data, last = received
            if kind == "error":
                told += data
            elif kind:
                os.write(1, data)
            if last:
                open_streams.discard(kind)
    sys.exit(told.decode() or 0)


def main():
    url, flags, *sizes = sys.argv[1:]
    if flags == "forward":
        forward(url, sizes[0])
    connection = Connection(url)
    connection.open("error")
    stdin = connection.open("stdin") if "i" in flags else None
    connection.open("stdout")
    if "t" in flags:
        resize = connection.open("resize")
    else:
        connection.open("stderr")

    def next_size():
        if sizes:
            rows, columns = sizes.pop(0).split("x")
            connection.send(resize, json.dumps({"Height": int(rows), "Width": int(columns)}).encode())

    next_size()
    waiting = [connection.socket] + ([0] if stdin else [])
    told = b""
    while True:
        ready = select.select(waiting, [], [], 60)[0]
        if not ready:
            sys.exit("nothing for 60 s")
        if 0 in ready:
            data = os.read(0, 65536)
            connection.send(stdin, data, 0 if data else FIN)
            if not data:
                waiting.remove(0)
        if connection.socket in ready:
            received = connection.receive()
            if received is None:
                break
            kind, data, _ = received
            if kind == "error":
                told += data
            elif kind:
                os.write(2 if kind == "stderr" else 1, data)
                if data:
                    next_size()
    if not told:
        sys.exit("the connection ended without a status")
    sys.exit(exit_code(json.loads(told)))


main()
