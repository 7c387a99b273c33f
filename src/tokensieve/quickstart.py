"""`tokensieve quickstart`: the whole pipeline on text that is already on every machine with torch.

It writes the embedded default as ordinary JSONL files and runs the shipped `quickstart.yaml` on them, so the
output folder shows exactly what one's own data and recipe have to look like.
"""

import json
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tokensieve.corpus.embedded import write_embedded
from tokensieve.pipeline import console, run
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
    data = out / "data"
    counts = write_embedded(data)
    sizes = ", ".join(
        f"{name} {counts[name]['documents']:,} documents ({counts[name]['bytes'] / 1e6:.1f} MB)"
        for name in ("noisy", "clean", "target")
    )
    console.print(f"text: sympy {counts['sympy']}: {sizes}", markup=False)
    if counts["note"] is not None:
        console.print(counts["note"], markup=False)
    # Quoted: an override is YAML, in which a folder's name might mean something else.
    folders = [
        f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in (("out", out), ("data_dir", data))
    ]
    with resources.as_file(resources.files("tokensieve") / "recipes" / "quickstart.yaml") as path:
        recipe = load_recipe(path, [*folders, *overrides])
    return run(recipe, started)
