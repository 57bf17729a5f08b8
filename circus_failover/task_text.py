"""placeholder"""

from __future__ import annotations

MAX_BYTES = 4 * 1024 * 1024


def check(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def topic_of(raw: str | None) -> str | None:
    return (raw or "").strip() or None
