"""The single changes that an init makes to folders, links and files, each with its way back.

A step may have been cut off by a power cut, so each can be done again, and undone, also when only it and
nothing after it may have happened: what is on disk decides. Nothing is ever overwritten, and nothing is
removed but what an init has made: a link of its own, an empty folder, a copy that equals its source.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import stat
from dataclasses import dataclass
from enum import Enum

from circus_failover.problems import printable

PARTIAL = ".failover-partial"
"""Ends the name of a copy that is not complete."""
EDITED = ".edited"
"""Ends the name under which an undo keeps a file that was changed after an init wrote it."""


class Kind(str, Enum):
    """What a step does."""

    KEEP_TIMES = "keep-times"
    FOLDER = "folder"
    RENAME = "rename"
    COPY = "copy"
    REMOVE_EMPTY = "remove-empty"
    LINK = "link"
    WRITE = "write"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Step:
    """One change. Which of the values mean something, its kind says."""

    kind: Kind
    path: str
    target: str = ""
    """Of a rename or copy: the new path. Of a link: what it says."""
    text: str = ""
    """Of a file: its content."""
    mode: int = 0
    """Of a folder that is made, emptied or removed: its permission bits."""
    mtime_ns: int = 0
    """Of a folder that is emptied: when it was last changed."""

    def __str__(self) -> str:
        path, target = printable(self.path), printable(self.target)
        return {
            Kind.KEEP_TIMES: f"note the time of {path}",
            Kind.FOLDER: f"make the folder {path}",
            Kind.RENAME: f"rename {path} to {target}",
            Kind.COPY: f"copy {path} to {target}",
            Kind.REMOVE_EMPTY: f"remove the emptied folder {path}",
            Kind.LINK: f"link {path} to {target}",
            Kind.WRITE: f"write {path}",
        }[self.kind]


class Blocked(Exception):
    """A step cannot be done, or undone, because of what is there; nothing was changed by it."""


def do(step: Step) -> None:
    """Carry out a step; do nothing when it has been carried out already.

    Raises:
        Blocked: what is there is not what the step was made for.
        OSError: the system refused.
    """
    {
        Kind.KEEP_TIMES: lambda step: None,
        Kind.FOLDER: _make_folder,
        Kind.RENAME: _rename,
        Kind.COPY: _copy,
        Kind.REMOVE_EMPTY: _remove_empty,
        Kind.LINK: _link,
        Kind.WRITE: _write,
    }[step.kind](step)
    _sync(step)


def undo(step: Step, certain: bool) -> str | None:
    """Take a step back, everything after it having been taken back.

    Args:
        step: the step.
        certain: it was carried out for certain; else it may have been cut off.

    Returns:
        What was left where it is, as a sentence; None when nothing was.

    Raises:
        Blocked: what is there is not what the step left.
        OSError: the system refused.
    """
    if step.kind is Kind.RENAME:
        _rename_back(step, certain)
        left = None
    elif step.kind is Kind.LINK:
        _unlink(step, certain)
        left = None
    else:
        left = {
            Kind.KEEP_TIMES: _restore_times,
            Kind.FOLDER: _remove_folder,
            Kind.COPY: _remove_copy,
            Kind.REMOVE_EMPTY: _make_again,
            Kind.WRITE: _take_away,
        }[step.kind](step)
    _sync(step)
    return left


def _sync(step: Step) -> None:
    """Have the folders that a step changed on disk before anything follows from it."""
    for path in {step.path, step.target if step.kind in (Kind.RENAME, Kind.COPY) else step.path}:
        sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    """Have what was made, renamed or removed in a folder on disk."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot: fsync(2)
            raise
    finally:
        os.close(handle)


def _make_folder(step: Step) -> None:
    try:
        os.mkdir(step.path, step.mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(step.path).st_mode):
            raise Blocked(f"{printable(step.path)}: expected nothing or a folder there") from None


def _remove_folder(step: Step) -> str | None:
    try:
        os.rmdir(step.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return f"left the folder {printable(step.path)}: it is not empty"
    return None


def _rename(step: Step) -> None:
    if not os.path.lexists(step.target):
        os.rename(step.path, step.target)
    elif os.path.lexists(step.path):
        raise Blocked(f"{printable(step.target)}: something appeared there; move it away")


def _rename_back(step: Step, certain: bool) -> None:
    before, after = os.path.lexists(step.path), os.path.lexists(step.target)
    if after and not before:
        os.rename(step.target, step.path)
    elif after and certain:
        raise Blocked(f"{printable(step.path)}: something appeared there; move it away")
    elif not after and not before:
        raise Blocked(f"{printable(step.target)}: gone; it was {printable(step.path)} before the init")


def _copy(step: Step) -> None:
    if os.path.lexists(step.target):  # it gets this name only when it is complete
        return
    partial = step.target + PARTIAL
    _remove_tree(partial)
    if os.path.isdir(step.path) and not os.path.islink(step.path):
        shutil.copytree(step.path, partial, symlinks=True, copy_function=_copy_file)
        for folder, _, _ in os.walk(partial):
            sync_folder(folder)
    else:
        _copy_file(step.path, partial)
    if not same(step.path, partial):
        raise Blocked(f"{printable(step.path)}: changed while it was copied; end whoever writes there")
    os.rename(partial, step.target)


def _copy_file(source: str, target: str) -> None:
    """Copy a file, or a link as a link, with permissions and times, and have it on disk."""
    shutil.copy2(source, target, follow_symlinks=False)
    if os.path.islink(target):
        return
    # As it stands: a file may be one that even its owner may not write to.
    handle = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_copy(step: Step) -> str | None:
    _remove_tree(step.target + PARTIAL)
    if not os.path.lexists(step.target):
        return None
    if not same(step.path, step.target):
        return (
            f"left {printable(step.target)}: it has changed since it was copied from {printable(step.path)}"
        )
    _remove_tree(step.target)
    return None


def _remove_tree(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def same(one: str, other: str) -> bool:
    """Say whether two trees have the same names, kinds, permissions and content; links are not followed."""
    try:
        first, second = os.lstat(one), os.lstat(other)
        if first.st_mode != second.st_mode:
            return False
        if stat.S_ISLNK(first.st_mode):
            return os.readlink(one) == os.readlink(other)
        if stat.S_ISDIR(first.st_mode):
            names = sorted(os.listdir(one))
            if names != sorted(os.listdir(other)):
                return False
            return all(same(os.path.join(one, name), os.path.join(other, name)) for name in names)
        return stat.S_ISREG(first.st_mode) and filecmp.cmp(one, other, shallow=False)
    except FileNotFoundError:
        return False
    finally:
        filecmp.clear_cache()


def _remove_empty(step: Step) -> None:
    try:
        os.rmdir(step.path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Blocked(f"{printable(step.path)}: expected an empty folder ({error.strerror})") from error


def _make_again(step: Step) -> None:
    if not os.path.lexists(step.path):
        os.mkdir(step.path, 0o700)
    _restore_times(step)


def _restore_times(step: Step) -> None:
    if os.path.isdir(step.path) and not os.path.islink(step.path):
        os.chmod(step.path, step.mode)
        os.utime(step.path, ns=(step.mtime_ns, step.mtime_ns))


def _link(step: Step) -> None:
    try:
        os.symlink(step.target, step.path)
    except FileExistsError:
        if not _links(step):
            raise Blocked(f"{printable(step.path)}: something appeared there; move it away") from None


def _links(step: Step) -> bool:
    return os.path.islink(step.path) and os.readlink(step.path) == step.target


def _unlink(step: Step, certain: bool) -> None:
    if _links(step):
        os.unlink(step.path)
    elif certain and os.path.lexists(step.path):
        target = printable(step.target)
        raise Blocked(f"{printable(step.path)}: expected the link to {target}; move away what is there")


def _write(step: Step) -> None:
    if os.path.lexists(step.path):
        if not _written(step):
            raise Blocked(f"{printable(step.path)}: something appeared there; move it away, or --force")
        return
    partial = step.path + PARTIAL
    with open(partial, "wb") as file:
        file.write(step.text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, step.path)


def _written(step: Step) -> bool:
    try:
        with open(step.path, "rb") as file:
            return file.read() == step.text.encode("utf-8", "surrogateescape")
    except OSError:
        return False


def _take_away(step: Step) -> str | None:
    _remove_tree(step.path + PARTIAL)
    if not os.path.lexists(step.path):
        return None
    if _written(step):
        os.unlink(step.path)
        return None
    number = 1
    while os.path.lexists(kept := f"{step.path}{EDITED}-{number}"):
        number += 1
    os.rename(step.path, kept)
    return f"kept {printable(step.path)} as {printable(kept)}: it was changed since it was written"
