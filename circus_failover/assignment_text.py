"""What the id of an assignment and a note about one may be, checked where they come in.

Light on purpose: what an agent runs about itself imports it.
"""

from __future__ import annotations

import re

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
ID_EXPECTED = "1 to 100 letters, digits, '.', '_', ':' or '-', the first a letter or digit"
NOTE_LENGTH = 1000

_BLANKS = re.compile(r"[ \t\r\n]+")


def note_of(raw: object) -> str | None:
    """Return a note as one line; None where there is nothing in it.

    Args:
        raw: what was given: a text, or None.

    Raises:
        ValueError: it is no text, too long, or holds something that no screen should be sent; one sentence.
    """
    if raw is None:
        return None
    if not isinstance(raw, str):
        raise ValueError(f"the note is a {type(raw).__name__}: expected a text")
    note = _BLANKS.sub(" ", raw).strip()
    if len(note) > NOTE_LENGTH:
        raise ValueError(f"the note has {len(note)} characters: expected at most {NOTE_LENGTH}")
    for number, character in enumerate(note):
        if not character.isprintable():
            code = f"U+{ord(character):04X}"
            raise ValueError(f"the note has {code} at character {number}: expected what can be printed")
    return note or None
