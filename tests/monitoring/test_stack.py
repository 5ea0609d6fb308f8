"""The compose file: valid, pinned, on the loopback, without passwords, and what it mounts is there."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from servers import binary, eventually, free_port
from stack import MONITORING, complaints, listening, raw, schema

COMPOSE = raw("compose.yaml")
DESKTOP = raw("compose.desktop.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ADDRESS = re.compile(r"\b\d+\.\d+\.\d+\.\d+(?::\d+)?\b")
each = pytest.mark.parametrize("name", SERVICES)


@pytest.mark.parametrize("document", [COMPOSE, DESKTOP], ids=["compose", "desktop"])
def test_the_compose_specification_allows_it(document: dict[str, Any]) -> None:
    assert complaints(schema("compose"), document) == []
    wrong = {**document, "services": {**document["services"], "loki": {"imagee": "grafana/loki"}}}
    assert any("imagee" in said for said in complaints(schema("compose"), wrong))


def test_it_starts_what_the_contract_names() -> None:
    assert SERVICES.keys() == {"prometheus", "alertmanager", "grafana", "jaeger", "otel-collector", "loki"}


@each
def test_image_is_pinned(name: str) -> None:
    assert re.fullmatch(r"[\w-]+/[\w-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@each
def test_service_is_contained(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert not {"privileged", "pid", "ipc", "devices", "ports"} & service.keys()


@each
def test_health_is_asked_or_the_reason_why_not_is_stated(name: str) -> None:
    service = SERVICES[name]
    if "healthcheck" not in service:
        assert len(service["x-no-healthcheck"]) > 20
        return
    test = service["healthcheck"]["test"]
    assert test[0] == "CMD"  # CMD-SHELL needs a shell
    assert ADDRESS.findall(" ".join(test))[0] in listening()[name]


@each
def test_dependencies_can_become_healthy(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[needed]


def test_everything_listens_on_the_loopback_and_nothing_twice() -> None:
    found = listening()
    assert found.keys() == SERVICES.keys()
    addresses = [address for each in found.values() for address in each]
    assert all(address.startswith("127.0.0.1:") for address in addresses), found
    assert [address for address, count in Counter(addresses).items() if count > 1] == []
    public = {"9090", "9093", "3000", "16686", "4317", "4318", "3100"}
    assert public <= {address.partition(":")[2] for address in addresses}
    text = (MONITORING / "compose.yaml").read_text()
    assert {host.partition(":")[0] for host in ADDRESS.findall(re.sub(r"#.*", "", text))} == {"127.0.0.1"}
    assert {service["network_mode"] for service in SERVICES.values()} == {"host"}


def mounts(name: str) -> Iterator[tuple[str, str, bool]]:
    """Source, target and whether it is read-only."""
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, dict):
            yield volume["source"], volume["target"], volume["read_only"]
        else:
            source, target, *mode = volume.split(":")
            yield source, target, mode == ["ro"]


def test_mounts_are_read_only_and_there_and_volumes_are_declared() -> None:
    named = set()
    for name in SERVICES:
        for source, target, read_only in mounts(name):
            if source.startswith("./"):
                assert read_only, source
                assert any((MONITORING / source).iterdir()), source
            elif source.startswith("$"):
                assert (source, target, read_only) == ("${LIQUID_TRAIN_RUNS:-../runs}", "/runs", True)
            else:
                assert not read_only
                named.add(source)
    assert named == COMPOSE["volumes"].keys()


@each
def test_files_that_are_named_are_mounted(name: str) -> None:
    service = SERVICES[name]
    said = [*service.get("command", []), *service.get("environment", {}).values()]
    files = [path for one in said for path in re.findall(r"/etc/[\w./-]+", one)]
    local = {target: source for source, target, _ in mounts(name) if source.startswith("./")}
    for path in files:
        (target,) = (target for target in local if path.startswith(f"{target}/"))
        assert (MONITORING / local[target] / path.removeprefix(f"{target}/")).is_file(), path
    assert files


def test_no_password_stands_in_a_file_or_has_a_default() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY", re.IGNORECASE)
    for service in (*SERVICES.values(), *DESKTOP["services"].values()):
        for name, value in service.get("environment", {}).items():
            assert not secret.search(name) or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    assert "GF_SECURITY_ADMIN_PASSWORD" in SERVICES["grafana"]["environment"]
    assert not any(name.startswith("GF_AUTH_ANONYMOUS") for name in SERVICES["grafana"]["environment"])


def test_secrets_get_into_no_archive(tmp_path: Path) -> None:
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(MONITORING.parent / name, tmp_path)
    secret = ("monitoring/.env", "monitoring/alertmanager/secrets/slack_url")
    for name in (*secret, "monitoring/compose.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    packed = {file.relative_path for file in SdistBuilder(str(tmp_path)).recurse_included_files()}
    assert "monitoring/compose.yaml" in packed
    assert packed.isdisjoint(secret)


def test_make_stack_makes_a_password_once(tmp_path: Path) -> None:
    shutil.copy(MONITORING.parent / "Makefile", tmp_path)
    (tmp_path / "monitoring").mkdir()
    docker, calls = tmp_path / "docker", tmp_path / "calls"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    made = set()
    for target in ("stack", "stack", "stack-down"):
        command = ["make", target, f"PYTHON={sys.executable}"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
        made.add((tmp_path / "monitoring" / ".env").read_text())
    (text,) = made
    assert re.fullmatch(r"GRAFANA_ADMIN_PASSWORD=[\w-]{20,}\n", text)
    assert stat.S_IMODE((tmp_path / "monitoring" / ".env").stat().st_mode) == 0o600
    assert (tmp_path / "runs").is_dir()
    up = "compose --file monitoring/compose.yaml up --detach --wait"
    assert calls.read_text().splitlines() == [up, up, "compose --file monitoring/compose.yaml down"]


def test_desktop_publishes_on_the_loopback_and_changes_addresses_only() -> None:
    services = DESKTOP["services"]
    assert services.keys() == SERVICES.keys()
    sharing = {name for name, one in services.items() if one["network_mode"] == "service:prometheus"}
    assert sharing == SERVICES.keys() - {"prometheus"}
    published = [port.rpartition(":")[0] for port in services["prometheus"]["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert set(published) <= {address for found in listening().values() for address in found}
    for name, service in services.items():
        if "command" in service:
            command = [option.replace("0.0.0.0", "127.0.0.1") for option in service["command"]]
            assert command == SERVICES[name]["command"]
        assert set(service.get("environment", {}).values()) <= {"0.0.0.0"}
        assert service.get("environment", {}).keys() <= SERVICES[name].get("environment", {}).keys()


@contextmanager
def started(name: str, program: str, home: Path) -> Iterator[str]:
    """A service's command with a real program: its files and volumes are here, its port is a free one."""
    port = free_port()
    command = []
    for option in SERVICES[name]["command"]:
        for source, target, read_only in mounts(name):
            option = option.replace(
                f"={target}", f"={(MONITORING / source).resolve() if read_only else home}"
            )
        command.append(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", option))
    home.mkdir()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([binary(program), *command], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, (home / "log").read_text()
        try:
            return bool(urllib.request.urlopen(f"{url}/-/ready", timeout=5).status == 200)
        except OSError:
            return False

    try:
        eventually(ready)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.server("prometheus")
def test_prometheus_starts_as_told_and_answers_the_health_check(
    tmp_path: Path, tool: Callable[..., str]
) -> None:
    with started("prometheus", "prometheus", tmp_path / "prometheus") as url:
        assert (
            "success"
            in urllib.request.urlopen(f"{url}/api/v1/query_exemplars?query=up&start=0&end=1", timeout=10)
            .read()
            .decode()
        )
        flags = urllib.request.urlopen(f"{url}/api/v1/status/flags", timeout=10).read().decode()
        assert '"storage.tsdb.retention.time":"30d"' in flags
        _, program, *arguments = SERVICES["prometheus"]["healthcheck"]["test"]
        tool(program, *(re.sub(r"http://[\d.:]+", url, one) for one in arguments))


@pytest.mark.server("prometheus-alertmanager")
def test_alertmanager_starts_as_told_and_answers_the_health_check(
    tmp_path: Path, tool: Callable[..., str]
) -> None:
    with started("alertmanager", "prometheus-alertmanager", tmp_path / "alertmanager") as url:
        _, program, *arguments = SERVICES["alertmanager"]["healthcheck"]["test"]
        tool(program, *(re.sub(r"http://[\d.:]+", url, one) for one in arguments))
