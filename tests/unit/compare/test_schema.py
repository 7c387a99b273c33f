"""comparison.schema.json accepts a whole comparison and refuses one with anything added, missing or of another kind."""

import copy
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("tokensieve.compare").joinpath("comparison.schema.json").read_text(encoding="utf-8"))
SAMPLE = json.loads((Path(__file__).parents[1] / "report" / "comparison.json").read_text(encoding="utf-8"))
OPEN = {"recipe", "changes"}
"""Objects that hold whatever a recipe holds."""


@pytest.fixture
def sample() -> dict[str, Any]:
    return copy.deepcopy(SAMPLE)


def places(comparison: dict[str, Any]) -> set[str]:
    """JSON paths of what is wrong with it."""
    return {error.json_path for error in Draft202012Validator(SCHEMA).iter_errors(comparison)}


def test_the_schema_is_one_and_accepts_a_whole_comparison(sample: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert places(sample) == set()
    assert sample["format"] == SCHEMA["properties"]["format"]["const"]


def test_every_definition_is_used() -> None:
    text = json.dumps(SCHEMA)
    assert [name for name in SCHEMA["$defs"] if f'"#/$defs/{name}"' not in text] == []


def test_the_least_that_a_comparison_can_be(sample: dict[str, Any]) -> None:
    lone = {"mean": 2.0, "low": None, "high": None}
    plain = sample["arms"]["clm"] | {"general_loss": None, "general": {}, "keep_rates": None, "to_plain": None}
    plain |= {"target_loss": lone, "seeds": plain["seeds"][:1]}
    sample |= {
        "seeds": [0],
        "arms": {"clm": plain},
        "main": None,
        "general": [],
        "reference": None,
        "differences": [],
        "sweep": [],
        "split": None,
        "over_time": None,
        "tasks": [],
        "warnings": [],
        "not_run": [],
    }
    assert places(sample) == set()


def objects(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all objects whose keys the schema names, the whole among them; the first item stands for a list."""
    found: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        found.append(path)
        for key, inner in value.items():
            if key not in OPEN:
                found += objects(inner, (*path, key))
    elif isinstance(value, list) and value:
        found += objects(value[0], (*path, 0))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_no_object_takes_a_key_that_the_schema_does_not_know(sample: dict[str, Any]) -> None:
    # Objects by arm, text or setting have keys of the user's; what they hold is checked all the same.
    paths = objects(sample)
    assert len(paths) > 100
    for path in paths:
        at(sample, path)["surprise"] = {"no": "such thing"}
    refused = set()
    pending = list(Draft202012Validator(SCHEMA).iter_errors(sample))
    while pending:
        error = pending.pop()
        refused.add(tuple(error.absolute_path))
        pending += error.context  # what was wrong inside a part that may also be null
    accepted = [path for path in paths if path not in refused and (*path, "surprise") not in refused]
    # In `matched.differ` any setting of the recipe may stand, with any value.
    assert [path for path in accepted if path[:2] != ("matched", "differ")] == []


def test_every_part_is_required(sample: dict[str, Any]) -> None:
    sample["arms"] = {"clm": sample["arms"]["clm"]}  # the others are like it
    for key in sample:
        shorter = {name: value for name, value in sample.items() if name != key}
        assert places(shorter) == {"$"}, key
    for key in set(sample["arms"]["clm"]):
        arm = {name: value for name, value in sample["arms"]["clm"].items() if name != key}
        assert places(sample | {"arms": {"clm": arm}}) == {"$.arms.clm"}, key
    for key in sample["differences"][0]:
        shorter = {name: value for name, value in sample["differences"][0].items() if name != key}
        assert places(sample | {"differences": [shorter]}) == {"$.differences[0]"}, key


Change = Callable[[dict[str, Any]], Any]
MUTATIONS: dict[str, Change] = {
    "$.format": lambda c: c.update(format=2),
    "$.answer.verdict": lambda c: c["answer"].update(verdict="great"),
    "$.seeds": lambda c: c.update(seeds=[0, 0]),
    "$.seeds[0]": lambda c: c.update(seeds=["0"]),
    "$.targets": lambda c: c.update(targets=[]),
    "$.targets[0].tokens": lambda c: c["targets"][0].update(tokens=-1),
    "$.arms": lambda c: c["arms"].update(baseline=c["arms"]["clm"]),
    "$.arms.clm.kind": lambda c: c["arms"]["clm"].update(kind="plain"),
    "$.arms.clm.ratio": lambda c: c["arms"]["clm"].update(ratio=0),
    "$.arms.clm.target_loss": lambda c: c["arms"]["clm"]["target_loss"].pop("low"),
    "$.arms.clm.target_loss.mean": lambda c: c["arms"]["clm"]["target_loss"].update(mean=None),
    "$.arms.clm.curve": lambda c: c["arms"]["clm"].update(curve=[]),
    "$.arms.clm.curve[0].step": lambda c: c["arms"]["clm"]["curve"][0].update(step=0.5),
    "$.arms.clm.flops": lambda c: c["arms"]["clm"]["flops"].pop("scoring"),
    "$.arms.clm.flops.total": lambda c: c["arms"]["clm"]["flops"].update(total="1e15"),
    "$.reference": lambda c: c["reference"].pop("gate"),
    "$.start.target_loss": lambda c: c["start"].update(target_loss=-0.1),
    "$.differences[0].p": lambda c: c["differences"][0].update(p=1.5),
    "$.differences[0].unit": lambda c: c["differences"][0].update(unit="percent"),
    "$.differences[0].verdict": lambda c: c["differences"][0].update(verdict="mixed"),
    "$.differences[0].seeds_needed['0.01']": lambda c: c["differences"][0].update(seeds_needed={"0.01": 1}),
    "$.differences[0].seeds_needed": lambda c: c["differences"][0].update(seeds_needed={"small": 9}),
    "$.sweep[0].points[0].ratio": lambda c: c["sweep"][0]["points"][0].update(ratio=1.2),
    "$.split": lambda c: c["split"].update(selected_share=40),
    "$.over_time": lambda c: c["over_time"]["sets"][0]["curve"][0].append(1.0),
    "$.measured.hardware": lambda c: c["measured"].update(hardware=""),
    "$.measured.arms.clm.seconds[0]": lambda c: c["measured"]["arms"]["clm"]["seconds"].__setitem__(0, -1.0),
}


@pytest.mark.parametrize("place", sorted(MUTATIONS))
def test_a_wrong_value_is_refused_where_it_stands(place: str, sample: dict[str, Any]) -> None:
    MUTATIONS[place](sample)
    assert places(sample) == {place}
