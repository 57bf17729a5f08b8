"""The console as a process of its own, beside a circusd: on a free loopback port, ended by its pid.

It knows its address and its tokens, and talks to it as a script does; what a person sees is in pages.py.
It starts no circusd, and reads nothing of the console but what an operator may read.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.ports import free_port

BIN = Path(sys.executable).parent
START_SECS = 30.0


class NotStarted(Exception):
    """The console did not come up; the text is what it wrote."""


class Console:
    """One `failover-web`."""

    def __init__(self, endpoint: str, state: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """Describe it.

        Args:
            endpoint: circusd's.
            state: the fleet's state directory, where the console keeps its tokens.
            folder: where its log goes.
            environment: all variables it gets.
        """
        self.endpoint, self.state, self.environment = endpoint, state, environment
        self.log = folder / "console.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the console that runs."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            NotStarted: it ended, or does not answer.
        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "failover-web"), "--endpoint", self.endpoint, "--port", str(self.port)],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.log.parent,
            )
        until = time.monotonic() + START_SECS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > until:
                status = self.process.poll()
                raise NotStarted(f"failover-web (status {status}): {self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("/healthz")[0] == 200 and (self.state / "web" / "token").exists()
        return False

    def end(self) -> None:
        """End it, if it runs."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.terminate()
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    self.process.kill()
            self.process.wait()
            self.process = None

    def token(self, role: str = "operator") -> str:
        """Return what signs somebody in as `operator` or `viewer`."""
        name = {"operator": "token", "viewer": "viewer-token"}[role]
        return (self.state / "web" / name).read_text().strip()

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, role: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Ask it as a script does, by a token.

        Args:
            path: with its leading slash.
            body: what to post; None to get.
            role: whose token; None for none.

        Returns:
            The status and the answer, which is empty when it is no JSON.

        Raises:
            OSError: it does not answer.
        """
        headers = {"Content-Type": "application/json"}
        if role is not None:
            headers["Authorization"] = f"Bearer {self.token(role)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        # Without the environment's proxies: they are for other hosts.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, _mapping(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _mapping(error.read())


def _mapping(raw: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        read = json.loads(raw)
        if isinstance(read, dict):
            return read
    return {}
