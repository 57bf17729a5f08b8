"""What somebody is told when something else is known of an account: its kind, its text, and the facts.

Only words are made here; what is known is decided by `policy.accounts`, and told once while it lasts. A
client's own words are not among them: a notice leaves this host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from circus_failover.logfmt import timestamp
from circus_failover.policy.accounts import Known
from circus_failover.words import AccountState, FaultKind, NoticeKind


@dataclass(frozen=True)
class Due:
    """A notice that is to be written down."""

    kind: NoticeKind
    text: str
    key: str
    identity: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def due(before: Known, after: Known) -> Iterator[Due]:
    """Yield what somebody may want to be told about one account.

    Args:
        before: what was known a moment ago.
        after: what is known now.
    """
    name, key = after.name, f"account {after.name}"
    seen = f"; seen at {after.seen_by}" if after.seen_by else ""
    if after.state is AccountState.LIMITED and before.state is not AccountState.LIMITED:
        credit = after.limit_name == FaultKind.CREDIT
        what = "the end of its credit" if credit else f"its usage limit{_window(after.limit_name)}"
        detail = {
            "account": name,
            "fault": str(FaultKind.CREDIT if credit else FaultKind.USAGE_LIMIT),
            "window": None if credit else after.limit_name,
            "resets_at": after.until,
        }
        text = f"account {name} has reached {what}{_resets(after.until)}{seen}"
        yield Due(NoticeKind.LIMITED, text, key, after.seen_by, detail)
    if after.state is AccountState.CREDENTIALS and before.state is not AccountState.CREDENTIALS:
        remedy = f"log it in, then `failoverctl accounts check {name}`"
        text = f"account {name} is not logged in any more{seen}: {remedy}"
        yield Due(NoticeKind.CREDENTIALS, text, key, after.seen_by, {"account": name})
    known = {one.name for one in before.models}
    for model in (one for one in after.models if one.name not in known):
        what = f"its usage limit{_window(model.name)} for one model"
        text = f"account {name} has reached {what}{_resets(model.until)}"
        detail = {
            "account": name,
            "fault": str(FaultKind.USAGE_LIMIT),
            "window": model.name,
            "resets_at": model.until,
        }
        yield Due(NoticeKind.LIMITED, text, f"{key} {model.name}", None, detail)


def all_exhausted(runtime: str, accounts: Sequence[Known]) -> Due:
    """Return what somebody is told when nothing can be done on any account of a runtime.

    Args:
        runtime: the runtime.
        accounts: all of its accounts.
    """
    names = ", ".join(_short(one) for one in accounts)
    resets = [one.until for one in accounts if one.until is not None]
    first = min(resets, default=None)
    earliest = f"; the first resets at {timestamp(first)}" if first is not None else ""
    return Due(
        NoticeKind.ALL_LIMITED,
        f"no account of the runtime {runtime} can be used: {names}{earliest}",
        f"runtime {runtime}",
        None,
        {"runtime": runtime, "accounts": [one.name for one in accounts], "resets_at": first},
    )


def _short(known: Known) -> str:
    return f"{known.name} (not logged in)" if known.state is AccountState.CREDENTIALS else known.name


def _window(name: str | None) -> str:
    return f" ({name})" if name else ""


def _resets(until: float | None) -> str:
    return f", which resets at {timestamp(until)}" if until is not None else ""
