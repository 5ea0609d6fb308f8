"""The points of a run on disk."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest

from liquid_telemetry.live.history import History, read
from liquid_telemetry.live.points import MAX_POINTS


@pytest.fixture
def background():
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def open_history(tmp_path, background):
    def build(**options):
        errors = []
        history = History(tmp_path / "history.jsonl", background, errors.append)
        history.errors = errors
        settle(history, background)
        return history

    return build


def settle(history, background):
    background.submit(int).result()
    assert history.settled


def fill(history, background, times):
    for time in times:
        history.add({"time": float(time), "loss": 1.0 / (time + 1)})
        settle(history, background)


def test_every_point_that_stays_is_written_as_it_comes(open_history, background, tmp_path):
    history = open_history()
    fill(history, background, [0, 1, 1.5])
    assert list(read(tmp_path / "history.jsonl").times) == [0, 1]
    history.finish()
    settle(history, background)
    assert list(read(tmp_path / "history.jsonl").times) == [0, 1, 1.5]
    assert history.errors == []


def test_another_exporter_goes_on(open_history, background, tmp_path):
    fill(open_history(), background, range(10))
    later = open_history()
    before = later.points.version
    fill(later, background, [20, 21])
    assert list(later.points.times) == [*range(10), 20, 21]
    assert later.points.version > before
    assert list(read(tmp_path / "history.jsonl").times) == [*range(10), 20, 21]


class AtOnce(Executor):
    """Runs a task before it is back."""

    def submit(self, task, *arguments):
        done = Future()
        done.set_result(task(*arguments))
        return done


def test_file_that_is_read_at_once_is_not_forgotten(open_history, background, tmp_path):
    fill(open_history(), background, range(5))
    later = History(tmp_path / "history.jsonl", AtOnce(), pytest.fail)
    later.add({"time": 10.0})
    assert list(later.points.times) == [*range(5), 10]


def test_what_is_added_while_the_file_is_read_comes_after_it(open_history, background, tmp_path):
    fill(open_history(), background, range(5))
    later = History(tmp_path / "history.jsonl", background, pytest.fail)
    later.add({"time": 10.0})
    settle(later, background)
    fill(later, background, [11])
    assert list(later.points.times) == [*range(5), 10, 11]
    assert list(read(tmp_path / "history.jsonl").times) == [*range(5), 10, 11]


def test_file_stays_bounded(open_history, background, tmp_path):
    history = open_history()
    fill(history, background, range(3 * MAX_POINTS))
    history.finish()
    settle(history, background)
    written = (tmp_path / "history.jsonl").read_text().splitlines()
    assert len(written) <= MAX_POINTS + 1
    assert list(read(tmp_path / "history.jsonl").times) == list(history.points.times)


def test_deleted_file_is_written_whole_again(open_history, background, tmp_path):
    history = open_history()
    fill(history, background, range(3))
    (tmp_path / "history.jsonl").unlink()
    fill(history, background, [3, 4])
    assert list(read(tmp_path / "history.jsonl").times) == [0, 1, 2, 3, 4]


def test_deleted_folder_stays_deleted(background, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    history = History(folder / "history.jsonl", background, pytest.fail)
    settle(history, background)
    fill(history, background, range(3))
    (folder / "history.jsonl").unlink()
    folder.rmdir()
    fill(history, background, range(3, 6))
    assert not folder.exists()
    assert list(history.points.times) == [0, 1, 2, 3, 4, 5]


def test_what_went_wrong_is_told(background, tmp_path):
    errors = []
    (tmp_path / "history.jsonl").mkdir()
    history = History(tmp_path / "history.jsonl", background, errors.append)
    settle(history, background)
    fill(history, background, range(2))
    assert {type(error) for error in errors} == {IsADirectoryError}


def test_executor_that_has_ended_is_no_error(tmp_path):
    pool = ThreadPoolExecutor(1)
    history = History(tmp_path / "history.jsonl", pool, pytest.fail)
    pool.shutdown(wait=True)
    history.add({"time": 1.0})
    assert history.settled
    assert list(history.points.times) == [1]
