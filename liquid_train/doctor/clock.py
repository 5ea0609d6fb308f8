"""The clocks of servers against this host's."""

from __future__ import annotations

from collections.abc import Iterator

from liquid_train.doctor.finding import Area, Finding
from liquid_train.doctor.web import Server

_WARNING, _PROBLEM = 5.0, 60.0


def check_clock(area: Area, server: Server) -> Iterator[Finding]:
    """Yield how far apart the clocks are, from the answers so far; nothing where those carry no date."""
    skews = [reply.skew for reply in server.replies if reply.skew is not None]
    if not skews:
        return
    skew = min(skews, key=abs)
    if abs(skew) <= _WARNING:
        yield area.ok("clock", "as ours, within seconds")
        return
    seen = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's"
    todo = "synchronise both hosts: timedatectl set-ntp true; alerts on slow epochs and spans are off by it"
    yield (area.problem if abs(skew) > _PROBLEM else area.warning)("clock", seen, todo)
