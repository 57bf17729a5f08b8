"""A program with an input box, drawn as the real clients draw theirs; run by tests in a pane.

    python inputbox.py RECORD [NAME ...]

It redraws everything ten times a second: what was said, a spinner, a framed box that folds long text, and
below it a status line with a clock. The cursor waits below all of that. Each prompt is appended to the file
RECORD as one line of JSON. C-u clears the last line of the box only. Names change it: `placeholder` shows a
paste of several lines as such, `deaf` ignores Enter.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import tty

PASTE, PASTE_END = "\x1b[200~", "\x1b[201~"
WIDTH = 60
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Box:
    """What was said, and what stands in the box."""

    def __init__(self, record: str, names: set[str]) -> None:
        self.record, self.names, self.text, self.said = record, names, "", ["box ready"]
        self.ticks = 0

    def shown(self) -> str:
        lines = self.text.count("\n")
        if "placeholder" in self.names and lines:
            return f"[Pasted text #1 +{lines} lines]"
        return self.text

    def draw(self) -> None:
        self.ticks += 1
        folded = [
            line[at : at + WIDTH - 6]
            for line in self.shown().split("\n")
            for at in range(0, len(line) + 1, WIDTH - 6)
        ]
        box = [f"│ {'>' if n == 0 else ' '} {line:<{WIDTH - 6}} │" for n, line in enumerate(folded[-6:])]
        bottom = f"bypass permissions (shift+tab to cycle) y {self.ticks}"
        top = f"{SPINNER[self.ticks % len(SPINNER)]} {self.ticks}s"
        rows = [
            *self.said[-12:],
            top,
            "╭" + "─" * (WIDTH - 2) + "╮",
            *box,
            "╰" + "─" * (WIDTH - 2) + "╯",
            bottom,
            "",
        ]
        os.write(1, ("\x1b[H" + "".join(f"{row}\x1b[K\r\n" for row in rows) + "\x1b[J").encode())

    def take(self, keys: str) -> None:
        while keys:
            if keys.startswith(PASTE):
                pasted, _, keys = keys[len(PASTE) :].partition(PASTE_END)
                self.text += pasted
                continue
            key, keys = keys[0], keys[1:]
            if key == "\r" and "deaf" not in self.names:
                if self.text:
                    with open(self.record, "a", encoding="utf-8") as file:
                        file.write(json.dumps(self.text) + "\n")
                    self.said += ["", f"> {self.shown()}", "on it"]
                self.text = ""
            elif key == "\x15":
                above, newline, line = self.text.rpartition("\n")
                self.text = above + newline if line else above
            elif key >= " " or key == "\n":
                self.text += key

    def run(self) -> None:
        tty.setraw(0)
        os.write(1, b"\x1b[?2004h\x1b[2J")
        keys = b""
        while True:
            self.draw()
            until = time.monotonic() + 0.1
            while select.select([0], [], [], max(0.0, until - time.monotonic()))[0]:
                keys += os.read(0, 65536)
                if keys.count(PASTE.encode()) == keys.count(PASTE_END.encode()):
                    self.take(keys.decode())
                    keys = b""
                    self.draw()


if __name__ == "__main__":
    Box(sys.argv[1], set(sys.argv[2:])).run()
