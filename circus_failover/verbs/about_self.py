"""`failoverctl self`: what an agent asks and reports about itself, from inside its own terminal.

It knows itself by the environment its launch was given. With circusd down the request is left in the
spool, durably, and carried out at the next start.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from circus.commands.base import Command
from circus.exc import ArgumentError, CallError

from circus_failover import assignment_text
from circus_failover.failure import FOUND, Failed
from circus_failover.problems import describe, nearest
from circus_failover.verbs.local_tools import print_json

REPORTS = ("done", "failed")
REQUESTS = ("fresh", "park", "stop", *REPORTS, "beat")
NAMED = "`fresh`, `park` or `stop` with a name"
DOWN = ": circusd is down, it {} when it is back"
ANSWER_SECS = 5.0
NUMBER = re.compile(r"[0-9]{1,18}")


class Self(Command):  # type: ignore[misc]
    """\
    Ask something about the agent that runs this
    ============================================

    For use by an agent, in its own session: `fresh` ends it and begins anew with
    `failover.initial_prompt`, `park` ends it so that its next wake is a resume, `stop` ends it until
    somebody starts it. The answer comes when the intent is stored; the end follows at once.

    `done` and `failed` report about the assignment that the agent has; with its ID only about that one.
    The same report again changes nothing. With circusd down they wait, and are taken in once when it is
    back. `beat` says that the agent gets on: it touches the file FAILOVER_HEARTBEAT, and needs no circusd.

    A request of an older launch is refused.

    Command line
    ------------

    ::

        $ failoverctl self fresh|park|stop
        $ failoverctl self done|failed [ID] [--note T]
        $ failoverctl self beat

    Options
    +++++++

    - <ID>: the id of the assignment
    - <note>: what there is to say of it: one line of at most 1000 characters

    Exit status: 0 it is stored, 1 there is no way to reach circusd, 2 usage, 3 refused.
    """

    name = "self"
    msg_type = "local"
    options = [("", "note", None, "what there is to say of the assignment")]

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Send the request of this very launch."""
        about = self._checked(args, options.get("note"))
        what = args[0]
        if what == "beat":
            return self._beat(opts)
        identity, generation, launch = (
            os.environ.get(f"FAILOVER_{name}", "") for name in ("IDENTITY", "GENERATION", "LAUNCH")
        )
        if not identity or not NUMBER.fullmatch(generation) or not launch:
            outside = "`release` or `cancel` with an id" if what in REPORTS else NAMED
            raise Failed(
                "self works inside an agent only: FAILOVER_IDENTITY, FAILOVER_GENERATION and FAILOVER_LAUNCH "
                f"are not all set here; from outside use {outside}"
            )
        request = {
            "what": what,
            "identity": identity,
            "generation": int(generation),
            "launch": launch,
            "by": f"{identity}@self",
            **about,
        }
        where = opts["endpoint"] or os.environ.get("CIRCUSCTL_ENDPOINT") or self._endpoint()
        answer = self._ask(where, request) if where is not None else None
        if answer is None:
            self._leave(request)
            answer = {"status": "ok", "stored": "spool"}
        if opts["json"]:
            print_json(answer, opts)
        if answer.get("status") != "ok":
            raise Failed(str(answer.get("reason")))
        if not opts["json"]:
            print(_said(identity, what, answer))
        return 0

    def _checked(self, args: tuple[str, ...], note: object) -> dict[str, Any]:
        """Check the arguments, and return what a report says beside which launch it is of.

        Raises:
            ArgumentError: they make no request.
        """
        if not args or args[0] not in REQUESTS:
            near = nearest(args[0], REQUESTS) if args else ""
            raise ArgumentError(f"self takes one of {', '.join(REQUESTS)}{near}")
        if args[0] not in REPORTS:
            if len(args) > 1 or note is not None:
                raise ArgumentError(f"self {args[0]} takes no more: an id and a note are for done and failed")
            return {}
        if len(args) > 2:
            raise ArgumentError(f"self {args[0]} takes the id of one assignment")
        name = args[1] if len(args) == 2 else None
        if name is not None and not assignment_text.ID.fullmatch(name):
            raise ArgumentError(f"the id {describe(name)}: expected {assignment_text.ID_EXPECTED}")
        try:
            said = assignment_text.note_of(note)
        except ValueError as error:
            raise ArgumentError(f"--note: {error}") from error
        # A report that comes late is not about what the agent was given after it.
        return {"assignment": name, "note": said, "at": time.time()}

    def _beat(self, opts: dict[str, Any]) -> int:
        from circus_failover.heartbeat_file import NoHeartbeat, touch

        try:
            path = touch(os.environ)
        except NoHeartbeat as error:
            raise Failed(str(error)) from error
        if opts["json"]:
            print_json({"status": "ok", "heartbeat": path}, opts)
        return 0

    def _endpoint(self) -> str | None:
        """Return where the circusd that holds this agent's state directory listens, if one does."""
        from circus_failover import state_dir

        path = os.environ.get("FAILOVER_STATE_DIR")
        found = state_dir.holder(state_dir.StateDir(Path(path))) if path else None
        return found.endpoint if found is not None and found.process.pid else None

    def _ask(self, endpoint: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """Ask circusd; None when it does not answer."""
        from circus.client import CircusClient

        client = CircusClient(endpoint=endpoint, timeout=ANSWER_SECS)
        try:
            answer: dict[str, Any] = client.call({"command": "self-request", "properties": request})
            return answer
        except CallError:
            return None
        finally:
            client.stop()

    def _leave(self, request: dict[str, Any]) -> None:
        """Leave the request for the next circusd.

        Raises:
            Failed: there is no spool to leave it in.
        """
        from circus_failover import spool

        path = os.environ.get("FAILOVER_STATE_DIR")
        if path is None:
            raise Failed("circusd does not answer, and FAILOVER_STATE_DIR is not set", FOUND)
        try:
            spool.send(Path(path) / "spool", {"kind": "self", **request})
        except OSError as error:
            reason = f"circusd does not answer, and the request cannot be stored: {error}"
            raise Failed(reason, FOUND) from error


def _said(identity: str, what: str, answer: dict[str, Any]) -> str:
    """Return the answer to a request that was granted, as a line."""
    stored = bool(answer.get("stored"))
    if what not in REPORTS:
        return f"{identity}: {what} is under way" + (DOWN.format("does so") if stored else "")
    if stored:
        return f"{identity}: {what} is stored{DOWN.format('takes it in')}"
    already = " already" if answer.get("already") else ""
    return f"{identity}: {answer['assignment']['id']} is {what}{already}"
