"""Other people's evaluation code, run so that nothing of it is left behind.

lm-eval and its tasks seed global generators, print, set up loggers and environment variables, and put the model in
eval mode. None of that may reach a comparison that goes on training afterwards.
"""

import contextlib
import io
import logging
import os
import random
import sys
from collections.abc import Iterator

import numpy as np
import torch
from transformers import PreTrainedModel

SEED = 1234
"""Draws the few-shot examples, and whatever a task samples; lm-eval's own default."""
_LOUD = ("lm_eval", "huggingface_hub", "datasets", "evaluate")
"""Loggers of what a task cannot do; the error that follows says it too."""


@contextlib.contextmanager
def undisturbed(model: PreTrainedModel | None = None) -> Iterator[None]:
    """Run lm-eval quietly, from a fixed seed, and leave the process and the model as they were.

    Kept: modes of all modules, the state of Python's, NumPy's and torch's generators, loggers, environment.
    """
    modes = [] if model is None else [(module, module.training) for module in model.modules()]
    device = torch.device("cpu") if model is None else model.device
    cuda = [device] if device.type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    environment = dict(os.environ)
    root = logging.getLogger()
    handlers = list(root.handlers)
    loggers = [root, *map(logging.getLogger, _LOUD)]
    levels = [logger.level for logger in loggers]
    with torch.random.fork_rng(devices=cuda):
        random.seed(SEED)
        np.random.seed(SEED)
        torch.default_generator.manual_seed(SEED)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(SEED)
        for logger in loggers[1:]:
            logger.setLevel(logging.CRITICAL)
        try:
            with _silence():
                yield
        finally:
            for module, training in modes:
                module.training = training
            random.setstate(states[0])
            np.random.set_state(states[1])
            os.environ.clear()
            os.environ.update(environment)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            root.handlers[:] = handlers


class _Sink(io.TextIOBase):
    """Drops what is written while lm-eval runs; whoever keeps it is heard again afterwards."""

    def __init__(self, name: str) -> None:
        self._after = getattr(sys, name)
        self.open = True

    def write(self, text: str) -> int:
        return len(text) if self.open else self._after.write(text)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Bars and prints of lm-eval and datasets go nowhere; errors are exceptions."""
    sinks = _Sink("stdout"), _Sink("stderr")
    try:
        with contextlib.redirect_stdout(sinks[0]), contextlib.redirect_stderr(sinks[1]):
            yield
    finally:
        for sink in sinks:
            sink.open = False
