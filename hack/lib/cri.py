#!/usr/bin/python3
"""One call of containerd's CRI plugin, as a kubelet makes it; the messages are written by their field numbers.

cri.py SOCKET pod|net-pod|user-pod NAME UID CGROUP LOGS HANDLER   prints the id of a pod with the host's network, with one by CNI,
                                 or with one by CNI and a user namespace (a pod's `hostUsers: false`)
cri.py SOCKET create POD NAME FLAGS IMAGE LOG UID CGROUP LOGS WORD...   prints the id of a container
cri.py SOCKET start|stop|remove|stop-pod|remove-pod ID
cri.py SOCKET exec ID WORD...    prints its output, ends with its exit code
cri.py SOCKET exec-url ID FLAGS WORD...   prints the address for cri_stream.py
cri.py SOCKET attach-url ID FLAGS         the same
cri.py SOCKET forward-url POD PORT        the same
cri.py SOCKET ip POD             prints the pod's address
cri.py SOCKET state ID           prints the state (0 created, 1 running, 2 exited) and the exit code
cri.py SOCKET reason ID          prints why it has ended, as CRI has it: Completed, Error, OOMKilled
cri.py SOCKET stats ID           prints CPU time in nanoseconds and the working set in bytes

FLAGS are letters, or `-`: `i` for a standard input (a container's ends with the first client's), `t` for a terminal; of a container also
`m` for a limit of 64 MiB and no swap, `u` in a pod with a user namespace.
"""
import sys

import grpc


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(*fields):
    """Pairs of number and value: text, bytes (a message) or an integer."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def fields(data):
    """The last value of each field; all of them are numbers or bytes."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            found[key >> 3] = number()
        else:
            length = number()
            found[key >> 3] = data[at : at + length]
            at += length
    return found


# What a kubelet lends to a pod.
USERS = message((1, 200000), (2, 0), (3, 65536))


def namespaces(host_network, users):
    return message((1, 2 if host_network else 0), *([(5, message((1, 0), (2, USERS), (3, USERS)))] if users else []))


def pod_config(name, uid, cgroup, logs, host_network=True, users=False):
    security = message((1, namespaces(host_network, users)))
    return message(
        (1, message((1, name), (2, uid), (3, "default"))), (3, logs), (8, message((1, cgroup), (2, security)))
    )


def main():
    socket, command, *args = sys.argv[1:]
    channel = grpc.insecure_channel("unix://" + socket)

    def call(method, *request):
        return fields(channel.unary_unary("/runtime.v1.RuntimeService/" + method)(message(*request), timeout=60))

    if command in ("pod", "net-pod", "user-pod"):
        *pod, handler = args
        config = pod_config(*pod, command == "pod", command == "user-pod")
        print(call("RunPodSandbox", (1, config), (2, handler))[1].decode())
    elif command == "create":
        pod, name, flags, image, log, uid, cgroup, logs, *words = args
        streams = ((12, int("i" in flags)), (13, int("i" in flags)), (14, int("t" in flags)))
        linux = []
        if "m" in flags:
            linux.append((1, message((4, 64 << 20), (10, 64 << 20))))
        if "u" in flags:
            linux.append((2, message((3, namespaces(False, True)))))
        config = message(
            (1, message((1, name))), (2, message((1, image))), *((3, word) for word in words), (11, log), *streams,
            *([(15, message(*linux))] if linux else []),
        )
        users = "u" in flags
        sandbox = pod_config("pod", uid, cgroup, logs, not users, users)
        print(call("CreateContainer", (1, pod), (2, config), (3, sandbox))[1].decode())
    elif command == "exec":
        answer = call("ExecSync", (1, args[0]), *((2, word) for word in args[1:]), (3, 30))
        sys.stdout.write(answer.get(1, b"").decode())
        sys.stderr.write(answer.get(2, b"").decode())
        sys.exit(answer.get(3, 0))
    elif command == "exec-url":
        container, flags, *words = args
        tty = int("t" in flags)
        streams = ((3, tty), (4, int("i" in flags)), (5, 1), (6, 1 - tty))
        print(call("Exec", (1, container), *((2, word) for word in words), *streams)[1].decode())
    elif command == "attach-url":
        container, flags = args
        tty = int("t" in flags)
        print(call("Attach", (1, container), (2, int("i" in flags)), (3, tty), (4, 1), (5, 1 - tty))[1].decode())
    elif command == "forward-url":
        print(call("PortForward", (1, args[0]), (2, int(args[1])))[1].decode())
    elif command == "ip":
        print(fields(fields(call("PodSandboxStatus", (1, args[0]))[1])[5])[1].decode())
    elif command == "state":
        status = fields(call("ContainerStatus", (1, args[0]))[1])
        print(status.get(3, 0), status.get(7, 0))
    elif command == "reason":
        print(fields(call("ContainerStatus", (1, args[0]))[1])[10].decode())
    elif command == "stats":
        stats = fields(call("ContainerStats", (1, args[0]))[1])
        print(fields(fields(stats[2])[2]).get(1, 0), fields(fields(stats[3])[2]).get(1, 0))
    else:
        method = {
            "start": "StartContainer",
            "stop": "StopContainer",
            "remove": "RemoveContainer",
            "stop-pod": "StopPodSandbox",
            "remove-pod": "RemovePodSandbox",
        }[command]
        call(method, (1, args[0]))


main()
