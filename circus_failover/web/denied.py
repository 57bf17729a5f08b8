"""That a request is refused, as an exception: what its answer and the audit log need to know of it."""

from __future__ import annotations


class Denied(Exception):
    """A request that is refused; the text is a sentence for whoever asks.

    Args:
        status: of the answer.
        reason: the sentence.
        kind: in one word for the audit log; None: it is no more than a visit without a sign-in.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self, status: int, reason: str, kind: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after
