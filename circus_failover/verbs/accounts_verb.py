"""`failoverctl accounts`: what is known of the accounts; a check of one, and forgetting what is known.

What is known, and whether a check passes, is decided by `accounts`; this asks for it and shows it. No part of
a credential is in an answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from circus.commands.base import Command
from circus.exc import ArgumentError, MessageError

from circus_failover.problems import describe, nearest
from circus_failover.verbs.selection import names_given, supervisor_of, who
from circus_failover.words import AccountState, Phase

if TYPE_CHECKING:
    from rich.text import Text

    from circus_failover.policy.accounts import Known
    from circus_failover.supervisor import Supervisor

ACTIONS = ("check", "forget")
RUNNING = (Phase.STARTING, Phase.UP, Phase.STOPPING, Phase.OBSERVED)
BAR = 10
"""Characters of a headroom bar."""
STYLES = {
    AccountState.AVAILABLE: "green",
    AccountState.LIMITED: "red",
    AccountState.CREDENTIALS: "red",
    AccountState.OVERLOADED: "yellow",
    AccountState.UNKNOWN: "dim",
}
TIGHT, LOW = 0.1, 0.3
"""From here on down a headroom is shown in red, or in yellow."""


class Accounts(Command):  # type: ignore[misc]
    """\
    Show what is known of the accounts, check one, or forget what is known
    ======================================================================

    For each account: its state, the limit that is reached and how long it is until that resets, how much is
    left of its tightest window where its client tells, how many agents run on it and how many would be
    launched on it, and at which agent that was seen. What one agent's client says is known of the account to
    all of its agents.

    `check` looks whether an account is logged in, by its files. One that was not logged in any more is used
    again only after a check that passes, or after an answer of the model: the login must be newer than what
    has failed; --accept says that you have seen it to. `forget` drops what is known, as after a wrong limit;
    it is learned anew when a client says it anew.

    Command line
    ------------

    ::

        $ failoverctl accounts [NAME...]
        $ failoverctl accounts check NAME... [--accept]
        $ failoverctl accounts forget NAME...
        $ failoverctl --json accounts

    Options
    +++++++

    - <NAME>: only these accounts
    - <accept>: with `check`: take it for logged in, where no file can tell (a keychain, a key in a helper)

    Exit status: 0 done, 1 not reachable, 2 usage, 3 no such account, or a check did not pass.
    """

    name = "accounts"
    options = [("", "accept", False, "with check: take it for logged in, where no file can tell")]

    def message(self, *args: str, **opts: Any) -> Any:
        action = args[0] if args and args[0] in ACTIONS else None
        names = list(args[1:] if action is not None else args)
        if action is not None and not names:
            raise ArgumentError(f"accounts {action} takes the names of accounts; `accounts` lists them")
        if opts.get("accept") and action != "check":
            raise ArgumentError("--accept goes with: accounts check NAME")
        given = {"action": action, "names": names or None, "accept": bool(opts.get("accept")) or None}
        return self.make_message(**{key: value for key, value in given.items() if value is not None})

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        held, action = supervisor_of(arbiter), props.get("action")
        if action not in (None, *ACTIONS):
            raise MessageError(f"action: found {describe(action)}, expected {' or '.join(ACTIONS)}")
        names = _checked(held, names_given(props), stored=action == "forget")
        checked: dict[str, Any] = {}
        for name in names if action is not None else ():
            if action == "forget":
                held.accounts.forget(name, who(props))
                continue
            found = held.accounts.check(name, who(props), accept=props.get("accept") is True)
            checked[name] = {"passed": found.passed, "text": found.text}
        known = [one for one in held.accounts.all() if not names or one.name in names]
        answer: dict[str, Any] = {"accounts": shown(held, known), "action": action, "names": names}
        if action == "check":
            answer["checked"] = checked
            failed = [f"{name}: {one['text']}" for name, one in checked.items() if not one["passed"]]
            if failed:
                answer.update(status="error", reason="; ".join(failed), errno=5)
        return answer

    def console_msg(self, msg: dict[str, Any]) -> str:
        if msg.get("status") != "ok":
            return str(self.console_error(msg))
        if msg.get("action") == "check":
            return "\n".join(f"{name}: {one['text']}" for name, one in msg["checked"].items())
        if msg.get("action") == "forget":
            return "\n".join(f"{name}: nothing is known of it any more" for name in msg["names"])
        if not msg["accounts"]:
            return "no account is configured (accounts: in failover.yaml)"
        return table(msg["accounts"], time.time())


def _checked(held: Supervisor, names: Sequence[str], *, stored: bool) -> list[str]:
    """Return names of accounts, each once.

    Args:
        held: the supervisor.
        names: as given; none: all of them are meant.
        stored: whether those may be named too that are known, but not configured any more.

    Raises:
        MessageError: one is no account's.
    """
    known = set(held.accounts.configured())
    for name in names:
        if name not in known and not (stored and held.accounts.known(name).runtime):
            hint = nearest(name, known)
            raise MessageError(f"no account {describe(name)}{hint}; `accounts` lists them")
    return list(dict.fromkeys(names))


def shown(held: Supervisor, known: Iterable[Known]) -> list[dict[str, Any]]:
    """Return what front ends show of accounts.

    Args:
        held: the supervisor.
        known: what is known of each now.
    """
    configured = held.accounts.configured()
    running: dict[str | None, list[str]] = {}
    meant: dict[str | None, list[str]] = {}
    for agent in held.roster.agents.values():
        if agent.phase in RUNNING and agent.row.pid is not None:
            running.setdefault(agent.row.account, []).append(agent.identity)
        if agent.settings is not None and agent.settings.account is not None:
            meant.setdefault(agent.settings.account.name, []).append(agent.identity)
    return [
        {
            "name": one.name,
            "runtime": one.runtime,
            "state": str(one.state),
            "limit": one.limit_name,
            "until": one.until,
            "text": one.text,
            "since": one.since,
            "seen_at": one.seen_at,
            "seen_by": one.seen_by,
            "source": one.source,
            "answered_at": one.answered_at,
            "used_at": one.used_at,
            "headroom": held.accounts.headroom(one.name),
            "usage": [
                {"window": use.window, "used": use.used, "resets_at": use.resets_at, "at": use.at}
                for use in one.usage
            ],
            "models": [
                {"name": limit.name, "until": limit.until, "seen_at": limit.seen_at} for limit in one.models
            ],
            "running": sorted(running.get(one.name, [])),
            "agents": sorted(meant.get(one.name, [])),
            "max_agents": configured[one.name].max_agents if one.name in configured else None,
        }
        for one in known
    ]


# -- on a terminal -------------------------------------------------------------------------------------


def table(accounts: Sequence[dict[str, Any]], now: float) -> str:
    """Return accounts as a table.

    Args:
        accounts: as `shown` gives them.
        now: epoch seconds, which countdowns are from.
    """
    from rich.text import Text

    from circus_failover import screen

    rows = [
        (
            one["name"],
            one["runtime"],
            Text(screen.plain(_state(one)), style=STYLES.get(AccountState(one["state"]), "")),
            _resets(one, now),
            _headroom(one),
            _agents(one),
            screen.ago(one["seen_at"], now),
            one["seen_by"] or "-",
            _note(one, now),
        )
        for one in accounts
    ]
    columns = ("ACCOUNT", "RUNTIME", "STATE", "RESETS IN", "LEFT", "AGENTS", "SEEN", "BY", "NOTE")
    return screen.table(columns, rows)


def _state(account: dict[str, Any]) -> str:
    state = str(account["state"])
    return f"{state}: {account['limit']}" if account["limit"] else state


def _resets(account: dict[str, Any], now: float) -> str:
    from circus_failover import screen

    until = account["until"]
    if until is None:
        return "unknown" if account["state"] == AccountState.LIMITED else "-"
    return f"{screen.duration(until - now)} ({screen.clock(until, now)})"


def _headroom(account: dict[str, Any]) -> Text:
    from rich.text import Text

    from circus_failover import screen

    left = account["headroom"]
    if left is None:
        return Text("-")
    full = round(left * BAR)
    tight = max(account["usage"], key=lambda use: use["used"], default=None)
    window = f" of {tight['window']}" if tight is not None and account["state"] != "limited" else ""
    style = "red" if left <= TIGHT else "yellow" if left <= LOW else "green"
    return Text(screen.plain(f"{'█' * full}{'░' * (BAR - full)} {left:.0%}{window}"), style=style)


def _agents(account: dict[str, Any]) -> str:
    """Return how many agents run on it, of those that are launched on it the next time."""
    running, meant = account["running"], account["agents"]
    text = f"{len(running)} up" if len(running) == len(meant) else f"{len(running)} up of {len(meant)}"
    if not set(running) <= set(meant):
        text = f"{len(running)} up, {len(meant)} from the next launch on"
    return f"{text}, at most {account['max_agents']}" if account["max_agents"] is not None else text


def _note(account: dict[str, Any], now: float) -> str:
    from circus_failover import screen

    notes = []
    for limit in account["models"]:
        until = limit["until"]
        left = "" if until is None else f" for {screen.duration(until - now)}"
        notes.append(f"{limit['name']} limited{left}")
    if account["state"] == AccountState.CREDENTIALS:
        notes.append(f"log it in, then: failoverctl accounts check {account['name']}")
    if account["text"]:
        notes.append(account["text"])
    return "; ".join(notes)
