"""The machine: versions, what is installed, disk space."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from liquid_train.doctor.finding import Area, Finding

NAME = "liquid-train"
_AREA = Area("machine")
_EXTRAS = ("data", "otlp", "gpu", "serve", "export", "logs", "notebooks")
_SHOWN = ("torch", "lightning", "pytorch-lightning")
_GIGABYTE = 1e9
_FULL, _NEARLY_FULL = 0.2, 1.0
_CRITICAL_PERCENT = 90.0


def check_machine(folders: dict[str, Path]) -> Iterator[Finding]:
    """Yield what is found of versions, extras and the disks of `folders`, by what they are for."""
    yield from check_versions()
    yield check_extras()
    yield from check_disks(folders)


def check_versions(name: str = NAME) -> Iterator[Finding]:
    """Yield whether Python and what a distribution requires are of the versions that it names."""
    try:
        described = distribution(name)
    except PackageNotFoundError:
        yield _AREA.warning("versions", f"{name} is not installed, so what it requires is not known",
                            "pip install .   (in the checkout)")  # fmt: skip
        return
    python, wanted = platform.python_version(), described.metadata["Requires-Python"] or ""
    wrong = []
    if not SpecifierSet(wanted).contains(python, prereleases=True):
        wrong.append(f"Python {python}, needs {wanted}")
    for requirement in map(Requirement, described.requires or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            wrong += _amiss(requirement)
    if wrong:
        yield _AREA.problem("versions", "; ".join(wrong), f"pip install --upgrade {name}")
        return
    shown = [f"{package} {found}" for package in _SHOWN if (found := _version(package))]
    yield _AREA.ok("versions", f"{name} {described.version}, Python {python}, {', '.join(shown)}: supported")


def check_extras(name: str = NAME) -> Finding:
    """Return which extras are complete; a wrong version in one that is there is a warning."""
    try:
        required = [Requirement(text) for text in distribution(name).requires or ()]
    except PackageNotFoundError:
        required = []
    there: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    for extra in _EXTRAS:
        needed = [one for one in required if one.marker and one.marker.evaluate({"extra": extra})]
        needed = [one for one in needed if not one.marker.evaluate({"extra": ""})]  # type: ignore[union-attr]
        complaints = [complaint for one in needed for complaint in _amiss(one)]
        absent = any(_version(one.name) is None for one in needed)
        (missing if absent or not needed else there).append(extra)
        wrong += [] if absent else [f"[{extra}] {complaint}" for complaint in complaints]
    if wrong:
        return _AREA.warning("extras", "; ".join(wrong), f"pip install --upgrade '{name}[all]'")
    seen = f"installed: {', '.join(there) or 'none'}"
    if missing:
        seen += f"; not installed: {', '.join(missing)} (pip install '{name}[NAME]')"
    return _AREA.ok("extras", seen)


def check_disks(folders: dict[str, Path]) -> Iterator[Finding]:
    """Yield how full the disks are, one finding for each disk."""
    disks: dict[int, tuple[Path, list[str]]] = {}
    for purpose, folder in folders.items():
        place = _nearest(folder)
        disks.setdefault(place.stat().st_dev, (place, []))[1].append(purpose)
    for place, purposes in disks.values():
        yield _disk(place, " and ".join(purposes))


def _disk(place: Path, purpose: str) -> Finding:
    usage = shutil.disk_usage(place)
    free, used = usage.free / _GIGABYTE, 100 * (1 - usage.free / max(usage.total, 1))
    seen = f"{free:.1f} GB free, {used:.0f} % used, for {purpose} ({place})"
    todo = f"make room: du -xsh {place}/* | sort -h"
    if free < _FULL or _no_inodes(place):
        return _AREA.problem("disk", f"{seen}: telemetry and checkpoints cannot be written much longer", todo)
    if free < _NEARLY_FULL:
        return _AREA.warning("disk", seen, todo)
    if used > _CRITICAL_PERCENT:
        return _AREA.warning("disk", f"{seen}: above {_CRITICAL_PERCENT:.0f} % /health says critical", todo)
    return _AREA.ok("disk", seen)


def _no_inodes(place: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    found = os.statvfs(place)
    return found.f_files > 0 and found.f_favail == 0


def _nearest(folder: Path) -> Path:
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))


def _amiss(requirement: Requirement) -> Iterator[str]:
    found = _version(requirement.name)
    if found is None:
        yield f"{requirement.name} is missing"
    elif not requirement.specifier.contains(found, prereleases=True):
        yield f"{requirement.name} {found}, needs {requirement.specifier}"


def _version(package: str) -> str | None:
    try:
        return version(canonicalize_name(package))
    except PackageNotFoundError:
        return None
