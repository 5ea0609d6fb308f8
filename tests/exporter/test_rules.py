"""The exporter's rules, without a process: hold, outcome, sums."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liquid_telemetry.exporter import sums
from liquid_telemetry.exporter.exit_status import Exit
from liquid_telemetry.exporter.ledger import KEYS, Ledger
from liquid_telemetry.exporter.outcome import Outcome, decide
from liquid_telemetry.exporter.sums import Sums
from liquid_telemetry.spool import RunRecord

FAILED = ("failed", "unknown")


def scrape(ledger, now):
    ledger.reveal(now)
    receipt = ledger.shown()
    ledger.acknowledge(receipt)
    return receipt["CfC", FAILED]


def open_ledger():
    ledger = Ledger(hold=60)
    ledger.open("CfC")
    return ledger


def test_new_value_waits_for_the_old_to_be_received():
    ledger = open_ledger()
    ledger.add("CfC", FAILED, 0)
    assert [scrape(ledger, now) for now in (1, 2, 3)] == [0, 1, 1]
    ledger.add("CfC", FAILED, 4)
    assert [scrape(ledger, now) for now in (5, 6)] == [2, 2]


def test_burst_is_shown_as_one_rise():
    ledger = open_ledger()
    scrape(ledger, 0)
    for now in (1, 2, 3):
        ledger.add("CfC", FAILED, now)
        ledger.reveal(now)
    assert [scrape(ledger, now) for now in (4, 5)] == [1, 3]


def test_hold_counts_from_the_new_value():
    ledger = open_ledger()
    ledger.add("CfC", FAILED, 100)
    assert not ledger.reveal(159.9)
    assert ledger.shown()["CfC", FAILED] == 0
    assert ledger.reveal(160)
    assert ledger.shown()["CfC", FAILED] == 1


def test_receipt_of_an_older_value_does_not_count():
    ledger = open_ledger()
    old = ledger.shown()
    ledger.acknowledge(old)
    ledger.add("CfC", FAILED, 1)
    ledger.reveal(1)
    ledger.acknowledge(old)
    assert not ledger.settled("CfC")
    ledger.acknowledge(ledger.shown())
    assert ledger.settled("CfC")


def test_awaiting_ends_with_the_scrape_or_with_time():
    ledger = open_ledger()
    assert not ledger.awaiting(0, 300)
    ledger.add("CfC", FAILED, 10)
    assert ledger.awaiting(309, 300)
    assert not ledger.awaiting(310, 300)
    assert (scrape(ledger, 20), ledger.awaiting(20, 300)) == (0, True)
    assert (scrape(ledger, 21), ledger.awaiting(21, 300)) == (1, False)


def test_next_exporter_begins_with_what_was_shown():
    ledger = open_ledger()
    scrape(ledger, 0)
    ledger.add("CfC", FAILED, 1)
    ledger.reveal(1)
    ledger.add("CfC", FAILED, 2)
    following = Ledger(hold=60)
    following.load(json.loads(json.dumps(ledger.dump())), 0)
    assert [scrape(following, now) for now in (1, 2, 3)] == [1, 2, 2]


@given(st.lists(st.sampled_from(["add", "scrape", "peek", "wait", "restart"]), max_size=60))
def test_every_rise_has_a_value_before_it(steps):
    """Whatever happens, scrapes see 0 first and never miss, lose or invent a count."""
    ledger, now, added, seen = open_ledger(), 0.0, 0, []
    for step in steps:
        now += 1
        if step == "add":
            ledger.add("CfC", FAILED, now)
            added += 1
        elif step == "scrape":
            seen.append(scrape(ledger, now))
        elif step == "peek":
            ledger.reveal(now)
        elif step == "restart":
            dumped = ledger.dump()
            ledger = Ledger(hold=1e9)
            ledger.load(dumped, now)
    ledger.hold = 1e9
    seen += [scrape(ledger, now), scrape(ledger, now)]
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[-1] == added


def test_series_of_a_model():
    assert KEYS[:3] == (("started", ""), ("completed", ""), ("failed", "exception"))
    assert len(KEYS) == len(set(KEYS)) == 12


def rank(
    status, *, number=0, alive=True, ended=None, end=None, seen=(None, None), oom=False, at=None, **record
):
    record = RunRecord("run", "CfC", status=status, ended=ended, **record)
    process = SimpleNamespace(
        exit=end, settled=True, out_of_memory=oom, ended=at, seen_alive=seen[0], seen_gone=seen[1]
    )
    died, over = not alive and not record.final, not alive or record.final
    return SimpleNamespace(record=record, process=process, died=died, over=over, number=number)


RUNNING, DEAD = rank("running"), rank("running", alive=False)
COMPLETED, TUNED = rank("completed"), rank("tuned")
RAISED = rank("failed", reason="exception", ended=2.0)
CTRL_C = rank("interrupted", reason="user")
DIED = Outcome("failed", "unknown", died=0)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([RUNNING], None),
        ([COMPLETED], Outcome("completed")),
        ([TUNED], None),
        ([COMPLETED, RUNNING], None),
        ([COMPLETED, TUNED], Outcome("completed")),
        ([DEAD], DIED),
        ([COMPLETED, DEAD], DIED),
        ([RAISED, RUNNING], Outcome("failed", "exception")),
        ([RAISED, DEAD], Outcome("failed", "exception")),
        ([RAISED, CTRL_C], Outcome("failed", "exception")),
        ([RAISED, rank("failed", reason="out_of_memory", ended=1.0)], Outcome("failed", "out_of_memory")),
        ([CTRL_C, RUNNING], Outcome("interrupted", "user")),
        ([CTRL_C, DEAD], Outcome("interrupted", "user")),
        ([rank("interrupted", reason="terminated"), COMPLETED], Outcome("interrupted", "terminated")),
        ([rank("failed", reason="of tomorrow")], Outcome("failed", "unknown")),
        ([rank("running", alive=False, reason="stalled")], Outcome("failed", "stalled", died=0)),
    ],
)
def test_outcome(ranks, expected):
    assert decide(ranks, waited=False) == expected


def test_a_dead_rank_waits_for_the_living():
    assert decide([DEAD, RUNNING], waited=False) is None
    assert decide([DEAD, RUNNING], waited=True) == DIED


def died(end, **options):
    return rank("running", alive=False, end=end, **options)


@pytest.mark.parametrize(
    ("dead", "expected"),
    [
        (died(Exit(code=0)), ("failed", "exited")),
        (died(Exit(code=3)), ("failed", "exited")),
        (died(Exit(code=130)), ("interrupted", "user")),
        (died(Exit(code=143)), ("interrupted", "terminated")),
        (died(Exit(code=1)), ("failed", "exited")),
        (died(Exit(code=1), spawned=True), ("failed", "exception")),
        (died(Exit(code=0), spawned=True, reason="user"), ("interrupted", "user")),
        (died(Exit(signal=2)), ("interrupted", "user")),
        (died(Exit(signal=15)), ("interrupted", "terminated")),
        (died(Exit(signal=1)), ("failed", "killed")),
        (died(Exit(signal=9)), ("failed", "killed")),
        (died(Exit(signal=9), oom=True), ("failed", "out_of_memory")),
        (died(Exit(signal=15), oom=True), ("interrupted", "terminated")),
        (died(Exit(signal=40)), ("failed", "killed")),
        *((died(Exit(signal=number)), ("failed", "crashed")) for number in (4, 6, 7, 8, 11)),
        (died(None), ("failed", "unknown")),
    ],
)
def test_cause_of_death(dead, expected):
    outcome = decide([dead], waited=True)
    assert (outcome.kind, outcome.reason, outcome.died) == (*expected, 0)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (Exit(signal=9), "stalled"),
        (Exit(signal=6), "stalled"),
        (Exit(code=1), "stalled"),
        (None, "stalled"),
        (Exit(signal=11), "crashed"),
        (Exit(signal=15), "terminated"),
    ],
)
def test_an_end_while_stalled(end, expected):
    assert decide([died(end)], waited=True, stalled=True).reason == expected


def test_a_kill_for_want_of_memory_while_stalled():
    assert decide([died(Exit(signal=9), oom=True)], waited=True, stalled=True).reason == "out_of_memory"


SEGFAULT, KILL, TERM = Exit(signal=11), Exit(signal=9), Exit(signal=15)


@pytest.mark.parametrize(
    ("said", "dead", "expected"),
    [
        (("failed", "exception", 5.0), died(KILL, seen=(4.0, 6.0)), "exception"),
        (("failed", "exception", 5.0), died(KILL, seen=(4.0, 4.5)), "killed"),
        (("failed", "exception", 5.0), died(KILL, seen=(5.5, 6.0)), "exception"),
        (("failed", "exception", 5.0), died(KILL, seen=(4.0, 6.0), oom=True), "out_of_memory"),
        (("failed", "exception", 5.0), died(SEGFAULT, seen=(4.0, 6.0)), "crashed"),
        (("failed", "exception", 5.0), died(SEGFAULT, seen=(5.5, 6.0)), "exception"),
        (("failed", "exception", 5.0), died(SEGFAULT), "exception"),
        (("failed", "exception", 5.0), died(Exit(code=3), seen=(4.0, 6.0)), "exited"),
        (("failed", "exception", 5.0), died(Exit(signal=6), seen=(4.0, 6.0)), "exception"),
        (("failed", "exception", 5.0), died(KILL, at=4.99), "killed"),
        (("failed", "exception", 5.0), died(KILL, at=5.01), "killed"),
        (("failed", "exception", 5.0), died(KILL, at=5.2), "exception"),
        (("failed", "exception", 5.0), died(SEGFAULT, at=5.2, seen=(4.0, 6.0)), "exception"),
        (("failed", "exception", None), died(KILL, at=4.99), "exception"),
        (("interrupted", "terminated", 5.0), died(SEGFAULT, seen=(4.0, 6.0)), "crashed"),
        (("interrupted", "terminated", 5.0), died(KILL, seen=(4.0, 6.0)), "terminated"),
        (("interrupted", "user", 5.0), died(SEGFAULT, seen=(4.0, 4.5)), "user"),
    ],
)
def test_what_came_first_decides(said, dead, expected):
    status, reason, ended = said
    assert decide([rank(status, reason=reason, ended=ended, number=1), dead], waited=False).reason == expected


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([died(TERM, seen=(1, 2)), died(Exit(code=1), number=1, seen=(1, 2))], 1),
        ([died(KILL, seen=(1, 3)), died(KILL, number=1, seen=(1, 2))], 1),
        ([died(KILL, seen=(1, 2)), died(KILL, number=1, seen=(1, 2))], 0),
        ([died(Exit(code=1)), died(TERM, number=1, reason="exception")], 1),
    ],
)
def test_the_rank_that_others_did_not_end_decides(ranks, expected):
    assert decide(ranks, waited=True).died == expected


def test_what_is_not_known_yet_is_waited_for():
    dead = died(None)
    dead.process.settled = False
    assert decide([dead], waited=False) is None
    assert decide([dead], waited=True).reason == "unknown"
    spawned = died(Exit(code=1), spawned=True)
    assert decide([spawned], waited=False) is None
    told = died(Exit(code=1), number=1, spawned=True, reason="exception")
    assert decide([spawned, told], waited=False).died == 1


@pytest.mark.parametrize(
    ("dead", "text"),
    [
        (died(KILL, epoch=3, batch=41), "killed by signal 9 (SIGKILL) in epoch 3, batch 41"),
        (died(KILL, oom=True, epoch=3), "killed by signal 9 (SIGKILL), out of memory in epoch 3"),
        (died(Exit(code=3)), "exited with code 3"),
        (died(Exit(signal=40)), "killed by signal 40 (signal 40)"),
        (died(None), "the process ended without a word"),
        (rank("failed", error_type="ValueError", error_message="a\nb", epoch=0), "ValueError: a b in epoch 0"),
        (rank("interrupted", reason="user"), "interrupted (user)"),
    ],
)  # fmt: skip
def test_an_end_in_words(dead, text):
    assert decide([dead], waited=True).text == text


ERRORS = ("errors_total", (("reason", "X"),))


def test_sums_add_sources_and_see_a_new_beginning():
    total = Sums()
    total.observe("a", [(ERRORS, 3)])
    total.observe("b", [(ERRORS, 2)])
    assert total.totals() == {ERRORS: 5}
    total.observe("a", [(ERRORS, 4)])
    assert total.totals() == {ERRORS: 6}
    total.observe("a", [(ERRORS, 1)])
    assert total.totals() == {ERRORS: 7}


def test_old_sources_are_folded_live_ones_never(monkeypatch):
    monkeypatch.setattr(sums, "MAX_SOURCES", 2)
    total = Sums()
    for source in "abcd":
        total.observe(source, [(ERRORS, 1)])
    total.fold(live=["a"])
    assert len(total.dump()["sources"]) == 2
    assert "a" in total.dump()["sources"]
    assert total.totals() == {ERRORS: 4}
    total.observe("a", [(ERRORS, 2)])
    assert total.totals() == {ERRORS: 5}


def test_sums_survive_json():
    total, following = Sums(), Sums()
    total.observe("a", [(ERRORS, 3)])
    total.add(ERRORS, 2)
    following.load(json.loads(json.dumps(total.dump())))
    assert following.totals() == {ERRORS: 5}
    following.observe("a", [(ERRORS, 4)])
    assert following.totals() == {ERRORS: 6}


def test_sums_refuse_too_many_series(monkeypatch):
    monkeypatch.setattr(sums, "MAX_SERIES", 1)
    total = Sums()
    total.observe("a", [(ERRORS, 1), (("other_total", ()), 1)])
    assert (total.totals(), total.refused) == ({ERRORS: 1}, 1)
