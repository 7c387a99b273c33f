"""`tokensieve quickstart`: the whole pipeline on text that is already on every machine with torch.

It runs the shipped `quickstart.yaml`, which writes the embedded text as ordinary JSONL files first, so that the
output folder shows exactly what one's own data and recipe have to look like.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokensieve.pipeline import run
from tokensieve.recipe import load_recipe


def quickstart(out: Path, overrides: Sequence[str] = (), started: float | None = None) -> dict[str, Any]:
    """Run the embedded default into `out`; returns the summary.

    Args:
        out: output folder; a finished or interrupted one is continued.
        overrides: `key.sub=value` changes to quickstart.yaml.
        started: `time.monotonic()` at the start of the command, for the summary's `seconds`.

    Raises:
        UserError: anything a run can raise.
    """
    started = time.monotonic() if started is None else started
    # Quoted: an override is YAML, in which a folder's name might mean something else.
    folder = f"out={json.dumps(str(out), ensure_ascii=False)}"
    return run(load_recipe("recipes/quickstart.yaml", [folder, *overrides]), started)
