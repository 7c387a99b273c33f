"""SelectiveSFTTrainer on two gloo ranks takes the step that one process takes on both ranks' rows."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: pip install 'tokensieve[sft]'")


def train(folder: Path, rows_of_one_rank: int) -> None:
    """One optimizer step of two micro-batches; rows differ in length, so ranks differ in candidates."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig

    from tokensieve import SelectionPolicy
    from tokensieve.integrations.trl import SelectiveSFTTrainer

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=61, **shape))
    ids = [torch.randint(3, 61, (length,)).tolist() for length in (4, 19, 7, 12, 5, 16, 9, 11)]
    masks = [(torch.rand(len(row)) < 0.5).tolist() for row in ids]
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(61)}, unk_token="w1"))
    arguments = SFTConfig(
        str(folder / "out"),
        per_device_train_batch_size=rows_of_one_rank,
        gradient_accumulation_steps=2,
        max_steps=1,
        learning_rate=0.5,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    trainer = SelectiveSFTTrainer(
        model,
        arguments,
        policy=SelectionPolicy("mask", 0.5),
        train_dataset=Dataset.from_dict({"input_ids": ids, "selection_mask": masks}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w2"),
    )
    trainer.train()
    name = f"{trainer.accelerator.num_processes}-{os.environ.get('RANK', '0')}.pt"
    torch.save({"weights": model.state_dict(), "logs": trainer.state.log_history[0]}, folder / name)


@pytest.mark.slow
def test_two_ranks_take_the_step_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    offline = {"HF_HUB_OFFLINE": "1", "CI": "1"}
    common = {**offline, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)], env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
        )
        for rank in ("0", "1")
    ]
    for name, value in offline.items():
        monkeypatch.setenv(name, value)
    try:
        train(tmp_path, 4)
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    one, *two = (torch.load(tmp_path / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for found in two:
        for name, value in found["weights"].items():
            torch.testing.assert_close(value, one["weights"][name], rtol=1e-5, atol=1e-6, msg=name)
        for key in ("ratio_kept", "tokens_selected", "loss_all", "loss_selected", "loss_unselected"):
            assert found["logs"][key] == pytest.approx(one["logs"][key], rel=1e-5), key


if __name__ == "__main__":
    train(Path(sys.argv[1]), 2)
