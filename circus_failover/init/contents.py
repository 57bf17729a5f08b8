"""What stands in account homes and shared folders where links are to be: kinds, names, sizes. Only looks."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from circus_failover.policy.gate import Entry
from circus_failover.problems import printable

MERGE_DEPTH: Mapping[str, int] = {"projects": 1, "sessions": 3}
"""How deep two folders of one name are made into one: `projects/PROJECT/`, and `sessions/YEAR/MONTH/DAY/` of
Codex. Below that, and in other folders, the same name twice is a collision."""


@dataclass(frozen=True)
class Branch:
    """A file, a link or a folder. Of a folder: what is in it, as deep as it may be merged."""

    folder: bool
    mode: int = 0
    mtime_ns: int = 0
    names: Mapping[str, Branch] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Item:
    """What stands at one path."""

    entry: Entry
    tree: Branch = Branch(False)
    device: int = 0
    files: int = 0
    size: int = 0
    """Bytes of all its files."""
    trouble: str = ""
    """Why it must not be moved."""


def look(path: str, depth: int) -> Item:
    """Look at a path, and through it when it is a real folder.

    Args:
        path: the path.
        depth: how many levels of folders are looked at by name.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return Item(Entry.MISSING)
    except OSError as error:
        return Item(Entry.UNREADABLE, trouble=error.strerror or str(error))
    if stat.S_ISLNK(found.st_mode):
        return Item(Entry.LINK)
    if not stat.S_ISDIR(found.st_mode):
        return Item(Entry.FILE if stat.S_ISREG(found.st_mode) else Entry.OTHER)
    count = _Count(found.st_dev)
    tree = count.folder(path, found, depth)
    return Item(Entry.FOLDER, tree, found.st_dev, count.files, count.size, count.trouble)


class _Count:
    def __init__(self, device: int) -> None:
        self.device = device
        self.files = self.size = 0
        self.trouble = ""

    def folder(self, path: str, found: os.stat_result, depth: int) -> Branch:
        """Count what is in a folder, and return its names."""
        names: dict[str, Branch] = {}
        if found.st_dev != self.device:
            self.trouble = self.trouble or f"another file system is mounted on {printable(path)}"
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            self.trouble = self.trouble or f"{printable(path)} may not be read and changed by this user"
        else:
            with os.scandir(path) as entries:
                for entry in entries:
                    names[entry.name] = self._one(entry, depth)
        mode = stat.S_IMODE(found.st_mode)
        return Branch(True, mode, found.st_mtime_ns, names if depth >= 0 else {})

    def _one(self, entry: os.DirEntry[str], depth: int) -> Branch:
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return self.folder(entry.path, found, depth - 1)
        self.files += 1
        if stat.S_ISREG(found.st_mode):
            self.size += found.st_size
        elif not stat.S_ISLNK(found.st_mode):
            self.trouble = self.trouble or f"{printable(entry.path)} is neither file, folder nor link"
        return Branch(False)
