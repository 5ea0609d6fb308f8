"""Runs that differ from the earlier runs of their model, by medians, which one odd run does not move."""

from __future__ import annotations

from typing import Any

from liquid_train.logs.store import Store

EARLIER, FEWEST = 20, 3
"""Earlier runs that a run is compared with at most, and at least."""
FAR = 3.5
"""Median absolute deviations, scaled to a normal distribution's standard deviation, from which a value is odd."""
LEAST = 0.1
"""Share of the median by which a value must differ besides: runs that agree closely have a tiny deviation."""
_MOST = 1000


def anomalies(store: Store) -> list[dict[str, Any]]:
    """Return what is odd about the runs of the chosen lines, the newest first.

    Compared are the median duration of an epoch (longer), the training loss at the last epoch that at least
    ``FEWEST`` earlier runs reached as well (higher), and the end (failed, where those all completed). The earlier runs
    are the last ``EARLIER`` of the model in everything that was read, whatever was chosen.
    """
    for query in (_RUNS, _EPOCHS, _EARLIER):
        store.db.execute(query)
    return store.rows(_ODD, _MOST)


_RUNS = """
CREATE OR REPLACE TEMP TABLE run_times AS
SELECT run, arg_min(model, time) AS model, min(time) AS began,
    median(duration) FILTER (event = 'training_epoch_completed') AS seconds,
    max(epoch) FILTER (event = 'training_epoch_completed' AND loss IS NOT NULL) AS last_epoch,
    arg_max(event, time) FILTER (event IN ('training_completed', 'training_interrupted', 'training_failed')) AS ending
FROM lines WHERE ok AND run IS NOT NULL AND time IS NOT NULL GROUP BY run HAVING model IS NOT NULL
"""

_EPOCHS = """
CREATE OR REPLACE TEMP TABLE run_epochs AS
SELECT run, epoch, avg(loss) AS loss FROM lines
WHERE ok AND event = 'training_epoch_completed' AND epoch IS NOT NULL AND loss IS NOT NULL GROUP BY run, epoch
"""

_EARLIER = f"""
CREATE OR REPLACE TEMP TABLE earlier AS
WITH ranked AS (SELECT *, row_number() OVER (PARTITION BY model ORDER BY began, run) AS place FROM run_times)
SELECT later.run, later.model, later.began, later.seconds, later.last_epoch, later.ending,
    earlier.run AS earlier_run, earlier.last_epoch AS earlier_epoch,
    earlier.seconds AS earlier_seconds, earlier.ending AS earlier_ending
FROM ranked AS later JOIN ranked AS earlier
    ON later.model = earlier.model AND earlier.place BETWEEN later.place - {EARLIER} AND later.place - 1
"""  # noqa: S608

_ODD = f"""
WITH seconds AS (
    SELECT run, model, began, 'epoch_seconds' AS what, NULL::BIGINT AS epoch, seconds AS value,
        median(earlier_seconds) AS expected, mad(earlier_seconds) AS deviation, count(earlier_seconds) AS earlier_runs
    FROM earlier WHERE seconds IS NOT NULL GROUP BY ALL
), shared AS (
    SELECT run, model, began, least(last_epoch, list_sort(list(earlier_epoch), 'DESC')[{FEWEST}]) AS epoch
    FROM earlier WHERE last_epoch IS NOT NULL AND earlier_epoch IS NOT NULL GROUP BY run, model, began, last_epoch
), losses AS (
    SELECT shared.run, shared.model, shared.began, 'loss' AS what, shared.epoch, mine.loss AS value,
        median(theirs.loss) AS expected, mad(theirs.loss) AS deviation, count(*) AS earlier_runs
    FROM shared JOIN run_epochs AS mine ON shared.run = mine.run AND shared.epoch = mine.epoch
        JOIN earlier ON earlier.run = shared.run
        JOIN run_epochs AS theirs ON earlier.earlier_run = theirs.run AND shared.epoch = theirs.epoch
    GROUP BY ALL
), failures AS (
    SELECT run, model, began, 'failed' AS what, NULL::BIGINT AS epoch, NULL::DOUBLE AS value,
        NULL::DOUBLE AS expected, NULL::DOUBLE AS deviation, count(*) AS earlier_runs
    FROM earlier WHERE ending = 'training_failed' GROUP BY ALL
    HAVING bool_and(coalesce(earlier_ending = 'training_completed', false))
), every AS (
    SELECT * FROM (SELECT * FROM seconds UNION ALL SELECT * FROM losses)
    WHERE value > expected + greatest({FAR} * 1.4826 * deviation, {LEAST} * abs(expected))
    UNION ALL SELECT * FROM failures
)
SELECT run AS run_id, model, began, what, epoch, value, expected, deviation, earlier_runs FROM every
WHERE earlier_runs >= {FEWEST} AND run IN (SELECT DISTINCT run FROM chosen)
ORDER BY began DESC, run, what LIMIT ?
"""  # noqa: S608
