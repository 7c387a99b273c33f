"""The page as a whole: complete for every subset of arms, safe for every text, readable in both themes."""

import copy
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import tokensieve.report.page as page_module
from tokensieve.report import write_report
from tokensieve.report.page import render

SAMPLE = json.loads((Path(__file__).parent / "sample.json").read_text(encoding="utf-8"))
STYLE = (Path(page_module.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
VOID = {"meta", "link", "path"}


class Checker(HTMLParser):
    """Collects tags and text, and complains about elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text += data


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    ids = [attrs["id"] for _, attrs in checker.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in checker.tags:
        assert set((attrs.get("aria-labelledby") or "").split()) <= set(ids)
    return checker


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SAMPLE), **changes}


def test_the_page_shows_every_part_in_order() -> None:
    text = check(render(SAMPLE)).text
    parts = [
        "Quickstart: sympy", "Selection helped.", "The models side by side", "2.071", "Reference model",
        "Loss on target text", "Loss on the training text", "Unselected tokens", "What was kept", "83\u202f%",
        "Token by token", "How to read this", "How this was made", "2.62M parameters",
    ]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    for passage in SAMPLE["passages"]:
        assert "".join(token["text"] for token in passage["tokens"]) in text


@pytest.mark.parametrize(
    "arms", [arms for n in range(4) for arms in itertools.combinations(("clm", "random", "slm"), n)]
)
def test_every_subset_of_arms_renders(arms: tuple[str, ...]) -> None:
    report = changed(arms={arm: SAMPLE["arms"][arm] for arm in arms}, tokens_to_clm=None)
    for region in report["regions"]:
        region["kept"] = {arm: share for arm, share in region["kept"].items() if arm in arms}
    text = check(render(report)).text
    table = text[text.index("The models side by side") : text.index("How to read this")]
    for arm, name in (("clm", "every token"), ("random", "same share"), ("slm", "chosen by score")):
        assert (name in table) == (arm in arms)


def test_a_run_without_target_regions_and_passages_renders() -> None:
    report = changed(targets=[], regions=None, passages=[], tokens_to_clm=None)
    unknown = {"targets": {}, "pooled": None, "unknown": "the recipe names no target text"}
    report["reference"] = {"target_loss": None, "tokens": 0, "seconds": 0.0, "gate": unknown}
    for arm in report["arms"].values():
        arm.update(target_loss=None, bits_per_byte=None, targets={}, target_curve=[], train_curve=[])
    text = check(render(report)).text
    assert "cannot say whether selection helps" in text
    assert "not compared with the student before training: the recipe names no target text" in text
    assert "Student ahead" not in text
    for absent in ("What was kept", "Token by token", "Loss on target text"):
        assert absent not in text


def test_several_targets_get_a_table_of_their_own() -> None:
    report = changed(targets=["gsm8k", "math"])
    for arm in report["arms"].values():
        arm["targets"] = {
            "gsm8k": {"loss": 1.621, "bits_per_byte": 0.7},
            "math": {"loss": 1.619, "bits_per_byte": 0.8},
        }
    assert "Final loss by target text" in check(render(report)).text


def test_warnings_stand_before_the_results() -> None:
    text = check(render(changed(warnings=["The reference is no better than the student."]))).text
    assert 0 < text.index("The reference is no better") < text.index("The models side by side")


def gated(targets: dict[str, tuple[float, float]], pooled: tuple[float, float]) -> dict[str, Any]:
    def numbers(pair: tuple[float, float]) -> dict[str, Any]:
        losses = {"reference_loss": pair[0], "student_loss": pair[1]}
        return {"tokens": 24_900, **losses, "negative_excess": 0.1732, "correlation": None}

    found = {name: numbers(pair) for name, pair in targets.items()}
    gate = {"targets": found, "pooled": numbers(pooled), "unknown": None}
    return changed(reference={**SAMPLE["reference"], "gate": gate})


def test_the_reference_gate_has_its_table() -> None:
    text = check(render(SAMPLE)).text
    part = text[text.index("The reference before training") : text.index("Loss on target text")]
    for shown in (
        "Better than the student.",
        "3.308 nats a token better",
        "5.102",
        "8.410",
        "17\u202f%",
        "0.31",
        "24.9k",
    ):
        assert shown in part
    assert "All targets" not in part and "no better" not in part


def test_the_gate_says_where_the_reference_is_no_better() -> None:
    text = check(render(gated({"gsm8k": (1.0, 2.0), "math": (3.0, 2.5)}, (2.0, 2.25)))).text
    assert "Better, but not everywhere. Before training, the reference predicted the target text 0.250 nats" in text
    assert "but no better on math." in text and "All targets" in text and "3.000no better" in text
    assert "1.000no better" not in text and "2.000no better" not in text
    text = check(render(gated({"gsm8k": (2.0, 2.0)}, (2.0, 2.0)))).text
    assert "No better than the student. Before training" in text and "2.000no better" in text


def test_without_a_reference_there_is_no_gate() -> None:
    assert "The reference before training" not in check(render(changed(reference=None))).text


def test_text_from_anywhere_is_escaped() -> None:
    evil = '</style></script><script>alert(1)</script><img src=x onerror="alert(2)"> {{ 7*7 }} \x00\ud800'
    report = changed(title=evil, warnings=[evil], targets=[evil], scope=evil)
    report["model"]["description"] = evil
    for arm in report["arms"].values():
        arm["targets"] = {evil: {"loss": 1.0, "bits_per_byte": 1.0}}
    report["regions"][0]["name"] = evil
    worse = {**SAMPLE["reference"]["gate"]["pooled"], "student_loss": 1.0}
    report["reference"]["gate"] = {"targets": {evil: worse}, "pooled": SAMPLE["reference"]["gate"]["pooled"]}
    report["passages"][0]["source"] = evil
    report["passages"][0]["tokens"][1]["text"] = evil
    checker = check(render(report))
    tags = [tag for tag, _ in checker.tags]
    assert tags.count("script") == 1 and "img" not in tags
    assert not any(name.startswith("on") for _, attrs in checker.tags for name in attrs)
    assert checker.text.count("alert(1)") == checker.text.count("{{ 7*7 }}") == 11


def test_the_page_names_no_address() -> None:
    page = render(SAMPLE)
    assert not re.search(r"https?:|//\w|@import|url\(", page.replace("2000/svg", ""))


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(SAMPLE, path)
    before = path.read_bytes()
    assert b"Quickstart" in before and [child.name for child in tmp_path.iterdir()] == ["report.html"]
    broken = changed()
    del broken["seed"]
    with pytest.raises(Exception, match="seed"):
        write_report(broken, path)
    assert path.read_bytes() == before and [child.name for child in tmp_path.iterdir()] == ["report.html"]


def palette(theme: str) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks)
    return light if theme == "light" else {**light, **dark}


def contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_enough_contrast(theme: str) -> None:
    colours = palette(theme)
    grounds = ["page", "faint", "warning", *(f"{side}{depth}" for side in "pn" for depth in (1, 2, 3, 4))]
    for ground in grounds:
        assert contrast(colours["ink"], colours[ground]) >= 4.5, ground
    for ink in ("quiet", "slm", "clm", "random", "reference"):
        assert contrast(colours[ink], colours["page"]) >= 4.5, ink
