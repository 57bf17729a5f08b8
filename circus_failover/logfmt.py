"""logfmt: one record on one line, for people with grep (`key=value key="quoted value"`).

Light on purpose: the canary imports it.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,~^*!?;|<>()\[\]{}$&#-]+")


def timestamp(now: float) -> str:
    """Return an epoch time as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def value(raw: object) -> str:
    """Return one logfmt value: quoted where needed, control characters escaped, on one line."""
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    text = str(raw)
    if not text or _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    escaped = "".join(ch if ch.isprintable() else _escape(ord(ch)) for ch in escaped)
    return f'"{escaped}"'


def _escape(code: int) -> str:
    """Return one character in the shortest of Python's escapes that is not ambiguous."""
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(now: float, ev: str, fields: Mapping[str, object]) -> str:
    """Return one record as a line without its end: `ts=... ev=... key=value ...`."""
    parts = [f"ts={timestamp(now)}", f"ev={value(ev)}"]
    parts.extend(f"{key}={value(raw)}" for key, raw in fields.items())
    return " ".join(parts)
