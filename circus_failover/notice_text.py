"""What a notice may say, and the messages that tell it: bounded and clean whatever was put into it.

Pure text. Everything that is stored of a notice, and everything that leaves this host, goes through here.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from circus_failover.policy.telling import Item
from circus_failover.words import NoticeKind

DIGEST = "digest"
"""The kind of a message that tells several notices."""
TEXT_SHOWN = 600
"""Characters of a notice's text."""
VALUE_SHOWN = 300
"""Characters of one further fact."""
DETAIL_BYTES = 4096
"""Of all further facts together, as JSON."""
LINES_SHOWN = 10
"""How many notices a digest names; how many there were of each kind is said of all."""
LINE_SHOWN = 200
_HIDDEN = ("C", "Zl", "Zp")
"""Controls, what turns text around or cannot be seen, broken text, and other ends of lines (Unicode)."""


def clean(text: object, most: int = TEXT_SHOWN) -> str:
    """Return a text on one line of at most so many characters, without what cannot be seen."""
    whole = str(text)
    # What is cut off anyway is not looked at: a megabyte would hold circusd's loop for a second.
    seen = "".join(
        " " if unicodedata.category(character).startswith(_HIDDEN) else character
        for character in whole[: 4 * most]
    )
    line = " ".join(seen.split())
    return line if len(line) <= most and len(whole) <= 4 * most else line[: most - 1] + "…"


def facts(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return further facts as JSON takes them, each of them cleaned; what is too much is left out."""
    kept: dict[str, Any] = {}
    room = DETAIL_BYTES
    for name, value in detail.items():
        if value is None:
            continue
        fact = _fact(value)
        room -= len(json.dumps(fact)) + len(name)
        if room < 0:
            break
        kept[clean(name, 50)] = fact
    return kept


def _fact(value: object) -> Any:
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)  # JSON has no word for nan either
    if isinstance(value, (list, tuple)):
        return [_fact(each) for each in value[:20] if not isinstance(each, (list, tuple, dict))]
    return clean(value, VALUE_SHOWN)


def message(items: Sequence[Item], host: str, *, digest: bool) -> dict[str, Any]:
    """Return what a target is told, as a command gets it.

    Args:
        items: the notices, the oldest first; one of them, unless it is a digest.
        host: the name of this host.
        digest: they are told shortly.
    """
    first, last = items[0], items[-1]
    count = sum(item.count for item in items)
    common = {"id": last.id, "at": last.at, "count": count, "host": clean(host, 100), "test": False}
    if not digest:
        about = {"kind": first.kind, "identity": first.identity, "text": clean(first.text)}
        return {**common, **about, "detail": facts(first.detail)}
    kinds: Counter[str] = Counter()
    for item in items:
        kinds[item.kind] += item.count
    said = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    named = items[:LINES_SHOWN]
    lines = [clean(f"{item.kind}: {item.text}{_often(item.count)}", LINE_SHOWN) for item in named]
    more = {"more": len(items) - LINES_SHOWN} if len(items) > LINES_SHOWN else {}
    text = f"{count} notices: {said}"
    about = {"kind": DIGEST, "identity": None, "text": clean(text)}
    return {**common, **about, "detail": {"kinds": dict(kinds), "lines": lines, **more}}


def _often(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def test_message(target: str, host: str, at: float) -> dict[str, Any]:
    """Return what `failoverctl notify test` sends.

    Args:
        target: its name.
        host: the name of this host.
        at: epoch seconds.
    """
    text = f"This is a test: circus-failover can tell {target} what happens."
    about: dict[str, Any] = {"kind": str(NoticeKind.TEST), "identity": None, "text": text, "detail": {}}
    return {"id": 0, "at": at, "count": 1, "host": clean(host, 100), "test": True, **about}


def kinds(items: Sequence[Item]) -> str:
    """Return the kinds of notices, for a line of a log."""
    return ",".join(sorted({item.kind for item in items}))
