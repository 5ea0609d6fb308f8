"""The helper Inference: spans, metrics, and nothing else."""

import asyncio
import copy
import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from tiny import Tiny, only_run, run_python, runs

from liquid_telemetry import Inference
from liquid_telemetry.inference import helper
from liquid_telemetry.inference.subject import shape_of
from liquid_telemetry.signals import NAMESPACE, SPANS

STEPS = ["preprocess_input", "model_forward_pass", "postprocess_output"]
REQUESTS = "inference_requests_total"
LINEAR = (("device", "cpu"), ("model_type", "Linear"))


@pytest.fixture
def model():
    return torch.nn.Linear(4, 3)


def classify_with(inference, model):
    @inference
    def classify(rows):
        """Say which."""
        with inference.preprocess(rows):
            inputs = torch.tensor(rows)
        with inference.forward():
            scores = model(inputs)
        with inference.postprocess(scores):
            return scores.argmax(-1).tolist()

    return classify


def test_a_decorated_function_with_its_steps(workshop, model):
    with Inference(model, model_name="tiny") as inference:
        classify = classify_with(inference, model)
        assert classify.__name__ == "classify"
        assert classify.__doc__ == "Say which."
        assert len(classify([[0.0] * 4] * 2)) == 2
    run = only_run()
    assert [span["name"] for span in run.spans] == [*STEPS, "liquid_nn_inference"]
    root = run.spans[-1]
    assert {span["parentSpanId"] for span in run.spans[:3]} == {root["spanId"]}
    assert {span["traceId"] for span in run.spans} == {root["traceId"]}
    told = {span["name"]: span["attributes"] for span in run.spans}
    assert told == {
        "preprocess_input": {f"{NAMESPACE}input.shape": "[2, 4]"},
        "model_forward_pass": {
            f"{NAMESPACE}model.type": "Linear",
            f"{NAMESPACE}model.parameters": 15,
            f"{NAMESPACE}device": "cpu",
        },
        "postprocess_output": {f"{NAMESPACE}output.shape": "[2, 3]"},
        "liquid_nn_inference": {
            f"{NAMESPACE}run.id": run.run_id,
            f"{NAMESPACE}model.name": "tiny",
            f"{NAMESPACE}input.shape": "[2, 4]",
            f"{NAMESPACE}output.shape": "[2]",
        },
    }
    starts = [span["start"] for span in run.spans]
    assert starts[3] <= starts[0] <= starts[1] <= starts[2]
    assert run.metrics[REQUESTS] == {LINEAR: 1}
    assert run.metrics["inference_duration_seconds_count"] == {(): 1}
    duration = (root["end"] - root["start"]) / 1e9
    assert run.metrics["inference_duration_seconds_sum"][()] == pytest.approx(duration, abs=0.01)
    assert (run.record["job"], run.record["status"], run.record["model_name"]) == (False, "completed", "tiny")
    assert run.manifest["traces"] == str(run.dir / "traces.jsonl")


def test_a_function_that_names_no_steps_is_the_forward_pass(workshop, model):
    inference = Inference(model)
    inference(model.forward)(torch.zeros(5, 4))
    inference.close()
    inner, root = only_run().spans
    assert (inner["name"], inner["parentSpanId"]) == ("model_forward_pass", root["spanId"])
    assert inner["start"] == root["start"]
    assert root["attributes"][f"{NAMESPACE}input.shape"] == "[5, 4]"
    assert root["attributes"][f"{NAMESPACE}output.shape"] == "[5, 3]"


def test_a_module_is_a_function_too(workshop, model):
    with Inference(model) as inference:
        answer = inference(model)
        assert answer(torch.zeros(2, 4)).shape == (2, 3)
    assert set(vars(answer)) == {"__wrapped__"}
    assert only_run().metrics[REQUESTS] == {LINEAR: 1}


def test_what_is_emitted_is_declared(workshop, model):
    with Inference(model) as inference:
        classify_with(inference, model)([[0.0] * 4])
    for span in only_run().spans:
        declared = SPANS[span["name"]]
        assert {name.removeprefix(NAMESPACE) for name in span["attributes"]} <= set(declared.attributes)
        assert ("parentSpanId" in span) == (declared.parent is not None)


def test_any_function_with_any_exception(workshop):
    def divide(a, b):
        return a / b

    with Inference(divide) as inference:
        told = inference(divide)
        assert told(6, 3) == 2
        with pytest.raises(ZeroDivisionError):
            told(1, 0)
    fine, failed = (span for span in only_run().spans if span["name"] == "liquid_nn_inference")
    assert fine["status"] == {}
    assert failed["status"] == {"code": 2, "message": "division by zero"}
    assert failed["attributes"]["error.type"] == "ZeroDivisionError"
    (event,) = failed["events"]
    assert event["name"] == "exception"
    assert only_run().metrics[REQUESTS] == {(("device", "cpu"), ("model_type", "divide")): 2}


def test_coroutines_do_not_mix(workshop):
    inference = Inference(model_type="slow")

    @inference
    async def answer(number, others):
        with inference.preprocess([number]):
            others.append(number)
        with inference.forward():
            while len(others) < 3:
                await asyncio.sleep(0)
        return [number]

    async def together():
        others = []
        return await asyncio.gather(*(answer(number, others) for number in range(3)))

    assert asyncio.run(together()) == [[0], [1], [2]]
    inference.close()
    spans = only_run().spans
    roots = {span["spanId"]: span["traceId"] for span in spans if "parentSpanId" not in span}
    assert len(set(roots.values())) == 3
    assert all(span["traceId"] == roots[span["parentSpanId"]] for span in spans if "parentSpanId" in span)
    assert len(spans) == 9


def test_a_block_and_the_trace_of_its_caller(workshop, model):
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Inference(model) as inference, inference.request({"traceparent": caller}) as request:
        with request.forward():
            model(torch.zeros(1, 4))
        trace.get_current_span().set_attribute("own", 7)
    inner, root = only_run().spans
    assert root["traceId"] == inner["traceId"] == "0af7651916cd43dd8448eb211c80319c"
    assert root["parentSpanId"] == "b7ad6b7169203331"
    assert root["attributes"]["own"] == 7
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_providers_of_a_program_come_first(workshop, model):
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    handler = provider.get_tracer("app").start_as_current_span("handler")
    with Inference(model, tracer_provider=provider) as inference, handler:
        classify_with(inference, model)([[0.0] * 4])
    names = [span.name for span in memory.get_finished_spans()]
    assert names == [*STEPS, "liquid_nn_inference", "handler"]
    finished = {span.name: span for span in memory.get_finished_spans()}
    assert finished["liquid_nn_inference"].parent.span_id == finished["handler"].context.span_id
    assert finished["liquid_nn_inference"].instrumentation_scope.name == "liquid_telemetry"
    assert not (only_run().dir / "traces.jsonl").exists()
    assert only_run().manifest["traces"] is None


def test_metrics_in_a_registry_of_ones_own(workshop, model):
    registry = CollectorRegistry()
    with Inference(model, registry=registry) as one, Inference(Tiny(), registry=registry) as other:
        one(model.forward)(torch.zeros(1, 4))
        for _ in range(2):
            other(lambda: None)()
        value = registry.get_sample_value
        assert value("liquid_nn_inference_requests_total", {"model_type": "Linear", "device": "cpu"}) == 1
        assert value("liquid_nn_inference_requests_total", {"model_type": "Tiny", "device": "cpu"}) == 2
        assert value("liquid_nn_inference_duration_seconds_count") == 3
    assert not (workshop / "spool" / "runs").exists()


def test_threads_lose_nothing(workshop, model):
    with Inference(model, traces_per_second=1e9) as inference:
        classify = classify_with(inference, model)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: classify([[0.0] * 4]), range(400)))
    run = only_run()
    assert run.metrics[REQUESTS] == {LINEAR: 400}
    spans = run.spans
    assert len(spans) == 1600
    assert len({span["spanId"] for span in spans}) == 1600
    assert len({span["traceId"] for span in spans}) == 400


def test_traces_are_bounded_and_failing_ones_kept(workshop):
    def fail(wrong):
        if wrong:
            raise LookupError

    with Inference(fail, traces_per_second=3) as inference:
        told = inference(fail)
        for number in range(50):
            if number % 10 == 9:
                with pytest.raises(LookupError):
                    told(True)
            else:
                told(False)
    run = only_run()
    roots = [span for span in run.spans if "parentSpanId" not in span]
    failed = sum("code" in span["status"] for span in roots)
    assert failed == 5
    assert 3 <= len(roots) - failed < 45
    dropped = run.metrics["telemetry_dropped_total"][("reason", "rate"), ("signal", "tracing")]
    assert dropped == 2 * (50 - len(roots))
    assert run.metrics["inference_duration_seconds_count"] == {(): 50}


def test_switched_off_it_leaves_nothing(workshop, model, monkeypatch):
    before = threading.active_count()
    monkeypatch.setenv("LIQUID_TELEMETRY_ENABLED", "0")
    with Inference(model) as inference:
        assert classify_with(inference, model)([[0.0] * 4]) is not None
        with inference.request() as request:
            request.preprocess().set(input_shape="x")
    assert list(workshop.iterdir()) == []
    assert threading.active_count() == before


@pytest.mark.faulty
def test_a_fault_of_ours_does_not_reach_the_program(workshop, model, monkeypatch):
    def broken(*_, **__):
        raise OSError("no disk")

    inference = Inference(model)
    session = inference.session()
    monkeypatch.setattr(session.tracer, "start_span", broken)
    monkeypatch.setattr(session.counts, "request", broken)
    assert classify_with(inference, model)([[0.0] * 4]) is not None
    inference.close()
    assert inference.faults.errors["tracing", "OSError"] > 0
    assert inference.faults.errors["metrics", "OSError"] == 1


@pytest.mark.faulty
def test_without_a_place_to_write_it_still_answers(workshop, model):
    (workshop / "runs").write_text("a file in the way")
    with Inference(model) as inference:
        assert classify_with(inference, model)([[0.0] * 4]) is not None
    assert inference.faults.errors


def test_generators_are_refused_with_a_reason():
    def words():
        yield 1

    with pytest.raises(TypeError, match="words is a generator function"):
        Inference()(words)


def test_copies_and_pickles_begin_anew(workshop, model):
    inference = Inference(model)
    inference(model.forward)(torch.zeros(1, 4))
    for other in (copy.deepcopy(inference), pickle.loads(pickle.dumps(inference))):
        assert other.dir is None
        other(model.forward)(torch.zeros(1, 4))
        other.close()
    inference.close()
    assert [run.metrics[REQUESTS] for run in runs()] == [{LINEAR: 1}] * 3


def test_a_forked_process_has_a_run_of_its_own(workshop):
    done = run_python(FORKING, str(workshop))
    parent, child = json.loads(done.stdout)
    assert parent != child
    counted = {run.run_id: sum(run.metrics[REQUESTS].values()) for run in runs()}
    assert counted == {os.path.basename(parent): 1, os.path.basename(child): 2}  # noqa: PTH119
    assert {run.record["status"] for run in runs()} == {"completed"}


FORKING = """
import json, os, sys
from liquid_telemetry import Inference
from liquid_telemetry.metrics import publish
publish.start_exporter = publish.ensure_exporter = lambda *_: False
inference = Inference(model_type="f")
f = inference(lambda: None)
f()
parent = inference.dir
receive, send = os.pipe()
if os.fork() == 0:
    f(); f()
    os.write(send, inference.dir.encode())
    inference.close()
    os._exit(0)
os.wait()
print(json.dumps([parent, os.read(receive, 1000).decode()]))
"""


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (torch.zeros(2, 3), "[2, 3]"),
        ([[1, 2], [3, 4]], "[2, 2]"),
        ((torch.zeros(1), [1]), "[1], [1]"),
        ({"a": torch.zeros(4), "b": "text"}, "[4]"),
        ("text", None),
        (7, None),
        ([], "[0]"),
    ],
)
def test_shapes(value, shape):
    assert shape_of(value) == shape


def test_open_ones_are_closed_at_exit(workshop, model):
    inference = Inference(model)
    inference(model.forward)(torch.zeros(1, 4))
    helper._close_all()
    assert only_run().record["status"] == "completed"
    assert inference.request().__class__.__name__ == "NoStep"
