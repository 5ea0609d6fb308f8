"""What a scrape sees of the ranks of a run."""

import pytest

from liquid_telemetry.signals import RANK_METRICS


def publish(process, rank, *values):
    lines = [
        f'# TYPE liquid_nn_{name} gauge\nliquid_nn_{name}{{model_name="CfC",rank="{rank}",stat=""}} {value}'
        for name, value in zip(RANK_METRICS, values, strict=True)
    ]
    process.publish("\n".join([*lines, "# EOF", ""]))


@pytest.fixture
def ranks(trainer):
    """Start ranks of a run and publish: ``ranks({rank: values}, world_size)``."""

    def start(values, world_size, run_id="run"):
        made = {
            rank: trainer(run_id=run_id, rank=rank, world_size=world_size, started=1.0) for rank in values
        }
        for rank, process in made.items():
            publish(process, rank, *values[rank])
        return made

    return start


def test_ranks_are_told_apart(exporter, ranks, labels, wait):
    made = ranks({0: (0.5, 0.1, 0.3), 1: (0.6, 0.2, 0.4)}, 16)
    exporter.start()
    found = exporter.scrape()
    for name, values in zip(RANK_METRICS, ((0.5, 0.6), (0.1, 0.2), (0.3, 0.4)), strict=True):
        assert found[name] == {
            labels(model_name="CfC", rank=str(rank)): value for rank, value in enumerate(values)
        }
    made[1].end("completed")
    wait(lambda: list(exporter.scrape()[RANK_METRICS[0]]) == [labels(model_name="CfC", rank="0")])


def test_of_very_many_ranks_there_are_three_numbers(exporter, ranks, labels):
    ranks({8: (0.5, 0.1, 0.3), 9: (0.7, 0.4, 0.1), 10: (0.6, 0.9, 0.2), 11: (0.6, 0.4, 0.5)}, 17)
    exporter.start()
    found = exporter.scrape()
    for name, values in zip(RANK_METRICS, ((0.5, 0.6, 0.7), (0.1, 0.4, 0.9), (0.1, 0.25, 0.5)), strict=True):
        assert found[name] == {
            labels(model_name="CfC", stat=stat): value
            for stat, value in zip(("min", "median", "max"), values, strict=True)
        }


def test_two_runs_of_a_model_have_slots(exporter, ranks, labels):
    ranks({0: (0.5, 0.1, 0.3)}, 2)
    ranks({0: (0.6, 0.1, 0.3)}, 2, run_id="second")
    exporter.start()
    found = exporter.scrape()[RANK_METRICS[0]]
    assert {dict(key).get("slot") for key in found} == {None, "1"}


def test_a_run_of_two_nodes_is_counted_on_the_first(
    exporter, second_spool, trainer, labels, wait, monkeypatch
):
    trainer(run_id="run", rank=0, world_size=2, node=0)
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(second_spool.spool))
    other = trainer(run_id="run", rank=1, world_size=2, node=1)
    for node in (exporter, second_spool):
        node.start()
        wait(lambda node=node: node.peek()["training_active"] == {labels(model_name="CfC"): 1})
    other.kill()
    wait(lambda: second_spool.peek()["training_job_state"][labels(model_name="CfC", state="failed")] == 1)
    assert (exporter.total("CfC", "started/"), second_spool.total("CfC", "started/")) == (1, 0)
    assert second_spool.total("CfC", "failed/killed") == 0
