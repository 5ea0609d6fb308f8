"""The Kubernetes example: launcher, sidecar, PodMonitor and rules fit one another and the files they share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from servers import free_port
from stack import FILES, MONITORING, read

KUBERNETES = MONITORING / "kubernetes"
ALERTS = MONITORING / "prometheus" / "alerts.yml"
JOB, CLAIM = yaml.safe_load_all((KUBERNETES / "job.yaml").read_text())
TEMPLATE = JOB["spec"]["template"]
POD = TEMPLATE["spec"]
(TRAINER,) = POD["containers"]
(COLLECTOR,) = POD["initContainers"]


def document(name: str) -> Any:
    return yaml.safe_load((KUBERNETES / name).read_text())


def test_the_launcher_takes_the_command(tmp_path: Path) -> None:
    program, *options = TRAINER["command"]
    assert (program, options[0], options[-1]) == ("liquid-train", "run", "--")
    assert options[options.index("--host") + 1] == "0.0.0.0"  # what scrapes is outside the pod
    assert TRAINER["args"] == ["python", "train.py"]
    (tmp_path / "train.py").write_text("raise SystemExit(7)")
    environment = {
        "LIQUID_TELEMETRY_SPOOL": str(tmp_path / "spool"),
        "PATH": str(Path(sys.executable).parent),
    }
    quick = [*options[:-1], "--port", str(free_port()), "--linger", "0", "--", *TRAINER["args"]]
    done = subprocess.run(
        [sys.executable, "-m", "liquid_train", *quick],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr


def test_the_pod_monitor_finds_the_pod() -> None:
    spec = document("pod-monitor.yaml")["spec"]
    assert spec["selector"]["matchLabels"].items() <= TEMPLATE["metadata"]["labels"].items()
    (endpoint,) = spec["podMetricsEndpoints"]
    assert {"name": endpoint["port"], "containerPort": 9464} in TRAINER["ports"]
    scrape = read("prometheus/prometheus.yml")["scrape_configs"][0]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == (
        scrape["scrape_interval"],
        scrape["scrape_timeout"],
    )


def test_the_rules_are_the_alerts() -> None:
    made = (KUBERNETES / "prometheus-rule.yaml").read_text()
    head, _, rules = made.partition("spec:\n")
    wanted = ALERTS.read_text().partition("groups:\n")
    indented = re.sub(r"^(?=.)", "  ", wanted[1] + wanted[2], flags=re.MULTILINE)
    assert rules == indented, "make it again: docs/kubernetes.md"
    assert yaml.safe_load(head)["kind"] == "PrometheusRule"
    assert document("prometheus-rule.yaml")["spec"] == yaml.safe_load(ALERTS.read_text())


def test_the_sidecar_is_the_collector_of_the_stack() -> None:
    compose = read("compose.yaml")["services"]["otel-collector"]
    assert (COLLECTOR["image"], COLLECTOR["args"]) == (compose["image"], compose["command"])
    assert COLLECTOR["restartPolicy"] == "Always"
    sent = {each["name"]: each["value"] for each in TRAINER["env"]}
    protocols = read(FILES["collector"])["receivers"]["otlp"]["protocols"]
    assert sent["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://{protocols['http']['endpoint']}"
    variables = {each["name"]: each["value"] for each in COLLECTOR["env"]}
    exporters = read(FILES["collector"], **variables)["exporters"]
    assert exporters["otlp_grpc/jaeger"]["endpoint"] == variables["JAEGER"]
    assert exporters["otlp_http/loki"]["endpoint"] == f"{variables['LOKI']}/otlp"


def test_volumes_are_shared() -> None:
    mounted = {
        container["name"]: {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        for container in (TRAINER, COLLECTOR)
    }
    names = {volume["name"] for volume in POD["volumes"]}
    assert set().union(*mounted.values()) == names
    assert mounted["train"]["runs"] == f"{TRAINER['workingDir']}/runs"
    assert read(FILES["collector"])["receivers"]["file_log"]["include"] == [
        f"{mounted['otel-collector']['runs']}/*/events*.jsonl"
    ]
    directory = read(FILES["collector"])["extensions"]["file_storage"]["directory"]
    assert mounted["otel-collector"]["checkpoint"] == directory
    claims = [
        each["persistentVolumeClaim"]["claimName"]
        for each in POD["volumes"]
        if "persistentVolumeClaim" in each
    ]
    assert claims == [CLAIM["metadata"]["name"]]


def test_containers_are_locked_down() -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["restartPolicy"] == "Never"
    for container in (TRAINER, COLLECTOR):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert re.search(r":[\w.]+$", container["image"])
        assert "latest" not in container["image"]
        assert "memory" in container["resources"]["limits"]
