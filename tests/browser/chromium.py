"""Finds the browser of the tests: the system's own Chromium (or Chrome), never one that is downloaded.

`python tests/browser/chromium.py` prints where it is, or nothing with exit status 1: scripts/setup asks that.
It must import nothing that is not in Python itself, and installs nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

NAMED = "FAILOVER_CHROMIUM"
WANTED = "FAILOVER_BROWSER"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
"""Where macOS has them: they are not on PATH there."""
ARGUMENTS = (
    # Root has no sandbox, nor have many containers; only the console's own pages are shown.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # A container's /dev/shm is often 64 MB, and a page that does not fit into it crashes.
    "--disable-dev-shm-usage",
)


def find() -> Path | None:
    """Return the browser's program, or None.

    FAILOVER_CHROMIUM names one, which is then the only one that counts.
    """
    named = os.environ.get(NAMED)
    candidates = (named,) if named else (*PROGRAMS, *APPLICATIONS)
    found = (shutil.which(candidate) for candidate in candidates)
    return next((Path(path) for path in found if path), None)


def missing() -> str:
    """Return a sentence that says what is not there, and what to do."""
    named = os.environ.get(NAMED)
    if named:
        return f"{NAMED}={named}: expected a program; name an executable, or unset it"
    return f"none of {', '.join(PROGRAMS)} is on PATH: run scripts/setup --browser, or name one by {NAMED}"


if __name__ == "__main__":
    browser = find()
    if browser is None:
        sys.exit(1)
    print(browser)
