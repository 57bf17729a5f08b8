"""`failoverctl doctor` on the web console: whether it runs, and whether strangers could sign in.

Looks at circus.ini, failover.yaml and the console's folder; no console is asked and no token is shown.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus_failover.doctor_checks import Check, fail, ok, warn
from circus_failover.settings import Settings
from circus_failover.state_dir import StateDir
from circus_failover.web.options import Options
from circus_failover.web.origin import is_loopback
from circus_failover.web.tokens import TokenFolder, TokensUnusable

PROGRAM = "failover-web"


@dataclass(frozen=True)
class Found:
    """What was found of a fleet's console."""

    wanted: str | None
    """Where circus.ini asks for it, in words; None: it does not."""
    listens: str
    """The address it is told to listen on."""
    options: Options
    url: str | None
    """Where the one that runs is; None: none runs."""
    pid: int | None
    trouble: str | None
    """Why its tokens cannot be used."""


def examine(state: StateDir, circus: Mapping[str, Any], settings: Mapping[Path, Settings]) -> list[Check]:
    """Look at the console of a fleet; nothing is said of one that nobody ever wanted.

    Args:
        state: the fleet's state directory.
        circus: its circus.ini as Circus reads it; empty when it could not be read.
        settings: the failover.yaml files that could be read, by path.
    """
    options = next((one.web for one in settings.values()), Options())
    wanted, listens = _wanted(circus, options)
    if wanted is None and not os.path.isdir(state.web):
        return []
    folder, trouble, running = TokenFolder(state), None, None
    if os.path.isdir(state.web):
        running = folder.running()
        try:
            folder.read()
        except TokensUnusable as error:
            trouble = str(error)
    url, pid = (running.url, running.process.pid) if running else (None, None)
    return [judged(Found(wanted, listens, options, url, pid, trouble))]


def judged(found: Found) -> Check:
    """Judge what was found."""
    if found.trouble is not None:
        return fail("console", found.trouble, "failoverctl web --new-tokens; everybody signs in anew")
    open_to_all = not is_loopback(found.listens) and not found.options.tls
    if found.wanted is not None and open_to_all and not found.options.allow_remote:
        return fail(
            "console",
            f"{found.wanted} listens on {found.listens} without TLS, so nothing is served",
            "listen on 127.0.0.1, or give it tls_cert and tls_key under `web` in failover.yaml",
        )
    if found.url is None:
        if found.wanted is None:
            return ok("console", "none runs, and circus.ini asks for none")
        return warn(
            "console", f"{found.wanted} asks for one, and none runs", "its reason is in circusd's log"
        )
    where = f"{found.url}, pid {found.pid}"
    if open_to_all:
        return warn(
            "console",
            f"{where}: it listens on {found.listens} without TLS, so tokens can be read on their way",
            "tls_cert and tls_key, or a reverse proxy",
        )
    return ok("console", where)


def _wanted(circus: Mapping[str, Any], options: Options) -> tuple[str | None, str]:
    if circus.get("httpd"):
        return "httpd = True", str(circus.get("httpd_host") or "localhost")
    for watcher in circus.get("watchers", ()):
        try:
            words = shlex.split(str(watcher.get("cmd", "")))
        except ValueError:
            continue
        if words and os.path.basename(words[0]) == PROGRAM:
            return f"[watcher:{watcher.get('name')}]", options.host
    return None, options.host
