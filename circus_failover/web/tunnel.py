"""The way to a circusd on another machine: ssh, which forwards a socket of ours to its endpoints.

It runs ssh and starts it again when it ended; what goes through is for `link`. It never asks anybody for a
password: what ssh cannot do by key, it does not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

_AGAIN_SECS = (1.0, 10.0)
"""How long to wait before starting ssh again: at first, and at most."""
_OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2", "-o", "ConnectTimeout=10"),
)
_LONGEST = 300


class Tunnel:
    """One ssh for each endpoint that is asked for.

    Args:
        server: the machine, as ssh takes it.
        on_failure: called with a sentence when ssh ended.
    """

    def __init__(self, server: str, on_failure: Callable[[str], None]) -> None:
        self._server = server
        self._on_failure = on_failure
        self._folder: Path | None = None
        self._runs: dict[str, asyncio.Task[None]] = {}

    def way(self, endpoint: str) -> str:
        """Return the endpoint on this machine that leads to one on the other; it is kept open from now on.

        Raises:
            ValueError: ssh cannot forward to that.
        """
        parts = urlsplit(endpoint)
        if parts.scheme == "ipc":
            there = endpoint.removeprefix("ipc://")
        elif parts.scheme == "tcp" and parts.port:
            host = "127.0.0.1" if parts.hostname in ("0.0.0.0", "*", "::", None) else parts.hostname
            there = f"{host}:{parts.port}"
        else:
            raise ValueError(f"expected tcp://HOST:PORT or ipc://PATH, got {endpoint!r}")
        if self._folder is None:
            # In a folder of our own, which nobody else can enter: who reaches the socket commands circusd.
            self._folder = Path(tempfile.mkdtemp(prefix="failover-web-"))
        names = [*self._runs]
        if endpoint not in self._runs:
            here = self._folder / f"{len(names)}.sock"
            self._runs[endpoint] = asyncio.get_running_loop().create_task(self._keep_open(here, there))
            names.append(endpoint)
        return f"ipc://{self._folder / f'{names.index(endpoint)}.sock'}"

    async def close(self) -> None:
        """End all of them."""
        for task in self._runs.values():
            task.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)
        self._runs.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _keep_open(self, here: Path, there: str) -> None:
        pause = _AGAIN_SECS[0]
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            why = await self._run(here, there)
            self._on_failure(f"ssh to {self._server} ended: {why}")
            if loop.time() - begun > _AGAIN_SECS[1]:
                pause = _AGAIN_SECS[0]  # it had worked
            await asyncio.sleep(pause)
            pause = min(2 * pause, _AGAIN_SECS[1])

    async def _run(self, here: Path, there: str) -> str:
        """Run ssh to its end, and return why it ended."""
        # With `cat` in place of -N it ends with us, however we end: its standard input is closed then.
        forward = (*_OPTIONS, "-L", f"{here}:{there}", "--", self._server, "cat")
        pipe = asyncio.subprocess.PIPE
        nothing = asyncio.subprocess.DEVNULL
        try:
            ssh = await asyncio.create_subprocess_exec(
                "ssh", *forward, stdin=pipe, stdout=nothing, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            return f"it cannot be run: {error.strerror}"
        said = b""
        try:
            assert ssh.stderr is not None
            while piece := await ssh.stderr.read(4096):
                said = (said + piece)[-_LONGEST:]
            status = await ssh.wait()
        finally:
            if ssh.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    ssh.kill()
                await ssh.wait()
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit {status}"
