"""Where a request comes from: whose address, by which scheme and name, and from which page.

Only what a browser cannot be made to say, or a proxy that is believed, counts here. Who asks, and what they
may, is for `access`; nothing here answers a request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from circus_failover.web.denied import Denied
from circus_failover.web.options import Options

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:,/@\[\]]{1,255}))(?::([0-9]{1,5}))?")


class Origin:
    """Says where requests come from, and refuses those that come by a strange name or from a strange page.

    Args:
        options: how the console is called, and whether a proxy is believed.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.bound: tuple[str, ...] = (options.host,)
        """The addresses that are listened on."""

    def address(self, request: HTTPServerRequest) -> str:
        """Return the IP address of the client; of a proxy's client where the proxy is believed."""
        peer = str(request.remote_ip or "")
        if self._proxied(request):
            # From the right: what is left of the first stranger was written by the stranger.
            for part in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
                found = _ip(part.strip())
                if found is None:
                    break
                peer = str(found)
                if not found.is_loopback:
                    break
        return peer

    def is_secure(self, request: HTTPServerRequest) -> bool:
        """Say whether the browser uses https."""
        if self._proxied(request):
            forwarded = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
            if forwarded in ("http", "https"):
                return forwarded == "https"
        return request.protocol == "https"

    def _proxied(self, request: HTTPServerRequest) -> bool:
        return self.options.proxy and is_loopback(str(request.remote_ip or ""))

    def check(self, request: HTTPServerRequest) -> None:
        """Check by which name the console was called, and from which page.

        A name that leads here by somebody else's DNS would make that page of the same origin as the console
        (DNS rebinding): only names that are known are answered.

        Raises:
            Denied: it is not answered.
        """
        host = request.headers.get("Host", "")
        name = name_and_port(host)[0]
        if not self.is_called(name):
            raise Denied(
                421,
                "the console does not answer to this name; its operator can add it to `hosts` "
                "under `web` in failover.yaml",
                "host",
            )
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_same(origin, request):
            raise Denied(
                403,
                "this comes from a page of another origin; behind a reverse proxy the console has to be told "
                "so: `proxy: true` under `web` in failover.yaml",
                "origin",
            )

    def is_called(self, name: str) -> bool:
        """Say whether a name, in lower case, is one that the console answers to."""
        if not name:
            return False
        literal = _ip(name)
        if literal is not None:
            # Nobody's DNS leads here by a number.
            remote = any(not is_loopback(address) for address in self.bound)
            return literal.is_loopback or remote or str(literal) in self.options.hosts
        return name == "localhost" or name == self.options.host.lower() or name in self.options.hosts

    def _is_same(self, origin: str, request: HTTPServerRequest) -> bool:
        try:
            parts = urlsplit(origin.strip().lower())
        except ValueError:
            return False
        scheme = "https" if self.is_secure(request) else "http"
        return parts.scheme == scheme and parts.netloc == request.headers.get("Host", "").lower()


def name_and_port(host: str) -> tuple[str, str]:
    """Return the name (lower-case, without brackets) and the port of a Host header; empty: it is none."""
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return "", ""
    return (found[1] or found[2]).lower().rstrip("."), found[3] or ""


def is_loopback(address: str) -> bool:
    """Say whether an address, or the name `localhost`, is this machine for itself alone."""
    found = _ip(address)
    if found is None:
        return address.lower() == "localhost"
    mapped = getattr(found, "ipv4_mapped", None)
    return bool(found.is_loopback or (mapped is not None and mapped.is_loopback))


def beyond_loopback(addresses: Sequence[str]) -> list[str]:
    """Return those that others than this machine can reach."""
    return [address for address in addresses if not is_loopback(address)]


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
