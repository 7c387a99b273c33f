"""Selection over all ranks: two gloo processes choose what one process chooses on the joined batch."""

import subprocess
import sys
from pathlib import Path

import torch

from tokensieve.selection import select_tokens


def batch(case: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with many ties, and candidates: [4, 10]. Rank 1 holds the last row, which has none in case 3."""
    generator = torch.Generator().manual_seed(case)
    scores = torch.randint(-3, 3, (4, 10), generator=generator).float()
    valid = torch.rand(4, 10, generator=generator) < 0.7
    if case == 3:
        valid[3] = False
    return scores, valid


def one_rank(rank: int, folder: Path) -> None:
    """What each process runs: its own rows of every case."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(0, 3) if rank == 0 else slice(3, 4)
    chosen = []
    for case in range(4):
        scores, valid = batch(case)
        chosen.append(select_tokens(scores[rows], valid[rows], 0.6, "global"))
    torch.save(chosen, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_global_on_two_ranks_is_the_microbatch_of_the_joined_rows(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for case in range(4):
        scores, valid = batch(case)
        expected = select_tokens(scores, valid, 0.6, "microbatch")
        assert torch.equal(torch.cat([parts[0][case], parts[1][case]]), expected)


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), Path(sys.argv[2]))
