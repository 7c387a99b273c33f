"""Selection over all ranks: two gloo processes choose what one process chooses on the joined batch.

One pair of processes runs every case, so that a rank left waiting in one of them shows as a time-out.
"""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokensieve.selection import Part, SelectionPolicy, TokenColumns, apply_policy

POLICIES = {
    "excess": SelectionPolicy(ratio=0.6),
    "random": SelectionPolicy("random", 0.3, seed=5),
    "union": SelectionPolicy("union", 0.5, parts=(Part("reference_loss", 0.3), Part("current_loss", 0.4))),
    "blend": SelectionPolicy(ratio=0.6, alpha=0.5),
    "soft": SelectionPolicy(ratio=0.6, temperature=0.7),
    "document": SelectionPolicy(ratio=0.6, scope="document"),
}
# Rows of rank 0; rank 1 holds the rest of the four.
SPLITS = {"three and one": 3, "two and two": 2, "none and four": 0, "four and none": 4}
CANDIDATES = {"some everywhere": slice(0, 0), "none on one rank": slice(3, 4), "none at all": slice(0, 4)}


def batch(candidates: str) -> tuple[TokenColumns, Tensor]:
    """Columns with many ties, and candidates: [4, 10]."""
    generator = torch.Generator().manual_seed(len(candidates))
    loss, reference = (torch.randint(0, 4, (4, 10), generator=generator).float() for _ in range(2))
    valid = torch.rand(4, 10, generator=generator) < 0.7
    valid[CANDIDATES[candidates]] = False
    documents = torch.randint(0, 2, (4, 10), generator=generator)
    index = torch.arange(40).view(4, 10)
    return TokenColumns(loss=loss, reference_loss=reference, token_index=index, document_ids=documents), valid


def rows_of(columns: TokenColumns, valid: Tensor, rows: slice) -> tuple[TokenColumns, Tensor]:
    return TokenColumns(**{name: None if c is None else c[rows] for name, c in vars(columns).items()}), valid[rows]


def with_nan_in_row_0() -> tuple[TokenColumns, Tensor]:
    columns, _ = batch("some everywhere")
    loss = columns.loss.clone()
    loss[0, 3] = torch.nan
    return TokenColumns(**(vars(columns) | {"loss": loss})), torch.ones(4, 10, dtype=torch.bool)


def one_rank(rank: int, folder: Path) -> None:
    """What each process runs: its own rows of every case."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results: dict[str, Any] = {}
    for split, first in SPLITS.items():
        rows = slice(0, first) if rank == 0 else slice(first, 4)
        for candidates in CANDIDATES:
            for name, policy in POLICIES.items():
                found = apply_policy(policy, *rows_of(*batch(candidates), rows))
                results[f"{name}, {split}, {candidates}"] = tuple(found)
    rows = slice(0, 3) if rank == 0 else slice(3, 4)
    for name, policy in POLICIES.items():
        try:
            apply_policy(policy, *rows_of(*with_nan_in_row_0(), rows))
            results[f"{name}, NaN"] = "no error"
        except ValueError as error:
            results[f"{name}, NaN"] = str(error)
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Any]]:
    """The results of a case, of rank 0 and rank 1."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(folder)]) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    return lambda case: [found[case] for found in ranks]


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", POLICIES)
def test_two_ranks_choose_what_one_chooses_on_the_joined_rows(
    results: Callable[[str], list[Any]], name: str, split: str, candidates: str
) -> None:
    expected = apply_policy(POLICIES[name], *batch(candidates))
    (chosen, weights), (chosen_1, weights_1) = results(f"{name}, {split}, {candidates}")
    assert torch.equal(torch.cat([chosen, chosen_1]), expected.selected)
    if expected.weights is None:
        assert weights is None and weights_1 is None
    else:
        assert torch.equal(torch.cat([weights, weights_1]), expected.weights)


def test_the_choice_is_over_all_ranks_and_not_a_share_of_each(results: Callable[[str], list[Any]]) -> None:
    chosen = [found[0] for found in results("excess, two and two, some everywhere")]
    columns, valid = batch("some everywhere")
    own = [
        apply_policy(POLICIES["excess"], *rows_of(columns, valid, rows)).selected for rows in (slice(2), slice(2, 4))
    ]
    assert not torch.equal(torch.cat(chosen), torch.cat(own))


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("random", "union")])
def test_nan_on_one_rank_is_an_error_on_every_rank(results: Callable[[str], list[Any]], name: str) -> None:
    for error in results(f"{name}, NaN"):
        assert "a candidate's score is NaN" in error


def test_nan_in_the_second_part_of_a_union_is_an_error_on_every_rank(results: Callable[[str], list[Any]]) -> None:
    assert ["NaN" in error for error in results("union, NaN")] == [True, True]
    # `random` does not read the loss.
    assert results("random, NaN") == ["no error", "no error"]


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), Path(sys.argv[2]))
