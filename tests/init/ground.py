"""Account homes with data in them, and what they are byte for byte."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from circus_failover.init import files, plan, setting_up
from circus_failover.init.plan import Agent, Plan, Wish
from circus_failover.settings import Account


def write(path: Path, text: str = "", mode: int = 0o640, at: int = 1_700_000_000) -> Path:
    """Make a file, and the folders above it, with a time of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    os.utime(path, (at, at))
    return path


def home(base: Path, name: str, *conversations: str) -> Path:
    """Make a home of Claude Code with conversations, as `PROJECT/NAME`."""
    made = base / name
    write(made / ".credentials.json", f"secret of {name}", 0o600)
    write(made / "settings.json", "{}")
    for number, one in enumerate(conversations):
        write(made / "projects" / f"{one}.jsonl", f"{name} said {one}\n", at=1_700_000_000 + number)
        write(made / "file-history" / one.replace("/", "-") / "hash@v1", one)
    for folder, _, _ in os.walk(made, topdown=False):
        os.utime(folder, (1_600_000_000, 1_600_000_000))
    return made


def restored(base: Path, before: dict[str, tuple[object, ...]]) -> bool:
    """Say whether everything below a folder is as it was, but for when the fleet's own folder was changed."""

    def but_one(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
        return {path: (what[0], what[2]) if path == "fleet" else what for path, what in found.items()}

    assert but_one(snapshot(base)) == but_one(before)
    return True


def snapshot(base: Path) -> dict[str, tuple[object, ...]]:
    """Return everything below a folder: kinds, permissions, times, contents, where links lead."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, names in os.walk(base):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            what: object = None
            if stat.S_ISLNK(seen.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(seen.st_mode):
                what = Path(path).read_bytes()
            found[os.path.relpath(path, base)] = (seen.st_mode, seen.st_mtime_ns, what)
    return found


def wish(base: Path, *accounts: Account, move_data: bool = True, force: bool = False) -> Wish:
    """Wish for a fleet of one agent in `base/fleet`, sharing `base/shared`."""
    (base / "work").mkdir(exist_ok=True)
    return Wish(
        folder=base / "fleet",
        state_dir=base / "fleet" / "state",
        root=base / "shared",
        accounts=accounts,
        agents=(Agent("scout", base / "work", accounts[0] if accounts else None),),
        move_data=move_data,
        force=force,
        new=frozenset({"new"}),
    )


def planned(wanted: Wish) -> Plan:
    """Plan against what is really there."""
    texts = files.render(wanted)
    return plan.make(wanted, setting_up.ground(wanted, texts), texts)
