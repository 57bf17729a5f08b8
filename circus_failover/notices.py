"""What somebody may want to be told of: each is a row in the store, in the order it happened.

circusd only writes them down, once a thing and a moment; who is told, and how, is the Notify plugin's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover.store import StoreError
from circus_failover.words import NoticeKind

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


class Notices:
    """The notices of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

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
                store.add_notice(time.time(), str(kind), identity, key or identity or "", text, detail)
        except StoreError as error:
            logger.error("circus-failover: a notice (%s) could not be stored: %s", kind, error)
