import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small tensors: a second thread only waits for a busy core."""
    torch.set_num_threads(1)
