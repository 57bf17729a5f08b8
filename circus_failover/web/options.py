"""What the console is told: where it listens, how it is called, and which circusds it shows.

Values and their limits, as `web:` in failover.yaml gives them; nothing is opened or looked up here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

HOST = "127.0.0.1"
PORT = 8787
SIGN_IN_DAYS = 30.0
LONGEST_SIGN_IN_DAYS = 365.0
MOST_ENDPOINTS = 50
OWN = "local"
"""The name of the circusd that the console belongs to."""
A_NAME = "1 to 63 lower-case letters, digits or '-', the first a letter or digit"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*\.?")
_ENDPOINT = re.compile(r"(?:tcp|ipc)://[^\s\x00-\x1f\x7f]{1,1000}")
_SSH = re.compile(r"[A-Za-z0-9_][^\s\x00-\x1f\x7f]{0,254}")


@dataclass(frozen=True)
class Endpoint:
    """One circusd that the console shows."""

    name: str
    """What pages and the API call it."""
    endpoint: str
    """Where it listens, as ZeroMQ writes it: `tcp://...` or `ipc://...`."""
    ssh: str | None = None
    """A host that the connection goes through, as `ssh` takes it."""


@dataclass(frozen=True)
class Options:
    """How one console runs."""

    host: str = HOST
    port: int = PORT
    """0: any that is free."""
    allow_remote: bool = False
    """Whether it may listen beyond loopback without TLS."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    hosts: tuple[str, ...] = ()
    """Names, beside those of loopback, that it answers to."""
    proxy: bool = False
    """Whether what a peer on loopback says of the client (X-Forwarded-For, X-Forwarded-Proto) is believed."""
    sign_in_days: float = SIGN_IN_DAYS
    """Days after which a page has to be signed in anew."""
    endpoints: tuple[Endpoint, ...] = ()
    """The circusds that it shows; in a failover.yaml, those beside its own."""
    config: Path | None = None
    """The failover.yaml it was made from."""
    fd: int | None = None
    """A socket that circusd has opened for it; `host` and `port` are then not used."""

    @property
    def tls(self) -> bool:
        """Whether browsers reach it by https without anything between."""
        return self.tls_cert is not None


class Reading(Protocol):
    """What reads failover.yaml, as far as it is needed here."""

    def problem(self, key: str, value: object, expected: str, line: int = 0) -> None:
        """Collect a mistake."""

    def folder_at(self, key: str, text: str) -> Path | None:
        """Return a path made absolute; a mistake is collected."""


def options(reading: Reading, given: Mapping[str, Any], endpoints: Sequence[Mapping[str, Any]]) -> Options:
    """Return what `web:` says; each mistake is one problem.

    Args:
        reading: collects the problems.
        given: the keys of the section and their values, each of the right type.
        endpoints: the same for each entry of `endpoints`.
    """
    host, port = given.get("host", HOST), given.get("port", PORT)
    if not is_host(host):
        reading.problem("web.host", host, "the address or the name of an interface of this machine")
    if not 0 <= port <= 65535:
        reading.problem("web.port", port, "a port, 1 to 65535 (0: any that is free)")
    days = given.get("sign_in_days", SIGN_IN_DAYS)
    if not 0 < days <= LONGEST_SIGN_IN_DAYS:
        reading.problem("web.sign_in_days", days, f"days, more than 0 and at most {LONGEST_SIGN_IN_DAYS:g}")
    cert, key = given.get("tls_cert"), given.get("tls_key")
    if (cert is None) != (key is None):
        missing = "tls_key" if key is None else "tls_cert"
        reading.problem(f"web.{missing}", None, "a file; the certificate and its key go together")
    return Options(
        host=host,
        port=port,
        allow_remote=given.get("allow_remote", False),
        tls_cert=None if cert is None else reading.folder_at("web.tls_cert", cert),
        tls_key=None if key is None else reading.folder_at("web.tls_key", key),
        hosts=_host_names(reading, given.get("hosts", ())),
        proxy=given.get("proxy", False),
        sign_in_days=float(days),
        endpoints=_endpoints(reading, endpoints),
    )


def is_host(text: str) -> bool:
    """Say whether a text is an IP address or can be a host's name."""
    return bool(_HOST_NAME.fullmatch(text) or re.fullmatch(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?", text))


def is_endpoint(text: str) -> bool:
    """Say whether a text can be where a circusd listens."""
    return _ENDPOINT.fullmatch(text) is not None


def _host_names(reading: Reading, names: Sequence[object]) -> tuple[str, ...]:
    found = []
    for index, name in enumerate(names):
        if not isinstance(name, str) or not is_host(name):
            expected = "a host's name, as in an address: without scheme, port or path"
            reading.problem(f"web.hosts[{index}]", name, expected)
        else:
            found.append(name.lower().rstrip("."))
    return tuple(dict.fromkeys(found))


def _endpoints(reading: Reading, entries: Sequence[Mapping[str, Any]]) -> tuple[Endpoint, ...]:
    found: list[Endpoint] = []
    names = {OWN: "the console's own circusd"}
    if len(entries) > MOST_ENDPOINTS:
        reading.problem("web.endpoints", len(entries), f"at most {MOST_ENDPOINTS} endpoints")
        return ()
    for index, entry in enumerate(entries):
        where = f"web.endpoints[{index}]"
        name, endpoint, ssh = entry.get("name"), entry.get("endpoint"), entry.get("ssh")
        if name is not None and not _NAME.fullmatch(name):
            reading.problem(f"{where}.name", name, A_NAME)
        elif name is not None and names.setdefault(name, where) != where:
            reading.problem(f"{where}.name", name, f"a name of its own; {names[name]} has this one")
        if endpoint is not None and not is_endpoint(endpoint):
            reading.problem(f"{where}.endpoint", endpoint, "tcp://HOST:PORT or ipc://PATH")
        if ssh is not None and not _SSH.fullmatch(ssh):
            reading.problem(f"{where}.ssh", ssh, "a host as ssh takes it: [USER@]HOST")
        if name is not None and endpoint is not None:
            found.append(Endpoint(name, endpoint, ssh))
    return tuple(found)
