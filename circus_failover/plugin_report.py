"""What a plugin reports of a tick, checked: anybody can send a message to circusd."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Finding(_Model):
    """One line for lifecycle.log (`ev=supervise`)."""

    identity: str = ""
    action: str
    age: float | None = None
    outcome: str = ""
    evidence: str = ""
    notice: str | None = None
    """The kind of notice that it is too (`words.NoticeKind`), for somebody to be told of."""
    key: str = ""
    """What that is about, where the agent alone does not say."""


class Told(_Model):
    """One line for lifecycle.log (`ev=notify`): what became of telling somebody."""

    action: Literal["sent", "digest", "failed", "dropped"]
    target: str = Field(max_length=100)
    kind: str = Field(max_length=1000)
    count: int = Field(ge=0, lt=2**31)
    why: str = Field("", max_length=1000)


class Report(_Model):
    """One tick: when it ended (epoch seconds), how long it took, and what it found and failed at."""

    name: str = Field(min_length=1, max_length=100)
    pid: int = Field(gt=0, lt=2**31)
    at: float
    secs: float = Field(ge=0)
    interval: float = Field(gt=0)
    errors: int = Field(0, ge=0, lt=2**31)
    last_error: str | None = None
    detail: dict[str, Any] | None = None
    findings: list[Finding] = Field(default_factory=list, max_length=10_000)
    told: list[Told] = Field(default_factory=list, max_length=10_000)
