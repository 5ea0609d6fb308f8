import json
import logging
from pathlib import Path

import psutil
import pytest
import torch
from servers import eventually
from tiny import LIGHTNING_NOISE, workplace

from liquid_telemetry.spool import exporter_address, is_locked, wait_exporter
from liquid_telemetry.testing import swallowed


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for noise in LIGHTNING_NOISE:
                item.add_marker(pytest.mark.filterwarnings(noise))


def pytest_configure(config):
    config.addinivalue_line("markers", "faulty: the telemetry is broken on purpose")


@pytest.fixture(autouse=True)
def nothing_swallowed(request):
    """The guard hides faults from training, not from tests."""
    swallowed.clear()
    yield
    if request.node.get_closest_marker("faulty") is None:
        assert not swallowed


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.ERROR)


@pytest.fixture(autouse=True)
def workshop(request, tmp_path):
    """A private working directory and spool; a real exporter process only with the fixture ``exporter``."""
    with workplace(tmp_path, exporter="exporter" in request.fixturenames):
        yield tmp_path


@pytest.fixture
def exporter(tmp_path, monkeypatch):
    """A real exporter process, quick to act, started by the first run of the test and stopped after it."""
    for name, value in {"POLL": 0.1, "GRACE": 0.5, "HOLD": 60, "LEAVE": 60}.items():
        monkeypatch.setenv(f"LIQUID_TELEMETRY_{name}", str(value))
    served = Exporter(tmp_path / "spool")
    yield served
    served.stop()


class Exporter:
    """The exporter process of a test's spool."""

    def __init__(self, spool):
        self.spool = spool

    @property
    def address(self):
        address = wait_exporter(self.spool, 20)
        assert address is not None, (self.spool / "exporter.stderr").read_text()
        return address

    def totals(self, model):
        """The totals of a model that are not zero, once an outcome has been counted."""

        def read():
            path = self.spool / "counters.json"
            found = json.loads(path.read_text())["totals"] if path.exists() else {}
            counted = {key: total for key, (total, _) in found.get(model, {}).items() if total}
            return counted if counted.keys() - {"started/"} else None

        return eventually(read, 30)

    def stop(self):
        if (address := exporter_address(self.spool)) is not None:
            process = psutil.Process(address.pid)
            process.kill()
            eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
            eventually(lambda: not is_locked(self.spool / "exporter.lock"))  # its threads end after it


@pytest.fixture(scope="module")
def one_thread():
    """A second thread of torch only waits for a busy core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
