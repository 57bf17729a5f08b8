"""Sends one message to one target, in a process of its own: `python -m circus_failover.sender`.

The order comes on standard input, since it holds the target's address: no command line shows it. What became
of it is left as a file, so that it is known also when whoever started this has ended meanwhile. It prints
nothing, and what it says of a failure has no part of an address. Apprise adds 34 MB and 0.4 s to a process
(2.2), so that it is imported only here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from circus_failover import private_file
from circus_failover.logfmt import timestamp

SEND_SECS = 20.0
"""How long a target may take."""
MARGIN_SECS = 10.0
"""After how much longer this process ends itself, whatever it waits for."""
URL_BYTES = 4096
_SHORTEST_SECRET = 3


class NotSent(Exception):
    """The message was not taken; the text says why, without any part of an address."""


def main() -> None:
    """Carry out the order on standard input, and leave what became of it."""
    order = json.load(sys.stdin)
    secs = float(order.get("secs", SEND_SECS))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, secs + MARGIN_SECS)
    result: dict[str, Any] = {"ok": True, "why": ""}
    try:
        carry_out(order, secs)
    except NotSent as error:
        result = {"ok": False, "why": str(error)[:300]}
    except Exception as error:
        # The text of an exception may have the address in it; the name of its class has not.
        result = {"ok": False, "why": f"it failed ({type(error).__name__})"}
    private_file.replace(Path(order["outcome"]), json.dumps(result))


def carry_out(order: Mapping[str, Any], secs: float) -> None:
    """Send.

    Args:
        order: `transport` (how the target is reached), `message` (as a command gets it), `cwd` (where a
            command is run), and `check`: only see whether Apprise understands the address.
        secs: how long that may take.

    Raises:
        NotSent: it was not taken.
    """
    transport, message = order["transport"], order["message"]
    if "command" not in transport:
        _by_apprise(_address(transport), message, secs, check=bool(order.get("check")))
    elif not order.get("check"):
        _by_command(transport["command"], message, secs, order.get("cwd"))


def _by_command(command: list[str], message: Mapping[str, Any], secs: float, cwd: str | None) -> None:
    """Run a command with the message on its standard input; what it prints is nobody's."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=cwd,
        )
    except OSError as error:
        raise NotSent(f"it cannot be run: {error.strerror}") from error
    try:
        process.communicate((json.dumps(message) + "\n").encode(), timeout=secs)
    except subprocess.TimeoutExpired as error:
        # It leads its own group and was not reaped yet, so that the number is certainly its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise NotSent(f"it took longer than {secs:g} s and was ended") from error
    if process.returncode < 0:
        raise NotSent(f"it was ended by signal {-process.returncode}")
    if process.returncode:
        raise NotSent(f"it ended with status {process.returncode}")


def _address(transport: Mapping[str, str]) -> str:
    """Return the Apprise URL of a target."""
    if "url" in transport:
        return transport["url"]
    if "url_env" in transport:
        url = os.environ.get(transport["url_env"], "").strip()
        if not url:
            raise NotSent(f"the variable {transport['url_env']} is not set here")
        return url
    from circus_failover.notify_settings import file_trouble

    path = Path(transport["url_file"])
    trouble = file_trouble(path)
    if trouble is not None:
        raise NotSent(f"url_file: {trouble}")
    with path.open("rb") as file:
        return file.read(URL_BYTES).decode("utf-8", "replace").strip()


def _by_apprise(url: str, message: Mapping[str, Any], secs: float, *, check: bool) -> None:
    """Send through Apprise; what it says of a failure is kept, without any part of the address."""
    import logging

    words: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words.append(record.getMessage())

    import apprise

    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [Kept(level=logging.WARNING)], False
    # Nothing of it is kept on disk, and no plugins of its own are looked for (2.2).
    asset = apprise.AppriseAsset(
        app_id="circus-failover", storage_mode=apprise.PersistentStoreMode.MEMORY, plugin_paths=[]
    )
    services = apprise.Apprise(asset=asset)
    if not services.add(url) or len(services) != 1:
        raise NotSent("Apprise does not understand the address")
    if check:
        return
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, secs)
    title, body = shown(message)
    taken = services.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT)
    if not taken:
        said = redacted(words[-1] if words else "", url)
        raise NotSent(f"it was not taken{f': {said}' if said else ''}")


def _too_long(number: int, frame: object) -> None:
    # Should somebody catch that, the next one ends this process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, MARGIN_SECS)
    raise NotSent("it took too long")


def redacted(words: str, url: str) -> str:
    """Return words on one line without any part of a URL beyond its scheme."""
    scheme, _, rest = url.partition("://")
    parts = {part for text in (rest, unquote(rest)) for part in re.split(r"[/:@?&=#,+\s]+", text)}
    parts |= {rest, unquote(rest), rest.strip("/")}
    line = " ".join(words.split())[:1000]
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            line = re.sub(re.escape(part), "***", line, flags=re.IGNORECASE)
    # Whatever else looks like an address or a long secret of the service's own making.
    line = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", "***", line)
    return re.sub(r"\b(?=\w*\d)[\w-]{16,}", "***", line)[:200]


def shown(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return title and body of a message for people; what would call somebody by name does not.

    Args:
        message: as a command gets it.
    """
    what = "test" if message["test"] else str(message["kind"])
    about = f": {message['identity']}" if message["identity"] else ""
    often = f" ({message['count']} times)" if message["count"] > 1 and what != "digest" else ""
    title = f"[{message['host']}] {what}{about}{often}"
    return _no_mention([title])[0], "\n".join(_no_mention([*_lines(message), timestamp(message["at"])]))


def _lines(message: Mapping[str, Any]) -> list[str]:
    return [str(message["text"]), *(str(line) for line in message["detail"].get("lines", ()))]


def _no_mention(lines: Iterable[str]) -> list[str]:
    """Take from `@everyone` and the like that they are mentions: a zero-width space breaks them."""
    return [line.replace("@", "@\u200b").replace("<!", "<\u200b!") for line in lines]


if __name__ == "__main__":
    main()
