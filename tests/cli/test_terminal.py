import logging

import pytest

from liquid_train.cli.terminal import SENDERS, tidy


def test_a_line_of_lightnings_goes_to_the_stderr_that_a_progress_bar_has_put_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tidy()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").info("`Trainer.fit` stopped")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").info("Tip: install a product")
    assert capsys.readouterr().err == "`Trainer.fit` stopped\n"


@pytest.mark.parametrize("sender", SENDERS)
def test_each_kind_of_trouble_with_a_collector_is_told_once(
    sender: str, caplog: pytest.LogCaptureFixture
) -> None:
    tidy()
    logger = logging.getLogger(f"opentelemetry.exporter.otlp.proto.{sender}")
    for pause in (0.9, 2.1):
        logger.warning("Transient error encountered, retrying in %.1fs.", pause)
    logger.error("Failed to export, code: %s", 401)
    assert [record.getMessage() for record in caplog.records] == [
        "Transient error encountered, retrying in 0.9s.",
        "Failed to export, code: 401",
    ]
