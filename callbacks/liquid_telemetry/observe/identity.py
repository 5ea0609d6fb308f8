"""The names by which the signals of a run are known, the same on every rank."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

import psutil
import torch.distributed as dist

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

Identity = tuple[str, str, str, "str | None"]


def draw_identity(start_ns: int, environment: Mapping[str, str]) -> Identity:
    """Run id, trace id, root span id, parent span id; drawn from the system so that no seed can repeat them."""
    moment = datetime.fromtimestamp(start_ns / 1e9, timezone.utc)
    run_id = f"{moment:%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"
    parent = _parent(environment)
    trace_id, parent_span_id = parent.groups()[:2] if parent else (os.urandom(16).hex(), None)
    return run_id, trace_id, os.urandom(8).hex(), parent_span_id


def is_sampled(environment: Mapping[str, str]) -> bool:
    """Whether the parent in ``TRACEPARENT`` is recorded; so is what has none."""
    parent = _parent(environment)
    return parent is None or int(parent[3], 16) & 1 == 1


def _parent(environment: Mapping[str, str]) -> re.Match[str] | None:
    return _TRACEPARENT.match(environment.get("TRACEPARENT", "").strip().lower())


_shared = count()
_PATIENCE = timedelta(minutes=2)


def shared_identity(trainer: Trainer, identity: Identity) -> Identity:
    """Rank 0's identity, by the store in which the ranks of a process group have met.

    No collective: a program may give its callbacks to some ranks only, and those would wait for the others for ever.
    Here a rank waits for rank 0 alone, and not for ever.
    """
    store = _store()
    if store is None:
        shared: Identity = trainer.strategy.broadcast(identity)
        return shared
    key = f"liquid_telemetry/{next(_shared)}"
    if trainer.global_rank == 0:
        store.set(key, json.dumps(identity))
        return identity
    try:
        store.wait([key], _PATIENCE)
    except RuntimeError:
        return agreed_identity(trainer, identity)
    run_id, trace_id, root_span_id, parent_span_id = json.loads(store.get(key))
    return run_id, trace_id, root_span_id, parent_span_id


def _store() -> Any:
    """The store of the process group; None where there is none, or PyTorch does not show it."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    try:
        return dist.distributed_c10d._get_default_store()
    except (AttributeError, RuntimeError, ValueError):
        return None


_alone = count()


def agreed_identity(trainer: Trainer, identity: Identity) -> Identity:
    """The same names on every rank of a host without a word between them: all know the process that started them."""
    is_parent = bool(getattr(trainer.strategy.launcher, "procs", None))
    parent = psutil.Process(os.getpid() if is_parent else os.getppid())
    port = os.environ.get("MASTER_PORT", "")
    names = sha256(f"{parent.pid} {parent.create_time()} {port} {next(_alone)}".encode()).hexdigest()
    moment = datetime.fromtimestamp(parent.create_time(), timezone.utc)
    _, trace_id, _, parent_span_id = identity
    return (
        f"{moment:%Y%m%d-%H%M%S}-{names[:6]}",
        trace_id if parent_span_id else names[:32],
        names[32:48],
        parent_span_id,
    )
