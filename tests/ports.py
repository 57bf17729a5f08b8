"""Free ports that stay free: of those that the kernel gives to nobody who asks for any port."""

from __future__ import annotations

import random
import socket

# Linux gives 32768 to 60999 (net.ipv4.ip_local_port_range), macOS 49152 to 65535: to whoever connects, or
# binds port 0, also between the moment when a port is found and that in which it is used.
NOT_GIVEN = range(20_000, 32_000)


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    while True:
        port = random.SystemRandom().choice(NOT_GIVEN)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
