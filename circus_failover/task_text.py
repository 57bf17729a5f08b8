"""What a task and its topic may be, checked where they come in.

A task is typed into a terminal, inside a bracketed paste where the program asks for one. An escape sequence
in it could end that paste and press keys, so control characters are refused and never silently dropped:
whoever sent the task must know that something else would have been typed.
"""

from __future__ import annotations

import re

MAX_BYTES = 4 * 1024 * 1024
TOPIC_LENGTH = 200

_REFUSED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_REFUSED_IN_TOPIC = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NAMES = {0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x09: "TAB", 0x0A: "LF", 0x0D: "CR", 0x1B: "ESC", 0x7F: "DEL"}


def check(text: str | bytes) -> str:
    """Return a task as it will be typed: lines end with a newline, and none is left at the end.

    Args:
        text: the task; bytes must be UTF-8.

    Raises:
        ValueError: it cannot be a task; one sentence says what is wrong, where, and what was expected.
    """
    size = len(text)
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"the task has byte 0x{text[error.start]:02x} at offset {error.start}, which is no UTF-8: "
                "expected text in UTF-8"
            ) from None
    elif found := _SURROGATE.search(text):
        raise ValueError(
            f"the task has {_name(found[0])} (half of a surrogate pair) at character {found.start()}: "
            "expected text that can be written as UTF-8"
        )
    else:
        size = len(text.encode())
    if size > MAX_BYTES:
        raise ValueError(f"the task has {size} bytes: expected at most {MAX_BYTES} (4 MiB)")
    if found := _REFUSED.search(text):
        raise ValueError(
            f"the task has the control character {_name(found[0])} at character {found.start()}: "
            "expected text without any but newlines and tabs"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    if not any(character.isprintable() for character in text.strip()):
        raise ValueError("the task is empty: expected at least one character that can be seen")
    return text


def topic_of(raw: str | None) -> str | None:
    """Return a topic without the blanks around it; an empty one is none.

    Raises:
        ValueError: it holds a newline or another control character, or is too long; one sentence says so.
    """
    topic = (raw or "").strip()
    if not topic:
        return None
    if found := _REFUSED_IN_TOPIC.search(topic) or _SURROGATE.search(topic):
        raise ValueError(
            f"the topic has {_name(found[0])} at character {found.start()}: expected one line of text"
        )
    if len(topic) > TOPIC_LENGTH:
        raise ValueError(f"the topic has {len(topic)} characters: expected at most {TOPIC_LENGTH}")
    return topic


def _name(character: str) -> str:
    code = ord(character)
    return f"U+{code:04X} ({_NAMES[code]})" if code in _NAMES else f"U+{code:04X}"
