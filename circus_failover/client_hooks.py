"""Hooks in an account's settings that let its client report to the supervisor: put in, taken out, looked at.

What is a user's own stays as it is, byte for byte; only entries that run `failover-event` are ever touched.
A plan is made first and changes nothing, so that it can be shown; whoever carries it out has asked before.
It never answers in the user's place when a client asks whether a hook is trusted.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shlex
import shutil
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus_failover import json_text
from circus_failover.problems import printable

PROGRAM = "failover-event"
SECS = 3
"""After so long a client gives up on the hook. Codex 0.169 complains about more for the end of a session."""
HOOKS = {
    "claude": ("SessionStart", "UserPromptSubmit", "Stop", "StopFailure", "Notification", "SessionEnd"),
    # Codex 0.169 reports neither a failed turn nor that it waits for somebody.
    "codex": ("SessionStart", "UserPromptSubmit", "Stop", "Interrupt", "SessionEnd"),
}
"""What is reported, by runtime: what begins and ends a turn and a session, and what a client waits for."""
FILES = {"claude": "settings.json", "codex": "hooks.json"}
BACKUP = ".before-failover"
LARGEST = 4 * 1024 * 1024
_KEY = "hooks"
_BLANK = "\ufeff \t\r\n"


class HooksError(Exception):
    """The settings cannot be changed, and nothing was; the text names the file and says what to do."""


@dataclass(frozen=True)
class Plan:
    """What a settings file is, and what it would be; nothing is done yet."""

    path: Path
    """As the client finds it."""
    target: Path
    """Where it really is: another one where `path` is a link, which homes may share."""
    before: str | None
    """None: there is no file."""
    after: str | None
    """None: the file goes, since there was none before the hooks."""
    restores: bool = False
    """It becomes what the copy beside it is."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.before != self.after

    def diff(self) -> str:
        """Return the change as a unified diff; empty when there is none."""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            (self.after or "").splitlines(keepends=True),
            str(self.target) if self.before is not None else os.devnull,
            str(self.target) if self.after is not None else os.devnull,
        )
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
        )


@dataclass(frozen=True)
class Status:
    """What of our hooks is in a settings file."""

    path: Path
    target: Path
    present: tuple[str, ...]
    """The hooks that run this installation's reporter."""
    missing: tuple[str, ...]
    others: tuple[str, ...]
    """Reporters of other installations that are run; or ones that nothing is reported to any more."""
    turned_off: bool = False
    """The client runs no hooks at all."""

    @property
    def word(self) -> str:
        """Say it in one word: `installed`, `partly`, `absent`."""
        if self.missing or self.others:
            return "partly" if self.present or self.others else "absent"
        return "installed"


def reporter() -> Path:
    """Return the installed reporter.

    Raises:
        HooksError: it is not where this package's programs are.
    """
    places = [Path(sys.argv[0]).absolute().parent, Path(sysconfig.get_path("scripts"))]
    found = next((place / PROGRAM for place in places if os.access(place / PROGRAM, os.X_OK)), None)
    by_path = shutil.which(PROGRAM)
    if found is None and by_path is None:
        raise HooksError(
            f"{PROGRAM} is not beside failoverctl ({places[0]}) and not in PATH: "
            "install circus-failover anew, it comes with it"
        )
    return (found or Path(str(by_path))).absolute()


def command(program: Path, hook: str) -> str:
    """Return what a client runs: nothing, successfully, when the reporter is gone or fails."""
    quoted = shlex.quote(str(program))
    return f"[ -x {quoted} ] && {quoted} {hook} || :"


def settings_file(runtime: str, home: Path) -> Path:
    """Return the file of an account home that holds hooks.

    Raises:
        HooksError: clients of this runtime have no such feature.
    """
    if runtime not in FILES:
        raise HooksError(f"{runtime}: no such feature: hooks are known of {' and '.join(FILES)}")
    return home / FILES[runtime]


def status(runtime: str, home: Path, program: Path) -> Status:
    """Return what of our hooks is in an account home.

    Args:
        runtime: the client.
        home: the account home.
        program: this installation's reporter.

    Raises:
        HooksError: the file cannot be read, or is none that the client could read.
    """
    path = settings_file(runtime, home)
    target, text = _read(path)
    document = _document(path, text)
    entries = list(_ours(document))
    wanted = {hook: command(program, hook) for hook in HOOKS[runtime]}
    present = [hook for hook, _, found in entries if wanted.get(hook) == found]
    others = {_program(found) or "" for hook, _, found in entries if wanted.get(hook) != found}
    return Status(
        path,
        target,
        tuple(hook for hook in wanted if hook in present),
        tuple(hook for hook in wanted if hook not in present),
        tuple(sorted(others)),
        document.get("disableAllHooks") is True,
    )


def installing(runtime: str, home: Path, program: Path) -> Plan:
    """Plan to put our hooks into an account home; entries of another installation are replaced.

    Args:
        runtime: the client.
        home: the account home.
        program: the reporter that the hooks run.

    Raises:
        HooksError: the file cannot be read, or is none that the client could read.
    """
    path = settings_file(runtime, home)
    if not home.is_dir():
        raise HooksError(f"{home}: no such folder, expected an account home: let the client make it first")
    target, before = _read(path)
    _document(path, before)
    return Plan(path, target, before, with_hooks(before, runtime, program))


def removing(runtime: str, home: Path) -> Plan:
    """Plan to take our hooks out of an account home again: whatever else was changed since stays.

    Raises:
        HooksError: the file cannot be read, or is none that the client could read.
    """
    path = settings_file(runtime, home)
    target, before = _read(path)
    found = list(_ours(_document(path, before)))
    if before is None or not found:
        return Plan(path, target, before, before)
    copy = _backup(target)
    if copy is not None and before == with_hooks(copy, runtime, Path(_program(found[0][2]) or PROGRAM)):
        return Plan(path, target, before, copy, restores=True)
    after: str | None = without_hooks(before)
    if copy is None and after is not None and not json_text.container(after).items and not path.is_symlink():
        after = None
    return Plan(path, target, before, after)


def carry_out(plan: Plan) -> None:
    """Write what was planned, at once or not at all; what there was is kept beside it (`.before-failover`).

    Raises:
        HooksError: it changed since it was planned, or cannot be written; nothing was changed.
    """
    if not plan.changes:
        return
    try:
        if _read(plan.path) != (plan.target, plan.before):
            raise HooksError(f"{plan.path} has changed meanwhile, nothing was written: try again")
        copy = plan.target.with_name(plan.target.name + BACKUP)
        if plan.before is not None and not any(_ours(_document(plan.path, plan.before))):
            _replace(copy, plan.before, plan.target)
        elif plan.before is None:
            copy.unlink(missing_ok=True)
        if plan.after is None:
            plan.target.unlink()
        else:
            _replace(plan.target, plan.after, plan.target)
        if plan.restores:
            copy.unlink(missing_ok=True)
    except OSError as error:
        raise HooksError(f"{plan.target}: {error.strerror or error}, nothing was written") from error


def _read(path: Path) -> tuple[Path, str | None]:
    """Return where a file really is, and what it says; None when there is none."""
    target = Path(os.path.realpath(path))
    try:
        with open(target, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise HooksError(f"{path}: expected a regular file")
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise HooksError(
                f"{path} is a link to {target}, which does not exist: mend the link, or take it away"
            ) from None
        return target, None
    except OSError as error:
        raise HooksError(f"{path}: {error.strerror or error}") from error
    if len(content) > LARGEST:
        raise HooksError(f"{path}: more than {LARGEST} bytes, expected the settings of a client")
    try:
        return target, content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HooksError(f"{path}: {error}, expected UTF-8; nothing was written") from error


def _document(path: Path, text: str | None) -> dict[str, Any]:
    """Return a settings file as values, having checked all that is changed by place."""
    if text is None or not text.strip(_BLANK):
        return {}
    try:
        # A byte order mark is no part of JSON (RFC 8259), but of files that some editors write.
        document = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise HooksError(
            printable(f"{path}: broken JSON ({error}), nothing was written: mend it first")
        ) from error
    wrong = f"nothing was written: {path}"
    if not isinstance(document, dict):
        raise HooksError(f"{wrong}: expected an object")
    hooks = document.get(_KEY, {})
    if not isinstance(hooks, dict):
        raise HooksError(f"{wrong}: {_KEY}: expected an object")
    for hook, groups in hooks.items():
        if not isinstance(groups, list):
            raise HooksError(printable(f"{wrong}: {_KEY}.{hook}: expected a list"))
    return document


def _ours(document: dict[str, Any]) -> Iterator[tuple[str, tuple[str | int, ...], str]]:
    """Yield our entries: the hook, the place of what is to be taken out, and the command."""
    for hook, groups in document.get(_KEY, {}).items():
        for number, group in enumerate(groups):
            handlers = group.get(_KEY) if isinstance(group, dict) else None
            commands = [
                str(handler.get("command", "")) if isinstance(handler, dict) else ""
                for handler in (handlers if isinstance(handlers, list) else ())
            ]
            alone = all(map(_program, commands))
            for place, found in enumerate(commands):
                if _program(found):
                    inside: tuple[str | int, ...] = () if alone else (_KEY, place)
                    yield hook, (_KEY, hook, number, *inside), found


def _program(found: str) -> str | None:
    """Return the reporter that a command of ours runs; None when the command is not ours."""
    if PROGRAM not in found:
        return None
    try:
        words = shlex.split(found)
    except ValueError:
        return None
    ours = len(words) == 9 and words[:2] == ["[", "-x"] and words[3:5] == ["]", "&&"]
    if not ours or words[7:] != ["||", ":"] or words[2] != words[5] or Path(words[2]).name != PROGRAM:
        return None
    return words[2]


def with_hooks(before: str | None, runtime: str, program: Path) -> str:
    """Return a settings file with our hooks; the same text when they are all there already.

    Args:
        before: the file, which `json.loads` accepts; None for one that is not there.
        runtime: whose hooks.
        program: the reporter that they run.
    """
    text = "{}\n" if before is None or not before.strip(_BLANK) else before
    wanted = {hook: command(program, hook) for hook in HOOKS[runtime]}
    found = [(hook, line) for hook, _, line in _ours(_values(text))]
    right = [hook for hook, line in found if wanted.get(hook) == line]
    if sorted(right) == sorted(wanted) and len(found) == len(right):
        return text
    text = without_hooks(text)
    for hook, line in wanted.items():
        entry = {"hooks": [{"type": "command", "command": line, "timeout": SECS}]}
        text = json_text.append(text, (_KEY, hook), entry)
    return text


def without_hooks(text: str) -> str:
    """Return a settings file without our hooks, and without what holds nothing else than them."""
    while places := [place for _, place, _ in _ours(_values(text))]:
        # From the end: what is before it keeps its place.
        text = json_text.remove(text, places[-1])
    return text


def _values(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text.lstrip("\ufeff"))
    return document


def _backup(target: Path) -> str | None:
    """Return what the copy beside a file says; None when there is none that could have been it."""
    try:
        _, text = _read(target.with_name(target.name + BACKUP))
        document = _document(target, text)
    except HooksError:
        return None
    return None if text is None or any(_ours(document)) else text


def _replace(path: Path, text: str, like: Path) -> None:
    """Put a file in place at once, with the mode and owner that another one has."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                found = like.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), found.st_uid, found.st_gid)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
