"""`tokensieve dynamics` from text to page: what is measured is what the models say, and nothing that was trained on."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tokensieve.corpus.order import sample_order
from tokensieve.corpus.store import TokenStore
from tokensieve.corpus.windows import IGNORED, Windows
from tokensieve.dynamics.checkpoints import find_checkpoints
from tokensieve.dynamics.measuring import LOSS_SUFFIX
from tokensieve.dynamics.text import held_out_text
from tokensieve.recipe import load_recipe
from tokensieve.training.arms import training_windows
from tokensieve.training.held_out import dynamics_windows, unread_windows
from tokensieve.viewer.notebook import view

from .conftest import write_jsonl

LENGTH, STEP = 32, 4 * 32


@pytest.fixture
def measured(recipe: dict[str, Any]) -> dict[str, Any]:
    recipe["train"] |= {"save_at": [0, 4 * STEP, 8 * STEP, 12 * STEP], "arms": ["slm", "clm"]}
    recipe["dynamics"] = {"tokens": 600, "hold_out": True}
    return recipe


def columns(out: Path, arm: str) -> list[np.ndarray]:
    paths = sorted((out / "dynamics" / "losses" / arm).glob(f"*{LOSS_SUFFIX}"))
    return [np.fromfile(path, dtype="<f2").astype(np.float64).reshape(-1, LENGTH) for path in paths]


def test_everything_from_text_to_page(measured, tokensieve, tmp_path):
    out = Path(measured["out"])
    code, _, error = tokensieve("run", measured)
    assert code == 0, error
    code, printed, error = tokensieve("dynamics", measured)
    assert code == 0, error
    loaded = load_recipe(tmp_path / "recipe.yaml")
    held_out = dynamics_windows(loaded, TokenStore(out / "corpus"))
    trained_on = training_windows(loaded)
    assert not np.isin(trained_on.order % trained_on.n_windows, held_out).any()

    # Plain training decides, whatever the order of the arms.
    found = json.loads((out / "dynamics" / "dynamics.json").read_text())
    schema = json.loads((resources.files("tokensieve.dynamics") / "dynamics.schema.json").read_text())
    jsonschema.validate(found, schema)
    assert list(found["runs"]) == ["clm", "slm"]
    names = [[item["name"], item["tokens"]] for item in found["runs"]["clm"]["checkpoints"]]
    assert names == [["0", 0], [str(4 * STEP), 4 * STEP], [str(8 * STEP), 8 * STEP], ["clm", 12 * STEP]]
    windows = Windows(TokenStore(out / "corpus"), LENGTH, order=held_out)
    batch = windows.__getitems__(list(range(len(windows))))
    live = (batch["labels"] != IGNORED).numpy()
    assert found["text"]["tokens"] == live.sum() > 500
    from transformers import AutoModelForCausalLM

    for arm in ("clm", "slm"):
        stored = columns(out, arm)
        assert len(stored) == 4
        for folder, losses in zip([*(f"saved/{i * 4 * STEP}" for i in range(3)), "."], stored, strict=True):
            model = AutoModelForCausalLM.from_pretrained(out / "models" / arm / folder, dtype=torch.float32)
            with torch.no_grad():
                logits = model(
                    input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
                ).logits[:, :-1]
            wanted = F.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none").numpy()
            np.testing.assert_array_equal(np.isnan(losses), ~live)
            np.testing.assert_allclose(losses[:, 1:][live[:, 1:]], wanted[live[:, 1:]], atol=2e-3, rtol=2e-3)
    # The start is the model before its first step, which both arms share.
    np.testing.assert_array_equal(columns(out, "clm")[0], columns(out, "slm")[0])
    start = np.fromfile(out / "dynamics" / "losses" / f"start{LOSS_SUFFIX}", dtype="<f2").reshape(-1, LENGTH)
    np.testing.assert_array_equal(start.astype(np.float64), columns(out, "clm")[0])

    # The categories are those of the definition, on the stored losses.
    lines = np.stack([losses[live] for losses in columns(out, "clm")])
    slope = np.polyfit(np.arange(4), lines, 1)[0] * 3
    last = lines[-1]
    wanted = np.where(slope < -0.2, 0, np.where(slope > 0.2, 3, np.where(last <= last.mean(), 1, 2)))
    categories = np.fromfile(out / "dynamics" / "categories.u8", dtype=np.uint8).reshape(-1, LENGTH)
    assert (categories[~live] == 255).all()
    # A change that rounding puts on the border may fall on either side.
    sure = np.abs(np.abs(slope) - 0.2) > 1e-9
    np.testing.assert_array_equal(categories[live][sure], wanted[sure])
    shares = [category["share"] for category in found["categories"].values()]
    np.testing.assert_allclose(shares, np.bincount(categories[live], minlength=4) / live.sum(), atol=1e-12)
    assert f"{shares[0]:.1%}" in printed
    page = (out / "dynamics" / "dynamics.html").read_text()
    assert "High to low" in page or "H→L" in page

    # The viewer shows the same kinds.
    shown = view(out, on="dynamics", passages=5).view
    assert len(shown.passages) == 5 and shown.colour == "category"
    kinds = {tuple(row) for row in categories.tolist()}
    assert all(tuple(passage.categories.tolist()) in kinds for passage in shown.passages)

    # Other thresholds need no measuring, and the folder is the same again with the old ones.
    before = (out / "dynamics" / "losses" / "losses.json").read_bytes()
    assert tokensieve("dynamics", measured, "dynamics.change=1e9")[0] == 0
    again = json.loads((out / "dynamics" / "dynamics.json").read_text())
    assert again["categories"]["high_to_low"]["share"] == again["categories"]["low_to_high"]["share"] == 0
    assert (out / "dynamics" / "losses" / "losses.json").read_bytes() == before

    # Without examples no text of the corpus stays in any file that people pass on.
    shown = {path.name for path in (out / "dynamics" / "figures").iterdir()}
    assert {"figure-2.svg", "figure-13.csv", "figure-2bc.csv"} <= shown
    assert tokensieve("dynamics", measured, "dynamics.examples=0")[0] == 0
    left = {path.name for path in (out / "dynamics" / "figures").iterdir()}
    assert "figure-2.svg" in left and not left & {"figure-2bc.csv", "figure-2bc.svg", "figure-11.csv", "figure-13.csv"}


def test_an_interrupted_measurement_goes_on(measured, tokensieve, monkeypatch):
    from tokensieve.dynamics import measuring

    out = Path(measured["out"])
    assert tokensieve("run", measured)[0] == 0
    original, calls = measuring.window_losses, []

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(measuring, "window_losses", failing)
        code, _, error = tokensieve("dynamics", measured)
    assert code == 130 and "continues" in error
    assert len(list((out / "dynamics" / "losses").rglob(f"*{LOSS_SUFFIX}"))) == 3
    calls.clear()
    with monkeypatch.context() as patched:
        patched.setattr(measuring, "window_losses", lambda *a, **o: (calls.append(1), original(*a, **o))[1])
        assert tokensieve("dynamics", measured)[0] == 0
    assert len(calls) == 2 * 4 + 2 - 3


def test_folders_of_ones_own(measured, tokensieve):
    out = Path(measured["out"])
    assert tokensieve("run", measured)[0] == 0
    folders = [str(out / "models" / "clm" / "saved" / "0"), str(out / "models" / "clm")]
    given = "[" + ", ".join(folders) + "]"
    code, _, error = tokensieve("dynamics", measured, f"dynamics.checkpoints={given}", "dynamics.name=folders")
    assert code == 0, error
    found = json.loads((out / "folders" / "dynamics.json").read_text())
    assert [item["name"] for item in found["runs"]["checkpoints"]["checkpoints"]] == folders
    assert found["runs"]["checkpoints"]["checkpoints"][0]["tokens"] is None
    # Without the setting that it was trained with, what it was trained on could not be told from what it was not.
    code, _, error = tokensieve("dynamics", measured, "dynamics.hold_out=false")
    assert code == 2 and "held_out is 600 there, None here" in error
    code, _, error = tokensieve(
        "dynamics", measured, "dynamics.checkpoints=[./nowhere/a, ./nowhere/b]", "dynamics.name=x"
    )
    assert code == 2 and "nowhere/a" in error and "Traceback" not in error


def test_text_of_ones_own(measured, tokensieve, tmp_path):
    del measured["dynamics"]["hold_out"]
    measured["dynamics"]["sources"] = [{"path": str(tmp_path / "target.jsonl")}]
    out = Path(measured["out"])
    assert tokensieve("run", measured)[0] == 0
    code, _, error = tokensieve("dynamics", measured)
    assert code == 0, error
    found = json.loads((out / "dynamics" / "dynamics.json").read_text())
    assert "text of its own" in found["text"]["description"]
    assert (out / "dynamics" / "text" / "corpus.json").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train": {"save_at": []}}, "no arm has 2 checkpoints"),
        ({"dynamics": {"hold_out": False, "tokens": 600}}, "training has read every window"),
        ({"dynamics": {"hold_out": True, "tokens": 10**9}}, "cannot be held out"),
        ({"train": {"save_at": [STEP, STEP + 1]}}, "fall on the same step"),
    ],
)
def test_what_cannot_be_said_is_one_line(measured, tokensieve, changes, expected):
    for section, values in changes.items():
        measured[section] |= values
    del measured["train"]["trainer"]["save_steps"]
    measured["train"] |= {"tokens": 60 * STEP, "arms": ["clm"]}
    code, _, error = tokensieve("run", measured)
    if code == 0:
        code, _, error = tokensieve("dynamics", measured)
    assert code == 2 and "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: ") and expected in last


def test_a_run_made_without_holding_out_is_not_mistaken(measured, tokensieve):
    assert tokensieve("run", measured, "dynamics.hold_out=false")[0] == 0
    code, _, error = tokensieve("dynamics", measured)
    assert code == 2 and "held_out is None there, 600 here" in error


def test_what_a_run_saw_and_selected_is_read_from_the_run(measured, tokensieve, tmp_path):
    """Another seed, context, budget or policy would name other windows, other tokens or another choice."""
    del measured["dynamics"]["hold_out"]
    measured["train"]["arms"] = ["slm"]
    assert tokensieve("run", measured)[0] == 0
    assert tokensieve("dynamics", measured)[0] == 0
    found = json.loads((Path(measured["out"]) / "dynamics" / "dynamics.json").read_text())
    loaded = load_recipe(tmp_path / "recipe.yaml")
    store = TokenStore(Path(measured["out"]) / "corpus")
    read = training_windows(loaded).order
    unread = unread_windows(loaded, store, 12 * STEP)
    assert set(unread.tolist()) == set(range(training_windows(loaded).n_windows)) - set(read.tolist())
    assert "did not come to" in found["text"]["description"]
    for key, change in (
        ("seed", "seed=7"),
        ("context", "context.length=16"),
        ("tokens", f"train.tokens={13 * STEP}"),
        ("policy", "train.selection.ratio=0.25"),
        ("save_at", "train.save_at=[0]"),
    ):
        code, _, error = tokensieve("dynamics", measured, change)
        assert code == 2 and f"another recipe ({key}" in error, change


def test_stale_and_damaged_losses_are_refused(measured, tokensieve):
    out = Path(measured["out"])
    measured["train"]["arms"] = ["slm"]
    assert tokensieve("run", measured)[0] == 0
    assert tokensieve("dynamics", measured)[0] == 0
    losses = out / "dynamics" / "losses"
    column = losses / "slm" / f"001{LOSS_SUFFIX}"
    whole = column.read_bytes()
    column.write_bytes(whole[:-2])
    code, _, error = tokensieve("dynamics", measured)
    assert code == 2 and f"001{LOSS_SUFFIX}" in error
    column.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    code, _, error = tokensieve("dynamics", measured)
    assert code == 2 and "damaged" in error and f"001{LOSS_SUFFIX}" in error
    column.write_bytes(whole)
    assert tokensieve("dynamics", measured)[0] == 0
    # A checkpoint that is another one now.
    saved = out / "models" / "slm" / "saved" / "0"
    (saved / "model.safetensors").write_bytes((out / "models" / "slm" / "model.safetensors").read_bytes())
    code, _, error = tokensieve("dynamics", measured)
    assert code == 2 and "models.slm/000" in error and "dynamics.name" in error
    (saved / "config.json").unlink()
    code, _, error = tokensieve("dynamics", measured)
    assert code == 2 and "no complete model folder" in error
    # A reference that is another one now is noticed when it is measured.
    (out / "reference" / "model.safetensors").write_bytes((out / "models" / "slm" / "model.safetensors").read_bytes())
    given = f"dynamics.checkpoints=[{saved.parent / str(4 * STEP)}, {out / 'models' / 'slm'}]"
    code, _, error = tokensieve("dynamics", measured, given, "dynamics.name=again")
    assert code == 2 and "weights have changed" in error


def test_a_self_reference_has_not_read_what_is_measured(measured, tokensieve, tmp_path):
    measured["reference"] = {"on_corpus": True, "tokens": 20 * STEP, "trainer": measured["reference"]["trainer"]}
    measured["train"]["arms"] = ["slm"]
    assert tokensieve("run", measured)[0] == 0
    loaded = load_recipe(tmp_path / "recipe.yaml")
    held_out = dynamics_windows(loaded, TokenStore(Path(measured["out"]) / "corpus"))
    manifest = json.loads((Path(measured["out"]) / "reference" / "reference.json").read_text())
    assert manifest["inputs"]["held_out"] == 600
    assert tokensieve("dynamics", measured)[0] == 0
    stored = columns(Path(measured["out"]), "slm")[0]
    assert len(stored) == len(held_out)
    # Without holding out, the windows that either of them read are no held-out text.
    del measured["dynamics"]["hold_out"]
    measured["out"] += "-b"
    assert tokensieve("run", measured)[0] == 0
    assert tokensieve("dynamics", measured)[0] == 0
    loaded = load_recipe(tmp_path / "recipe.yaml")
    text = held_out_text(loaded, find_checkpoints(loaded))
    by_reference = sample_order(text.windows.store, LENGTH, 20 * 4, seed=0) % text.windows.n_windows
    assert not np.isin(text.windows.order, by_reference).any()
    assert not np.isin(text.windows.order, training_windows(loaded).order % text.windows.n_windows).any()


def test_the_trainers_own_checkpoints_do_as_well(measured, tokensieve):
    del measured["train"]["save_at"]
    measured["train"]["trainer"] |= {"save_total_limit": 9, "gradient_accumulation_steps": 2}
    measured["train"]["arms"] = ["clm"]
    assert tokensieve("run", measured)[0] == 0
    assert tokensieve("dynamics", measured)[0] == 0
    found = json.loads((Path(measured["out"]) / "dynamics" / "dynamics.json").read_text())
    names = [[item["name"], item["tokens"]] for item in found["runs"]["clm"]["checkpoints"]]
    assert names == [["checkpoint-4", 8 * STEP], ["clm", 12 * STEP]]


def test_accuracies_at_every_checkpoint_make_figure_7(measured, tokensieve, tmp_path):
    pytest.importorskip("lm_eval", reason="tasks need the extra eval")
    items = [{"question": f"{word} {word}", "choices": [word, "zz"], "answer": word} for word in ("sum", "let", "line")]
    write_jsonl(tmp_path / "items.jsonl", items)
    task = {"path": str(tmp_path / "items.jsonl"), "kind": "multiple_choice", "prompt": "{{question}}"}
    measured["tasks"] = [{**task, "name": "words"}]
    measured["train"]["arms"] = ["slm"]
    out = Path(measured["out"])
    assert tokensieve("run", measured)[0] == 0
    code, _, error = tokensieve("dynamics", measured)
    assert code == 0, error
    found = json.loads((out / "dynamics" / "dynamics.json").read_text())
    points = found["accuracy"]["arms"]["slm"]
    assert found["accuracy"]["tasks"] == ["words"] and [point["tokens"] for point in points][0] == 0
    asked = [
        json.loads(path.read_text()) for path in sorted((out / "dynamics" / "losses" / "slm").glob("*.tasks.json"))
    ]
    assert [point["accuracy"] for point in points] == [float(np.mean(one["words"]["items"])) for one in asked]
    losses = columns(out, "slm")
    live = ~np.isnan(losses[0])
    share = live.sum()
    for point, column in zip(points, losses, strict=True):
        chosen = round(0.5 * share)
        both = (point["selected"] * chosen + point["unselected"] * (share - chosen)) / share
        assert both == pytest.approx(column[live].mean(), rel=1e-3)
    assert (out / "dynamics" / "figures" / "figure-7.svg").exists()
