"""Takes the picture of the demo's fleet: docs/fleet.svg, and the table between two marks in README.md.

Both are what `failoverctl fleet` really printed; nothing is drawn by hand.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from demo import BIN, KILLED, ROOT, STOPPED, DemoFleet, Ended, Failed, end_on_signals
from rich.console import Console
from rich.text import Text

COLUMNS = 116
SVG = ROOT / "docs" / "fleet.svg"
README = ROOT / "README.md"
BEGIN, END = "<!-- fleet: written by scripts/picture -->\n```text\n", "```\n<!-- end of fleet -->\n"


def on_terminal(fleet: DemoFleet, *arguments: str) -> str:
    """Return what failoverctl prints on a terminal, with its colours."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [str(BIN / "failoverctl"), *arguments],
        env={**fleet.environment, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        cwd=fleet.home,
    )
    os.close(slave)
    printed = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: nobody writes to it any more (pty(7), Linux)
            data = b""
        if not data:
            break
        printed += data
    os.close(master)
    if process.wait() != 0:
        raise Failed(f"failoverctl {' '.join(arguments)}: exit {process.returncode}")
    return printed.decode().replace("\r\n", "\n")


def shown() -> str:
    """Run the demo's fleet through a stop and an unplanned end, and return what `fleet` prints then."""
    with DemoFleet() as fleet:
        fleet.start()
        fleet.ctl("stop", STOPPED, "--waiting")
        fleet.kill(KILLED)
        return on_terminal(fleet, "fleet")


def write(coloured: str) -> None:
    """Write the picture and the table."""
    text = Text.from_ansi(coloured.rstrip("\n"))
    lines = [line.rstrip() for line in text.plain.splitlines()]
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=max(map(len, lines)) + 2, file=nowhere, force_terminal=True)
        console.print(text)
        svg = console.export_svg(title="failoverctl fleet", unique_id="fleet")
    # rich names web fonts; a picture that loads nothing is shown everywhere, in the reader's own font.
    svg = re.sub(r"\s*@font-face\s*{[^}]*}", "", svg)
    SVG.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
    before, rest = README.read_text().split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join(["$ failoverctl fleet", *lines])
    README.write_text(f"{before}{BEGIN}{table}\n{END}{after}")


def main() -> int:
    """Return the exit status: 0 written, 1 the fleet could not be run."""
    end_on_signals()
    try:
        write(shown())
    except (Failed, Ended) as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    print(f"wrote {SVG.relative_to(ROOT)} and the table in {Path(README).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
