"""What is shown while a corpus is scored: tokens a second, share of peak, workers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tokensieve.corpus.store import TokenStore
from tokensieve.reference import progress as module
from tokensieve.reference.progress import ScoringProgress, device_peak, flops_per_token
from tokensieve.reference.workers import Workers, commit_shard

FILES = {".loss.f16": np.zeros(3, "<f2")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands where it is set."""
    moment = [100.0]
    monkeypatch.setattr("tokensieve.reference.progress.time.monotonic", lambda: moment[0])
    return moment


def note(progress: ScoringProgress) -> str:
    return progress._bar.tasks[0].fields["note"]


def test_all_workers_and_finished_shards_count(
    store: TokenStore, tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scores"
    folder.mkdir()
    ours, others = Workers(folder), Workers(folder)
    progress = ScoringProgress(ours, store, None, "float32", title="carrying over")
    with progress, ours.claim("00000") as mine:
        assert mine is not None
        clock[0] += 2
        mine.tell(100)
        progress.show()
        assert progress._bar.tasks[0].completed == 100 and note(progress) == "50 tokens/s"
        with others.claim("00001") as theirs:
            assert theirs is not None
            theirs.tell(200)
            clock[0] += 1
            progress.show()
            assert progress._bar.tasks[0].completed == 300 and note(progress) == "100 tokens/s, 2 workers"
            mine.tell(1)
            clock[0] += 0.9
            progress.show()  # too soon
            assert progress._bar.tasks[0].completed == 300
        commit_shard(folder, "00001", FILES)
    assert progress._bar.tasks[0].completed == store.shards[1].tokens
    assert "carrying over" in capsys.readouterr().err


def test_what_was_done_before_is_no_speed_of_ours(store: TokenStore, tmp_path: Path, clock: list[float]) -> None:
    commit_shard(tmp_path, "00000", FILES)
    with ScoringProgress(Workers(tmp_path), store, None, "float32") as progress:
        clock[0] += 10
        progress.show()
        assert note(progress) == "0 tokens/s"
        assert progress._bar.tasks[0].completed == store.shards[0].tokens


def test_the_share_of_peak_counts_the_devices_at_work(
    store: TokenStore,
    tmp_path: Path,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Callable[[int], PreTrainedModel],
) -> None:
    model = tiny_model(0)
    monkeypatch.setattr(module, "device_peak", lambda device, dtype: flops_per_token(model) * 200.0)
    ours, others = Workers(tmp_path), Workers(tmp_path)
    with ScoringProgress(ours, store, model, "float32") as progress, ours.claim("00000") as mine:
        assert mine is not None
        clock[0] += 2
        mine.tell(100)
        progress.show()
        assert note(progress) == "50 tokens/s, 25% of peak"
        with others.claim("00001"):
            progress.show(now=True)
            assert note(progress) == "50 tokens/s, 12% of peak, 2 workers"


def test_a_clock_that_goes_back_ends_nothing(store: TokenStore, tmp_path: Path, clock: list[float]) -> None:
    with ScoringProgress(Workers(tmp_path), store, None, "float32") as progress:
        clock[0] -= 1_000
        progress.show()
        progress.show(now=True)


def test_the_bar_stops_also_when_the_folder_is_gone(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = ScoringProgress(Workers(tmp_path), store, None, "float32")
    with pytest.raises(OSError), progress:
        monkeypatch.setattr(module, "is_committed", lambda folder, name: (_ for _ in ()).throw(OSError(5, "gone")))
    assert not progress._bar.live.is_started


def test_only_the_first_rank_draws(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    with ScoringProgress(Workers(tmp_path), store, None, "float32") as progress:
        progress.show(now=True)
    assert capsys.readouterr().err == ""


def test_operations_of_a_token_are_two_a_weight_of_its_products(tiny_model: Callable[[int], PreTrainedModel]) -> None:
    model = tiny_model(0)
    # Two layers: q and o are 16 x 16, k and v 16 x 8, gate, up and down 16 x 24; the head 16 x 61.
    products = 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24) + 16 * 61
    assert flops_per_token(model) == 2 * products
    assert sum(p.numel() for p in model.parameters()) > products + 16 * 61 - 1  # the embedding is no product


def test_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = device_peak(torch.device("cpu"), "float32")
    assert measured is not None and 1e8 < measured < 1e14
    assert device_peak(torch.device("meta"), "float32") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    known = device_peak(torch.device("cuda"), "bfloat16")
    assert known is not None and 5e14 < known < 2e15
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Something else")
    assert device_peak(torch.device("cuda"), "bfloat16") is None
