"""What a client says of itself when it is asked by its own command: its version, and whether it is logged in.

For `doctor` alone: a client takes up to seconds. It is run with the variables it is given and no others,
without a terminal, for a bounded time, and is ended with all that it started. Of what it prints only known
words are passed on: it may hold names, addresses or keys.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

ANSWER_SECS = 20.0
"""A client takes a second of computing to start."""
MAX_CHARS = 64 * 1024
_VERSION = re.compile(r"\b\d+\.\d+(?:\.\d+)?\b")
_METHODS = {
    # Claude Code 2.1.329, `auth status`
    "claude.ai": "a subscription",
    "oauth_token": "a token",
    "api_key": "a key",
}


@dataclass(frozen=True)
class Answer:
    """What a client said about its login."""

    command: str
    logged_in: bool | None
    """None: it did not say."""
    text: str
    keys_do_not_count: bool = False
    """It does not call a key in the environment a login."""


def version(program: str, variables: Mapping[str, str], secs: float | None = None) -> str | None:
    """Return a client's version; None when it does not say.

    Args:
        program: its path.
        variables: all that it gets.
        secs: how long it may take; None: `ANSWER_SECS`.
    """
    _, said = _run([program, "--version"], variables, secs)
    found = _VERSION.search(said)
    return found[0] if found else None


def login(runtime: str, program: str, variables: Mapping[str, str]) -> Answer | None:
    """Return what a client says about its login; None where there is no command for that.

    Args:
        runtime: which client.
        program: its path.
        variables: all that it gets.
    """
    if runtime == "claude":
        return _claude(program, variables)
    if runtime == "codex":
        return _codex(program, variables)
    return None


def _claude(program: str, variables: Mapping[str, str]) -> Answer:
    command = "claude auth status"
    status, said = _run([program, "auth", "status", "--json"], variables)
    if status is None:
        return Answer(command, None, said)
    try:
        document = json.loads(said)
        logged_in, method = document["loggedIn"], str(document.get("authMethod"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Answer(command, None, f"its answer is not understood (exit status {status})")
    if logged_in is not True:
        return Answer(command, False, "not logged in")
    return Answer(command, True, f"logged in with {_METHODS.get(method, 'something')}")


def _codex(program: str, variables: Mapping[str, str]) -> Answer:
    command = "codex login status"
    status, said = _run([program, "login", "status"], variables)
    if status is None:
        return Answer(command, None, said)
    # Codex 0.169.0: 0 and 1; a key in the environment counts as not logged in.
    if status not in (0, 1):
        return Answer(command, None, f"its answer is not understood (exit status {status})")
    return Answer(command, status == 0, "logged in" if status == 0 else "not logged in", True)


def _run(argv: list[str], variables: Mapping[str, str], secs: float | None = None) -> tuple[int | None, str]:
    """Return a command's exit status and what it printed; None and why, when it gave no answer."""
    secs = ANSWER_SECS if secs is None else secs
    try:
        process = subprocess.Popen(
            argv,
            env={**variables, "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    except (OSError, ValueError) as error:
        return None, f"it could not be run ({getattr(error, 'strerror', None) or type(error).__name__})"
    with process:
        try:
            said, _ = process.communicate(timeout=secs)
        except subprocess.TimeoutExpired:
            return None, f"no answer within {secs:g} s"
        finally:
            # What it left behind holds the pipe, and would be waited for.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said[:MAX_CHARS].decode(errors="replace")
