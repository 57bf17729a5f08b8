"""Whether somebody may try to sign in to the console now: the table, and nothing else.

First match wins. An attempt that waits is not compared with anything, so guessing gets no faster by asking
more; only failures count.

| evidence | verdict |
|---|---|
| 5 attempts from this address failed within 60 s | wait |
| somebody has signed in from this address within a day | try |
| 50 attempts from all other addresses failed within 60 s | wait |
| otherwise | try |

Other addresses are those that nobody has signed in from, so nobody can lock the operators out from elsewhere.
An address is an IPv4 address or a /64 of IPv6. Waiting ends when the oldest failure that counts is 60 s old.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

MOST_KNOWN = 1000
"""Addresses from which somebody has signed in that are remembered."""


@dataclass(frozen=True)
class Limits:
    """How many failures there may be within a time."""

    of_one: int = 5
    """From one address."""
    of_all: int = 50
    """From all that nobody has signed in from."""
    window_secs: float = 60.0
    known_secs: float = 86400.0
    """For how long an address counts as one that somebody has signed in from."""


@dataclass(frozen=True)
class Attempts:
    """What has been tried: failures as (when, address) and, of those who signed in, the last time."""

    failures: tuple[tuple[float, str], ...] = ()
    known: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether an attempt is looked at."""

    allowed: bool
    retry_after: float
    """Seconds until one is again; 0 when it is now."""
    reason: str


def network(address: str) -> str:
    """Return what counts as one address: of IPv6 a /64, which is what one household or host has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def verdict(attempts: Attempts, address: str, now: float, limits: Limits) -> Verdict:
    """Return whether somebody at an address may try.

    Args:
        attempts: what has been tried.
        address: whose turn it is, an IP address.
        now: on the clock of `attempts`, in seconds.
        limits: how many failures there may be.
    """
    who = network(address)
    # A time that lies ahead is a clock that was set back: it counts as now, so nobody waits longer for it.
    recent = [(min(at, now), whose) for at, whose in attempts.failures if now - at < limits.window_secs]
    own = [at for at, whose in recent if whose == who]
    if len(own) >= limits.of_one:
        wait = limits.window_secs - (now - sorted(own)[-limits.of_one])
        return Verdict(False, wait, f"{len(own)} sign-ins from {address} have failed just now")
    known = {whose for at, whose in attempts.known if now - at < limits.known_secs}
    others = [at for at, whose in recent if whose not in known]
    if who not in known and len(others) >= limits.of_all:
        wait = limits.window_secs - (now - sorted(others)[-limits.of_all])
        return Verdict(False, wait, f"{len(others)} sign-ins have failed just now, from everywhere")
    return Verdict(True, 0.0, "")


def failed(attempts: Attempts, address: str, now: float, limits: Limits) -> Attempts:
    """Return the attempts with one more failure, without those that no longer count."""
    kept = tuple((min(at, now), whose) for at, whose in attempts.failures if now - at < limits.window_secs)
    return replace(attempts, failures=(*kept, (now, network(address))))


def succeeded(attempts: Attempts, address: str, now: float, limits: Limits) -> Attempts:
    """Return the attempts with somebody signed in; what failed at that address before counts on."""
    who = network(address)
    kept = [(at, whose) for at, whose in attempts.known if now - at < limits.known_secs and whose != who]
    return replace(attempts, known=(*kept, (now, who))[-MOST_KNOWN:])
