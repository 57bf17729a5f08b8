"""Changes a JSON document in its text: what is not concerned keeps its order, its blanks and its line ends.

It knows two changes, to append an element to a list below two keys and to take an element out again; the
second undoes the first. It reads and writes no file, and knows nothing of what the document is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\n\r]*")
_ANY_BLANK = re.compile(r"[\ufeff \t\n\r]*")


@dataclass(frozen=True)
class Item:
    """One member of an object or element of a list, by where it is in the text."""

    key: str | None
    """None in a list."""
    start: int
    """Of its key, where it has one."""
    value: int
    end: int


@dataclass(frozen=True)
class Container:
    """An object or a list: where it opens and closes, and what is in it."""

    start: int
    close: int
    """Where its closing bracket is."""
    items: tuple[Item, ...]

    def item(self, key: str) -> Item | None:
        """Return the member of this key; of several the last, which is the one that counts."""
        return next((item for item in reversed(self.items) if item.key == key), None)


def container(text: str, start: int | None = None) -> Container:
    """Return what is in an object or a list; only this one level is looked at.

    Args:
        text: a document that `json.loads` accepts.
        start: where it opens; None for the document itself.
    """
    if start is None:
        found = _ANY_BLANK.match(text)
        start = found.end() if found else 0
    named = text[start] == "{"
    items: list[Item] = []
    place = _skip(text, start + 1)
    while text[place] not in "]}":
        begin, key = place, None
        if named:
            key, place = _DECODER.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)
        _, end = _DECODER.raw_decode(text, place)
        items.append(Item(key, begin, place, end))
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return Container(start, place, tuple(items))


def append(text: str, keys: tuple[str, str], value: Any) -> str:
    """Return the document with a value at the end of the list below two keys, which are made where missing.

    Args:
        text: a document that is an object; what is there below the keys is an object and a list.
        keys: the member of the document, and the member of that.
        value: what is appended.
    """
    style = _style(text)
    root = container(text)
    outer = root.item(keys[0])
    if outer is None:
        return _added(text, root, keys[0], {keys[1]: [value]}, 1, style)
    middle = container(text, outer.value)
    inner = middle.item(keys[1])
    if inner is None:
        return _added(text, middle, keys[1], [value], 2, style)
    return _added(text, container(text, inner.value), None, value, 3, style)


def remove(text: str, path: tuple[str | int, ...]) -> str:
    """Return the document without one element; what holds nothing else than it goes with it.

    Args:
        text: a document.
        path: the keys and positions that lead to it.
    """
    parents: list[tuple[Container, Item]] = []
    start: int | None = None
    for step in path:
        found = container(text, start)
        item = found.items[step] if isinstance(step, int) else found.item(step)
        if item is None:
            raise KeyError(step)
        parents.append((found, item))
        start = item.value
    while len(parents) > 1 and len(parents[-1][0].items) == 1:
        parents.pop()
    inside, item = parents[-1]
    at = inside.items.index(item)
    if at > 0:
        return text[: inside.items[at - 1].end] + text[item.end :]
    if len(inside.items) > 1:
        return text[: item.start] + text[inside.items[1].start :]
    return text[: inside.start + 1] + text[inside.close :]


@dataclass(frozen=True)
class _Style:
    newline: str | None
    """None: all of the document is on one line."""
    unit: str
    """By how much it indents."""


def _style(text: str) -> _Style:
    root = container(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    if not root.items:
        return _Style(newline, "  ")
    before = text[root.start + 1 : root.items[0].start]
    if "\n" not in before:
        return _Style(None, "")
    return _Style(newline, before.rpartition("\n")[2])


def _added(text: str, inside: Container, key: str | None, value: Any, depth: int, style: _Style) -> str:
    """Return the text with one more item at the end of a container that is `depth` levels deep."""
    if inside.items:
        last = inside.items[-1]
        lead = text[inside.start + 1 : inside.items[0].start]
        if "\n" in lead and style.newline is not None:
            new = _rendered(key, value, style, lead.rpartition("\n")[2])
            return f"{text[: last.end]},{lead}{new}{text[last.end :]}"
        blank = text[inside.items[-2].end + 1 : last.start] if len(inside.items) > 1 else lead or " "
        blank = " " if blank.strip(" \t") else blank
        return f"{text[: last.end]},{blank}{_rendered(key, value, None, '')}{text[last.end :]}"
    if style.newline is None:
        new = _rendered(key, value, None, "")
        return f"{text[: inside.start + 1]}{new}{text[inside.close :]}"
    indent = style.unit * depth
    new = _rendered(key, value, style, indent)
    outer = style.newline + style.unit * (depth - 1)
    return f"{text[: inside.start + 1]}{style.newline}{indent}{new}{outer}{text[inside.close :]}"


def _rendered(key: str | None, value: Any, style: _Style | None, indent: str) -> str:
    spread: Callable[[Any], str]
    if style is None or style.newline is None:
        spread = json.dumps
    else:
        newline = style.newline + indent

        def spread(found: Any) -> str:
            return json.dumps(found, indent=style.unit).replace("\n", newline)

    return spread(value) if key is None else f"{json.dumps(key)}: {spread(value)}"


def _skip(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    return found.end() if found else place
