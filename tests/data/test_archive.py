import sys
from pathlib import Path

import pytest
import torch

from liquid_train.data import ArchiveDataModule
from liquid_train.errors import InputError

HEADER = (
    "@problemName x\n@timeStamps false\n@univariate true\n@equalLength true\n@classLabel true a b\n@data\n"
)
ROWS = "1,2,3:a\n2,3,4:b\n3,4,5:a\n4,5,6:b\n"


def write(folder: Path, train: str, test: str | None = None) -> str:
    (folder / "Mine_TRAIN.ts").write_text(train)
    (folder / "Mine_TEST.ts").write_text(train if test is None else test)
    return str(folder / "Mine")


def test_japanese_vowels_has_known_sizes_and_disjoint_parts() -> None:
    data = ArchiveDataModule("JapaneseVowels")
    assert (data.input_size, data.num_classes) == (12, 9)
    assert [len(part) for part in (data.splits.train, data.splits.val, data.splits.test)] == [243, 27, 370]
    assert sorted({len(s.values) for s in data.splits.test})[::19] == [7, 29]
    assert [int(s.target) for s in data.splits.val] == [c for c in range(9) for _ in range(3)]


def test_normalisation_is_fitted_to_the_training_part_alone() -> None:
    splits = ArchiveDataModule("JapaneseVowels").splits
    train = torch.cat([s.values for s in splits.train])
    assert torch.allclose(train.mean(0), torch.zeros(12), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(12), atol=1e-5)
    assert not torch.allclose(torch.cat([s.values for s in splits.test]).mean(0), torch.zeros(12), atol=1e-2)


def test_the_seed_moves_series_between_train_and_validation_but_not_the_test_part() -> None:
    first, again, other = (ArchiveDataModule("BasicMotions", seed=seed).splits for seed in (0, 0, 1))
    assert torch.equal(first.val[0].values, again.val[0].values)
    assert not torch.equal(first.val[0].values, other.val[0].values)
    assert [int(s.target) for s in first.test] == [int(s.target) for s in other.test]


def test_dropped_steps_are_the_same_each_time_and_timed() -> None:
    first, again = (ArchiveDataModule("BasicMotions", drop_rate=0.3).splits for _ in range(2))
    assert {len(s.values) for s in first.train} == {70}
    assert all(torch.equal(a.values, b.values) for a, b in zip(first.test, again.test, strict=True))
    spans = torch.stack([s.timespans for s in first.test if s.timespans is not None])
    assert spans.shape == (40, 70)
    assert spans.min() == 1
    assert spans.sum(1).max() <= 100
    assert len({tuple(row.tolist()) for row in spans}) == 40


def test_regression_has_float_targets_and_their_scale() -> None:
    data = ArchiveDataModule("Covid3Month")
    assert data.num_classes is None
    targets = torch.stack([s.target for s in data.splits.train])
    assert targets.dtype == torch.float32
    assert data.target_scale == pytest.approx((float(targets.mean()), float(targets.std(correction=0))))


def test_a_training_epoch_has_its_own_order_and_no_other_randomness() -> None:
    data = ArchiveDataModule("BasicMotions", batch_size=8)
    before = torch.get_rng_state()
    loader = data.train_dataloader()

    def order(epoch: int) -> list[int]:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return [i for batch in loader for i in batch.targets.tolist()]

    first = order(0)
    assert order(1) != first == order(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_goes_on_after_the_batches_it_handed_out() -> None:
    data = ArchiveDataModule("BasicMotions", batch_size=8)
    loader, resumed = data.train_dataloader(), data.train_dataloader()
    batches = iter(loader)
    seen = [next(batches) for _ in range(2)]
    resumed.load_state_dict(loader.state_dict())  # type: ignore[attr-defined]
    rest = list(resumed)
    assert len(seen) + len(rest) == len(loader) == 5
    for mine, theirs in zip(list(batches), rest, strict=True):
        assert torch.equal(mine.inputs, theirs.inputs)
    assert resumed.state_dict() == {"epoch": 0, "batches": 5}  # type: ignore[attr-defined]
    resumed.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert len(list(resumed)) == 5


def test_own_files(tmp_path: Path) -> None:
    data = ArchiveDataModule(write(tmp_path, HEADER + ROWS), val_fraction=0.5)
    assert (data.input_size, data.num_classes) == (1, 2)
    assert data.splits.classes == ("a", "b")
    assert [len(part) for part in (data.splits.train, data.splits.val, data.splits.test)] == [2, 2, 4]


def test_unknown_names_come_with_close_ones() -> None:
    with pytest.raises(InputError, match=r"^data\.dataset=japanesevowel: .*did you mean JapaneseVowels"):
        ArchiveDataModule("japanesevowel").setup("fit")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (HEADER + "1,?,3:a\n" + ROWS, None, r"Mine_TRAIN\.ts: series 0 has nan at step 1 of channel 0; fill"),
        (HEADER, None, r"Mine_TRAIN\.ts: has no series"),
        ("\x00\x01 not a ts file", None, r"Mine_TRAIN\.ts: has no series"),
        (HEADER + "1,2,3:a\n1,2:b\n", None, r"Mine_TRAIN\.ts: not a valid \.ts file"),
        (
            HEADER + "1,two,3:a\n",
            None,
            r"Mine_TRAIN\.ts: not a valid \.ts file \(ValueError: could not convert",
        ),
        (
            HEADER + ROWS,
            HEADER + "1,2,3:z\n",
            r"Mine_TEST\.ts: class 'z' is not in the training part \(a, b\)",
        ),
        (HEADER + "1,2:a\n2,3:b\n", None, r"leaves 2 series .* for training and 0 for validation"),
        (HEADER.replace("true a b", "false") + "1,2\n", None, "has no class label or target"),
        (
            HEADER + ROWS,
            HEADER.replace("@univariate true", "@univariate false") + "1,2:3,4:a\n",
            r"Mine_TEST\.ts: has 2 channels where .*Mine_TRAIN\.ts has 1",
        ),
        (
            HEADER + ROWS,
            HEADER.replace("@classLabel true a b", "@targetLabel true") + "1,2:0.5\n",
            "@targetlabel must be the same",
        ),
        (HEADER.replace("@timeStamps false", "@timeStamps true") + ROWS, None, "time stamps"),
    ],
)
def test_bad_files_get_one_clear_line(tmp_path: Path, train: str, test: str | None, message: str) -> None:
    data = ArchiveDataModule(write(tmp_path, train, test))
    with pytest.raises(InputError, match=message) as error:
        data.setup("fit")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*Mine_TRAIN\.ts; a path DIR/NAME stands for"):
        ArchiveDataModule(str(tmp_path / "Mine")).setup("fit")
    path = write(tmp_path, HEADER + ROWS)
    (tmp_path / "Mine_TEST.ts").unlink()
    with pytest.raises(InputError, match=r"there is no file .*Mine_TEST\.ts"):
        ArchiveDataModule(path).setup("fit")


def test_a_missing_extra_comes_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(InputError, match=r'pip install "liquid-train\[data\]"$'):
        ArchiveDataModule("JapaneseVowels").setup("fit")
