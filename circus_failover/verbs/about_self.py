"""`failoverctl self`: what an agent asks about itself, from inside its own terminal.

It knows itself by the environment its launch was given. With circusd down the request is left in the
spool, durably, and carried out at the next start.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from circus.commands.base import Command
from circus.exc import ArgumentError, CallError

from circus_failover.failure import FOUND, Failed
from circus_failover.problems import nearest
from circus_failover.verbs.local_tools import print_json

REQUESTS = ("fresh", "park", "stop")
ANSWER_SECS = 5.0
NUMBER = re.compile(r"[0-9]{1,18}")


class Self(Command):  # type: ignore[misc]
    """\
    Ask something about the agent that runs this
    ============================================

    For use by an agent, in its own session: `fresh` ends it and begins anew with
    `failover.initial_prompt`, `park` ends it so that its next wake is a resume, `stop` ends it until
    somebody starts it. The answer comes when the intent is stored; the end follows at once. A request of
    an older launch is refused.

    Command line
    ------------

    ::

        $ failoverctl self fresh|park|stop

    Exit status: 0 the intent is stored, 1 there is no way to reach circusd, 2 usage, 3 refused.
    """

    name = "self"
    msg_type = "local"

    def run(self, opts: dict[str, Any], *args: str, **options: Any) -> int:
        """Send the request of this very launch."""
        if len(args) != 1 or args[0] not in REQUESTS:
            near = nearest(args[0], REQUESTS) if args else ""
            raise ArgumentError(f"self takes one of {', '.join(REQUESTS)}{near}")
        identity, generation, launch = (
            os.environ.get(f"FAILOVER_{name}", "") for name in ("IDENTITY", "GENERATION", "LAUNCH")
        )
        if not identity or not NUMBER.fullmatch(generation) or not launch:
            raise Failed(
                "self works inside an agent only: FAILOVER_IDENTITY, FAILOVER_GENERATION and FAILOVER_LAUNCH "
                "are not all set here; from outside use `fresh`, `park` or `stop` with a name"
            )
        request = {
            "what": args[0],
            "identity": identity,
            "generation": int(generation),
            "launch": launch,
            "by": f"{identity}@self",
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
            note = ": circusd is down, it does so when it is back" if answer.get("stored") else ""
            print(f"{identity}: {args[0]} is under way{note}")
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
