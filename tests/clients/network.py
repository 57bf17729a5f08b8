"""Keeps the clients off every network but loopback.

Where it may be made (Linux, root), they live in a network namespace that has nothing but 127.0.0.1, so that
no client reaches anything else, whatever it tries. Elsewhere their variables lead every other address to a
proxy that nobody serves: enough for what honours proxies, and no guarantee.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from types import TracebackType

# The namespace lives as long as a process in it: one that waits for its standard input to end, so that it
# goes with the test run also when that is killed. lo is brought up by SIOCGIFFLAGS, SIOCSIFFLAGS
# (netdevice(7)).
HOLDER = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    request = struct.pack("16sH14x", b"lo", 0)
    flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, 0x8913, request))[1]
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))
with socket.socket(fileno=int(sys.argv[1])) as channel:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        socket.send_fds(channel, [b"listening"], [listener.fileno()])
sys.stdin.read()
"""
NOBODY = "http://127.0.0.1:9"
"""Port 9 is `discard`, which nobody serves any more."""
PROXIES = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOBODY),
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), NOBODY),
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


@dataclass
class Network:
    """Where the clients run: a context; everything a test starts there begins with `prefix`."""

    isolated: bool = False
    """Whether it is a namespace of its own."""
    prefix: tuple[str, ...] = ()
    """What a command line begins with to run in it."""
    variables: dict[str, str] = field(default_factory=dict)
    """What the environment of whatever runs in it needs."""
    listener: socket.socket | None = None
    """A socket that listens on its loopback; whoever takes it answers there."""
    _holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Network:
        if not self._namespace():
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.variables = dict(PROXIES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.listener is not None:
            self.listener.close()
        if self._holder is not None:
            assert self._holder.stdin is not None
            self._holder.stdin.close()
            self._holder.wait(10)

    def _namespace(self) -> bool:
        unshare, nsenter = shutil.which("unshare"), shutil.which("nsenter")
        if not (sys.platform.startswith("linux") and os.geteuid() == 0 and unshare and nsenter):
            return False
        ours, theirs = socket.socketpair()
        with ours, theirs:
            number = theirs.fileno()
            self._holder = subprocess.Popen(
                [unshare, "--net", "--", sys.executable, "-I", "-S", "-c", HOLDER, str(number)],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[number],
            )
            theirs.close()
            ours.settimeout(30)
            _, handles, _, _ = socket.recv_fds(ours, 16, 1)
        if not handles:
            # Root without CAP_SYS_ADMIN, as in most containers.
            self._holder.communicate(timeout=10)
            self._holder = None
            return False
        self.listener = socket.socket(fileno=handles[0])
        self.isolated = True
        self.prefix = (nsenter, f"--net=/proc/{self._holder.pid}/ns/net", "--")
        return True
