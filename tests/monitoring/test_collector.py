"""The collector, Loki and Jaeger: their files hold known keys, fit one another, and fit a real event log."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import tiny
from stack import FILES, complaints, listening, read, schema

from liquid_telemetry import Telemetry
from liquid_telemetry.signals import EVENTS

pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]

COLLECTOR = read(FILES["collector"])
TAIL = COLLECTOR["receivers"]["file_log"]
LOKI = read(FILES["loki"])
JAEGER = read(FILES["jaeger"])
PIPELINES = ("collector", "jaeger")
KINDS = ("extensions", "receivers", "processors", "exporters")


def variants(document: Any) -> Iterator[Any]:
    """The document with one key misspelt, for each of its keys."""
    for path in list(_paths(document)):
        wrong = copy.deepcopy(document)
        inner = wrong
        for step in path[:-1]:
            inner = inner[step]
        inner[f"{path[-1]}x"] = inner.pop(path[-1])
        yield path, wrong


def _paths(document: Any, *above: Any) -> Iterator[tuple[Any, ...]]:
    items = document.items() if isinstance(document, dict) else ()
    items = enumerate(document) if isinstance(document, list) else items
    for key, value in items:
        if isinstance(key, str):
            yield (*above, key)
        yield from _paths(value, *above, key)


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_documented(name: str) -> None:
    assert complaints(schema(name), read(FILES[name])) == []


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_key_is_refused(name: str) -> None:
    free = {"backends", "resource", "exporters", "pipelines"}  # names in these are the user's
    known = schema(name)
    missed = [
        path
        for path, wrong in variants(read(FILES[name]))
        if not complaints(known, wrong) and (len(path) < 2 or path[-2] not in free)
    ]
    assert missed == []


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_name_what_is_declared_and_nothing_is_idle(name: str) -> None:
    document = read(FILES[name])
    used: dict[str, set[str]] = {kind: set() for kind in KINDS}
    used["extensions"].update(document["service"]["extensions"])
    for pipeline in document["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            used[kind].update(names)
    assert {kind: set(document[kind]) for kind in KINDS} == used


def test_memory_is_limited_first_in_every_pipeline() -> None:
    for pipeline in COLLECTOR["service"]["pipelines"].values():
        assert pipeline["processors"] == ["memory_limiter", "batch"]


def test_positions_and_what_loki_has_not_taken_are_kept_in_a_mounted_volume() -> None:
    queue = COLLECTOR["exporters"]["otlp_http/loki"]["sending_queue"]
    assert TAIL["storage"] == queue["storage"] == "file_storage"
    volumes = read("compose.yaml")["services"]["otel-collector"]["volumes"]
    assert f"otel-collector:{COLLECTOR['extensions']['file_storage']['directory']}" in volumes


def test_what_is_sent_arrives_where_something_listens() -> None:
    found = listening()
    assert COLLECTOR["exporters"]["otlp_grpc/jaeger"]["endpoint"] in found["jaeger"]
    assert (
        COLLECTOR["exporters"]["otlp_grpc/jaeger"]["endpoint"]
        == (JAEGER["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"])
    )
    loki = COLLECTOR["exporters"]["otlp_http/loki"]["endpoint"]
    assert loki == f"http://{found['loki'][0]}/otlp"
    for source in read(FILES["datasources"])["datasources"]:
        assert source["url"].removeprefix("http://") in found[source["type"]]


def test_files_follow_their_variables() -> None:
    collector = read(FILES["collector"], LISTEN="0.0.0.0", JAEGER="j:4317", LOKI="http://l:3100")
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"] == "0.0.0.0:4318"
    assert collector["exporters"]["otlp_grpc/jaeger"]["endpoint"] == "j:4317"
    assert collector["exporters"]["otlp_http/loki"]["endpoint"] == "http://l:3100/otlp"
    jaeger = read(FILES["jaeger"], LISTEN="0.0.0.0")["extensions"]["jaeger_query"]["http"]
    assert jaeger["endpoint"] == "0.0.0.0:16686"
    assert read(FILES["loki"], LISTEN="0.0.0.0")["server"]["http_listen_address"] == "0.0.0.0"


def test_jaeger_reads_where_it_writes() -> None:
    store = JAEGER["exporters"]["jaeger_storage_exporter"]["trace_storage"]
    assert store == JAEGER["extensions"]["jaeger_query"]["storage"]["traces"]
    badger = JAEGER["extensions"]["jaeger_storage"]["backends"][store]["badger"]
    volumes = read("compose.yaml")["services"]["jaeger"]["volumes"]
    (volume,) = (each.partition(":")[2] for each in volumes if each.startswith("jaeger:"))
    assert all(path.startswith(f"{volume}/") for path in badger["directories"].values())


def test_loki_takes_what_is_read_keeps_it_and_deletes_it() -> None:
    limits = LOKI["limits_config"]
    assert limits["retention_period"] == limits["reject_old_samples_max_age"] == TAIL["exclude_older_than"]
    assert LOKI["compactor"]["retention_enabled"]
    volumes = read("compose.yaml")["services"]["loki"]["volumes"]
    assert f"loki:{LOKI['common']['path_prefix']}" in volumes
    assert LOKI["compactor"]["working_directory"].startswith(LOKI["common"]["path_prefix"])


@dataclass
class Record:
    """What the collector makes of a line."""

    body: str
    attributes: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=lambda: dict(TAIL["resource"]))
    time: datetime | None = None
    severity: str | None = None
    trace_id: bytes = b""
    span_id: bytes = b""

    def get(self, path: str) -> Any:
        place, name = self._place(path)
        return place[name]

    def pop(self, path: str) -> Any:
        place, name = self._place(path)
        return place.pop(name)

    def put(self, path: str, value: Any) -> None:
        place, name = self._place(path)
        place[name] = value

    def _place(self, path: str) -> tuple[dict[str, Any], str]:
        root, *between, name = path.split(".")
        place: dict[str, Any] = getattr(self, root)
        for step in between:
            place = place[step]
        return place, name


SEVERITIES = {name: name for name in ("trace", "debug", "info", "warn", "error", "fatal")}


def json_parser(record: Record, given: dict[str, Any]) -> None:
    record.put(given["parse_to"], json.loads(record.body))
    stamp, level, trace = given["timestamp"], given["severity"], given["trace"]
    assert stamp["location"] == "UTC"
    moment = datetime.strptime(record.get(stamp["parse_from"]), stamp["layout"])
    record.time = moment.replace(tzinfo=timezone.utc)
    known = SEVERITIES | {value: name for name, value in level["mapping"].items()}
    record.severity = known[record.get(level["parse_from"])]
    for name in ("trace_id", "span_id"):
        setattr(record, name, bytes.fromhex(record.get(trace[name]["parse_from"])))


def move(record: Record, given: dict[str, Any]) -> None:
    record.put(given["to"], record.pop(given["from"]))


def remove(record: Record, given: dict[str, Any]) -> None:
    record.pop(given["field"])


OPERATORS: dict[str, Callable[[Record, dict[str, Any]], None]] = {
    each.__name__: each for each in (json_parser, move, remove)
}


def collected(line: str, *, strict: bool) -> Record:
    record = Record(line)
    for given in TAIL["operators"]:
        try:
            OPERATORS[given["type"]](record, given)
        except (KeyError, ValueError):
            assert not strict, given
            assert given["on_error"] == "send_quiet"
    return record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that failed."""

    class Failing(tiny.Tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 1:
                raise ValueError("on purpose")
            return super().training_step(batch, batch_idx)

    with tiny.workplace(tmp_path_factory.mktemp("collector")):
        with pytest.raises(ValueError, match="on purpose"):
            tiny.fit(Telemetry(), model=Failing())
        return Path(tiny.only_run().dir).resolve()


def test_the_logs_of_all_ranks_and_their_rotated_parts_are_read(run: Path, tmp_path: Path) -> None:
    (pattern,) = TAIL["include"]
    mounted, glob = pattern[: len("/runs/")], pattern[len("/runs/") :]
    assert mounted == "/runs/"
    assert run / "events.jsonl" in run.parent.glob(glob)
    (tmp_path / "r").mkdir()
    names = ("events.jsonl", "events.1.jsonl", "events.rank1.jsonl", "events.rank1.1.jsonl")
    for name in (*names, "traces.jsonl", "telemetry.json"):
        (tmp_path / "r" / name).touch()
    assert {path.name for path in tmp_path.glob(glob)} == set(names)


def test_every_line_of_a_real_log_is_understood(run: Path) -> None:
    lines = (run / "events.jsonl").read_text().splitlines()
    manifest = json.loads((run / "telemetry.json").read_text())
    events = [json.loads(line) for line in lines]
    assert {"training_started", "training_epoch_completed", "training_failed"} <= {
        event["event"] for event in events
    }
    assert "%f" in TAIL["operators"][0]["timestamp"]["layout"]  # microseconds, here as in Python
    for line, event in zip(lines, events, strict=True):
        record = collected(line, strict=True)
        assert record.body == line
        assert record.attributes == {"run_id": run.name, "level": event["level"]}
        assert record.resource == {"service.name": "liquid-train", "model_name": event["model_name"]}
        assert record.time == datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
        assert record.trace_id.hex() == manifest["trace_id"]
        assert re.fullmatch("[0-9a-f]{16}", record.span_id.hex())
    assert collected(lines[-1], strict=True).severity == "error"


def test_every_level_is_a_severity() -> None:
    operator = TAIL["operators"][0]
    levels = {event.level for event in EVENTS.values()} | {"debug", "critical"}
    assert levels <= SEVERITIES.keys() | set(operator["severity"]["mapping"].values())


def test_a_line_that_is_not_json_is_sent_as_it_is() -> None:
    assert collected("torn", strict=False) == Record("torn")


def test_labels_are_few_and_what_the_dashboards_ask_by() -> None:
    given = LOKI["limits_config"]["otlp_config"]["resource_attributes"]
    assert given["ignore_defaults"]
    (index,) = given["attributes_config"]
    moved = {each["to"] for each in TAIL["operators"] if each["type"] == "move"}
    resource = set(TAIL["resource"]) | {to.partition(".")[2] for to in moved if to.startswith("resource.")}
    assert index == {"action": "index_label", "attributes": sorted(resource, reverse=True)}
    assert {"attributes.run_id", "attributes.level"} <= moved
