"""POST /predict: the numbers of trainer.predict, together or alone, and clear refusals."""

import gc
import json
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from serving import asked, serving
from tiny import LIGHTNING_NOISE, trainer
from torch.utils.data import DataLoader

from liquid_train.data import XorDataModule
from liquid_train.data.batch import collate
from liquid_train.serve.model import Model, groups
from liquid_train.tasks.load import load_task

pytestmark = [pytest.mark.filterwarnings(noise) for noise in LIGHTNING_NOISE]


def as_json(series):
    """Whole series of the test part as a request has them."""
    return asked(
        [one.values.tolist() for one in series],
        [one.timespans.tolist() for one in series] if series[0].timespans is not None else None,
    )


@pytest.fixture(scope="module")
def test_part():
    return XorDataModule(train_size=10, val_size=10, test_size=50).splits.test


def test_the_numbers_of_trainer_predict(classifier, test_part):
    task = load_task(classifier, "ckpt").task
    expected = trainer().predict(task, DataLoader(test_part, batch_size=16, collate_fn=collate))
    with serving(classifier) as served:
        answer = served.client.post("/predict", json=as_json(test_part)).json()
    np.testing.assert_allclose(answer["outputs"], torch.cat(expected), rtol=1e-5, atol=1e-6)
    assert (answer["kind"], answer["model"]) == ("probabilities", "LiquidClassifier")


def test_values_of_a_regressor(regressor):
    task = load_task(regressor, "ckpt").task
    with serving(regressor) as served:
        answer = served.client.post("/predict", json=asked([[[1, 2], [3, 4.5]], [[0, -1]]])).json()
        padded = served.client.post(
            "/predict", json=asked([[[1, 2], [3, 4.5], [9, 9]]], [[1, 1, 0]], [2])
        ).json()
    one = task.predict(task.network(collate_of([[1, 2], [3, 4.5]]))).tolist()
    assert answer["kind"] == "values"
    assert answer["outputs"][0] == pytest.approx(one, rel=1e-5)
    assert padded["outputs"][0] == pytest.approx(one, rel=1e-5)


def collate_of(values):
    from liquid_train.serve.model import series_of

    return collate([series_of(values, None)])


def test_requests_share_batches_and_are_answered_as_if_alone(classifier, test_part):
    sizes = []
    begin = threading.Event()

    def change(model):
        plain = model.predict

        def predict(series, most):
            begin.wait(20)
            sizes.append(len(series))
            return plain(series, most)

        model.predict = predict

    bodies = [as_json(test_part[at : at + 1 + at % 3]) for at in range(24)]
    alone = Model.load(str(classifier))
    with serving(classifier, change, batch=16) as served, ThreadPoolExecutor(24) as pool:
        asked_for = [
            pool.submit(httpx.post, f"{served.url}/predict", json=body, timeout=60) for body in bodies
        ]
        while served.server.config.app.requests < 24:
            begin.wait(0.01)
        begin.set()
        answers = [one.result().json()["outputs"] for one in asked_for]
    for at, outputs in enumerate(answers):
        expected = alone.predict(test_part[at : at + 1 + at % 3], 1)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert sum(sizes) == sum(1 + at % 3 for at in range(24))
    assert max(sizes) > 8
    assert max(sizes) <= 16


def test_one_that_fails_does_not_fail_the_others(classifier):
    def change(model):
        plain = model.predict

        def predict(series, most):
            if any(len(one.values) == 13 for one in series):
                raise RuntimeError("thirteen")
            return plain(series, most)

        model.predict = predict

    def post(url, length):
        return httpx.post(f"{url}/predict", json=asked([[[0.5]] * length]), timeout=30).status_code

    with serving(classifier, change, wait=0.2) as served, ThreadPoolExecutor(8) as pool:
        found = [pool.submit(post, served.url, length) for length in (1, 13, 2, 13, 3, 4)]
        assert [one.result() for one in found] == [200, 500, 200, 500, 200, 200]
        said = served.client.get("/metrics").text
    assert 'liquid_nn_api_calls_total{endpoint="/predict",method="POST",status="500"} 2.0' in said


def test_what_a_failed_batch_held_is_let_go_at_once(classifier):
    """Not when the garbage collector comes by: it may be the memory that the next request needs."""
    gone = threading.Event()

    def change(model):
        def predict(series, most):
            held = torch.zeros(1000)
            weakref.finalize(held, gone.set)
            raise RuntimeError("no memory")

        model.predict = predict

    with serving(classifier, change) as served:
        gc.collect()
        gc.disable()
        try:
            assert served.client.post("/predict", json=asked([[[1]]])).status_code == 500
            assert gone.is_set()
        finally:
            gc.enable()


def test_like_lengths_go_together():
    assert list(groups([5, 1, 9, 2, 10, 1], 2)) == [[1, 5], [3], [0, 2], [4]]
    assert list(groups([4, 8, 9], 9)) == [[0, 1], [2]]
    assert list(groups([], 4)) == []


@pytest.fixture(scope="module")
def served(classifier, tmp_path_factory):
    with serving(
        classifier, payload=20_000, series=4, steps=20, dir=str(tmp_path_factory.mktemp("runs"))
    ) as one:
        yield one


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("nonsense", 400, "the body is not JSON: Expecting value at character 0"),
        ('{"values": ', 400, "the body is not JSON: Expecting value at character 11"),
        ("[" * 10_000, 400, "There was an error parsing the body"),
        ('{"values": [[[NaN]]]}', 422, "values.0.0.0: Input should be a finite number"),
        ('{"values": [[[-Infinity]]]}', 422, "values.0.0.0: Input should be a finite number"),
        ('{"values": [[[1e999]]]}', 422, "values.0.0.0: Input should be a finite number"),
        ('{"values": [[[1e39]]]}', 422, "values.0.0.0: Input should be less than or equal to"),
        ('{"values": [[["1"]]]}', 422, "values.0.0.0: Input should be a valid number"),
        ('{"values": [[[true]]]}', 422, "values.0.0.0: Input should be a valid number"),
        ('{"values": []}', 422, "values: List should have at least 1 item"),
        ('{"values": [[]]}', 422, "values.0: List should have at least 1 item"),
        ('{"values": [[[1, 2]]]}', 422, "values.0.0: 2 channels, the model has 1"),
        ('{"values": [[[1]], [[1], []]]}', 422, "values.1.1: 0 channels, the model has 1"),
        ('{"values": [[[1]]], "lengths": [2]}', 422, "lengths.0: 2 of 1 steps"),
        ('{"values": [[[1]]], "lengths": [0]}', 422, "lengths.0: Input should be greater than or equal to 1"),
        ('{"values": [[[1]]], "lengths": [1, 1]}', 422, "lengths: 2 of them for 1 series"),
        ('{"values": [[[1]]], "timespans": [[1, 1]]}', 422, "timespans.0: 2 time spans for 1 steps"),
        ('{"values": [[[1]]], "timespans": [[-1]]}', 422, "timespans.0.0: Input should be greater"),
        ('{"values": [[[1]]], "extra": 1}', 422, "extra: Extra inputs are not permitted"),
        (json.dumps(asked([[[1]]] * 5)), 422, "values: 5 series, at most 4 in one request"),
        (json.dumps(asked([[[1]] * 21])), 422, "values.0: 21 steps, at most 20"),
        ("x" * 20_001, 413, "the body is larger than 20000 bytes"),
        ("{}", 422, "values: Field required"),
    ],
)
def test_a_refusal_says_where_and_why(served, body, status, error):
    answer = served.client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert error in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_other_refusals(served):
    plain = served.client.post(
        "/predict", content='{"values": [[[1]]]}', headers={"content-type": "text/plain"}
    )
    assert (plain.status_code, plain.json()["error"]) == (
        415,
        "the body must be JSON: Content-Type: application/json",
    )
    chunked = served.client.post(
        "/predict", content=(b"x" * 9_000 for _ in range(4)), headers={"content-type": "application/json"}
    )
    assert chunked.status_code == 413
    wrong = served.client.get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    missing = served.client.get("/docs")
    assert (missing.status_code, missing.json()["error"][:12]) == (404, "no such path")


def test_an_outcome_that_is_not_finite_is_the_requests_fault(classifier):
    def change(model):
        model.predict = lambda series, most: [[float("nan")]] * len(series)

    with serving(classifier, change) as served:
        answer = served.client.post("/predict", json=asked([[[1]]]))
    assert answer.status_code == 422
    assert answer.json()["error"] == "values: the network's output for them is not finite"
