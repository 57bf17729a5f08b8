"""What somebody may want to be told of: each is a row in the store, in the order it happened.

circusd only writes them down, once a thing and a moment; who is told, and how, is the Notify plugin's. The
texts of tasks never get into one: it leaves this host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import notice_text
from circus_failover.store import Store, StoreError
from circus_failover.words import NoticeKind

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

MEMORY_SECS = 7 * 86400.0
"""How long a notice is kept."""
FORGET_SECS = 3600.0
"""From one look for those that are older to the next."""


class Notices:
    """The notices of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._forget_after = 0.0

    def say(
        self, kind: NoticeKind, text: str, *, identity: str | None = None, key: str = "", **detail: Any
    ) -> None:
        """Write down something that somebody may want to be told of; never a reason to fail an action.

        Args:
            kind: what it is.
            text: one line for a person, without secrets and without the texts of tasks.
            identity: the agent it is about, if it is about one.
            key: what it is about, where the agent alone does not say: of the same kind and key nobody is
                told twice within a short time.
            detail: further facts, as JSON takes them.
        """
        store = self._supervisor.store
        if store is None:
            return
        try:
            with store.decision(durable=False):
                self.writing(kind, text, identity=identity, key=key, **detail)(store)
        except StoreError as error:
            logger.error("circus-failover: a notice (%s) could not be stored: %s", kind, error)

    def writing(
        self, kind: NoticeKind, text: str, *, identity: str | None = None, key: str = "", **detail: Any
    ) -> Callable[[Store], None]:
        """Return what writes a notice within somebody else's decision: with that it is stored, or not at all.

        Args:
            kind: what it is.
            text: as for `say`.
            identity: as for `say`.
            key: as for `say`.
            detail: as for `say`.
        """
        about = notice_text.clean(key or identity or "", 200)
        line, facts = notice_text.clean(text), notice_text.facts(detail)

        def write(store: Store) -> None:
            now = time.time()
            store.add_notice(now, str(kind), identity, about, line, facts)
            if time.monotonic() >= self._forget_after:
                # With one added first the newest is never forgotten, so that no id is given twice.
                store.forget_notices(now - MEMORY_SECS)
                self._forget_after = time.monotonic() + FORGET_SECS

        return write
