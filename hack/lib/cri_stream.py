#!/usr/bin/python3
"""The client's end of a streaming exec or attach: SPDY 3.1, as kubectl and crictl speak it to a kubelet and to containerd.

cri_stream.py URL FLAGS [ROWSxCOLUMNS...]   URL of `cri.py exec-url` or `attach-url`, with the same FLAGS

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

SYN_STREAM, PING = 1, 6
FIN = 1


class Connection:
    def __init__(self, url):
        url = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=60)
        self.socket.sendall(
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n".encode()
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

    def open(self, kind):
        """A stream of Kubernetes' remote command protocol: error, stdin, stdout, stderr or resize."""
        number = 2 * len(self.streams) + 1
        self.streams[number] = kind
        block = struct.pack(">I", 1)
        for text in (b"streamtype", kind.encode()):
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
        """The stream's name and the data; no name for control frames, None at the end."""
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
            return "", b""
        return self.streams[first], data


def exit_code(answer):
    if answer.get("status") == "Success":
        return 0
    for cause in answer.get("details", {}).get("causes", []):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    sys.stderr.write(json.dumps(answer) + "\n")
    return 255


def main():
    url, flags, *sizes = sys.argv[1:]
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
            kind, data = received
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
