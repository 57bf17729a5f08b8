"""What differs by runtime, one file each, behind the interface of `runtime`."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

from circus_failover.agents.runtime import Runtime

_CLASSES = {"command": "CommandRuntime", "claude": "ClaudeRuntime", "codex": "CodexRuntime"}
"""The class of each runtime, in the module of its name."""


class _Runtimes(MutableMapping[str, Runtime]):
    """Every runtime, imported when it is first asked for: workers start often, and need one at most."""

    def __init__(self) -> None:
        self._loaded: dict[str, Runtime] = {}

    def __getitem__(self, name: str) -> Runtime:
        if name not in self._loaded:
            called = _CLASSES[name]
            self._loaded[name] = getattr(import_module(f"{__name__}.{name}"), called)()
        return self._loaded[name]

    def __setitem__(self, name: str, runtime: Runtime) -> None:
        self._loaded[name] = runtime

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*_CLASSES, *self._loaded]))

    def __len__(self) -> int:
        return len({*_CLASSES, *self._loaded})

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES or name in self._loaded


RUNTIMES: MutableMapping[str, Runtime] = _Runtimes()
