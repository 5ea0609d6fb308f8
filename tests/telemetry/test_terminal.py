"""What a person sees of the events on a terminal."""

from __future__ import annotations

from liquid_telemetry.logs.terminal import Terminal

STAMP = {"timestamp": "2026-11-24T07:27:26.123456Z", "level": "info"}


def show(*events: dict[str, object], times: tuple[float, ...] = (0.0,)) -> list[str]:
    lines: list[str] = []
    clock = iter(times)
    terminal = Terminal(lines.append, lambda: next(clock))
    for event in events:
        terminal.show({**STAMP, **event})
    return lines


def test_an_epoch_is_one_short_line() -> None:
    event = {
        "event": "training_epoch_completed",
        "epoch": 3,
        "loss": 0.123456,
        "val_accuracy": None,
        "phases": {"data": 1.0},
    }
    (line,) = show(event)
    assert line.split() == ["07:27:26", "[info]", "training_epoch_completed", "epoch=3", "loss=0.1235"]


def test_epochs_are_shown_at_most_once_a_second() -> None:
    events = [{"event": "training_epoch_completed", "epoch": epoch} for epoch in range(4)]
    lines = show(*events, times=(10.0, 10.9, 11.0, 11.5))
    assert [line.split()[-1] for line in lines] == ["epoch=0", "epoch=2"]


def test_what_belongs_to_the_file_is_not_shown() -> None:
    assert (
        show(
            {"event": "checkpoint_saved", "path": "a"},
            {"event": "validation_completed", "stage": "validation"},
        )
        == []
    )
    assert len(show({"event": "validation_completed", "stage": "test", "accuracy": 0.97})) == 1


def test_a_failure_names_its_cause_and_place() -> None:
    event = {
        "event": "training_failed",
        "reason": "exception",
        "error_type": "ValueError",
        "error_message": "no",
        "epoch": 2,
    }
    (line,) = show({**event, "traceback": "Traceback ..."})
    assert line.split()[2:] == [
        "training_failed",
        "reason=exception",
        "error_type=ValueError",
        "error_message=no",
        "epoch=2",
    ]


def test_the_last_epoch_is_shown_before_the_end_of_the_run() -> None:
    epochs = [{"event": "training_epoch_completed", "epoch": epoch} for epoch in range(3)]
    lines = show(*epochs, {"event": "training_completed", "epochs": 3}, times=(0.0, 0.1, 0.2))
    assert [line.split()[2:] for line in lines] == [
        ["training_epoch_completed", "epoch=0"],
        ["training_epoch_completed", "epoch=2"],
        ["training_completed", "epochs=3"],
    ]
