"""The stock Trainer under DeepSpeed ZeRO-2 and ZeRO-3 logs what one plain process logs.

Run with `pytest -m gpu tests/gpu/test_deepspeed.py`; two GPUs are used if there are two. float32, scope `sequence`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from tokensieve import SelectionPolicy, make_selective

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; accelerate has no DeepSpeed on CPU"),
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed"),
]
VOCABULARY, LENGTH, STEPS, ROWS_A_STEP = 61, 12, 4, 4
POLICY = SelectionPolicy(ratio=0.6, scope="sequence")


def rows() -> list[dict[str, torch.Tensor]]:
    """Live labels differ from row to row."""
    generator = torch.Generator().manual_seed(4)
    count = ROWS_A_STEP * STEPS
    ids = torch.randint(0, VOCABULARY, (count, LENGTH), generator=generator)
    live = torch.rand(count, LENGTH, generator=generator) < torch.rand(count, 1, generator=generator)
    reference = 6 * torch.rand(count, LENGTH, generator=generator)
    columns = {"input_ids": ids, "labels": ids.masked_fill(~live, -100), "reference_loss": reference}
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def train(folder: Path, out: str, ranks: int, stage: int, load: str = "before arguments") -> None:
    """Write the logged losses to `folder/out`; stage 0 is plain."""
    deepspeed = {
        "zero_optimization": {"stage": stage},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }

    def selective() -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        make_selective(model, POLICY)
        return model

    early = selective() if load == "before arguments" else None
    arguments = TrainingArguments(
        str(folder / "trainer"),
        per_device_train_batch_size=ROWS_A_STEP // (2 * ranks),
        gradient_accumulation_steps=2,
        max_steps=STEPS,
        logging_steps=1,
        learning_rate=0.01,
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        deepspeed=deepspeed if stage else None,
    )
    # After the arguments, ZeRO-3 shards the weights while they are loaded.
    trainer = Trainer(early or selective(), arguments, train_dataset=rows())
    trainer.train()
    if arguments.process_index == 0:
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        (folder / out).write_text(json.dumps(losses))


def launched(folder: Path, out: str, ranks: int, *more: str) -> list[float]:
    """The losses of `ranks` processes, one GPU each."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(ranks)))}
    command = [*launch, __file__, str(folder), out, str(ranks), *more]
    done = subprocess.run(command, env=os.environ | visible, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[float] = json.loads((folder / out).read_text())
    assert len(found) == STEPS
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A folder with a tiny model, and the losses of one process without DeepSpeed."""
    folder = tmp_path_factory.mktemp("deepspeed")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": None}
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, **shape, **heads)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder / "model")
    return folder, launched(folder, "plain.json", 1, "0")


@pytest.mark.parametrize(("stage", "load"), [(2, "before arguments"), (3, "before arguments"), (3, "after arguments")])
def test_zero_logs_the_losses_of_a_plain_process(plain: tuple[Path, list[float]], stage: int, load: str) -> None:
    folder, wanted = plain
    ranks = min(2, torch.cuda.device_count())
    found = launched(folder, f"{stage} {load}.json", ranks, str(stage), load)
    assert found == pytest.approx(wanted, rel=1e-4)


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
