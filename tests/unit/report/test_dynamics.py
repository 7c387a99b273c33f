"""The page of an analysis and its figures: true to the JSON, complete for whatever is missing, safe for every text."""

import copy
import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tokensieve import dynamics as package
from tokensieve.report.dynamics import render_dynamics, write_dynamics, write_figures
from tokensieve.report.dynamics_figures import figures
from tokensieve.report.dynamics_kinds import KINDS, lead, share
from tokensieve.report.dynamics_look import run_styles
from tokensieve.report.dynamics_text import examples
from tokensieve.report.words import printable

SAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "dynamics.json").read_text(encoding="utf-8"))
SCHEMA = json.loads((Path(package.__file__).parent / "dynamics.schema.json").read_text(encoding="utf-8"))
VOID = {"meta", "link", "path"}
KEYS = [kind.key for kind in KINDS]
HOSTILE = "=1+1</style></title><script>alert(1)</script>\"'<b onclick=x>&amp;\u202e\x00\x1b\n\ufffe{{ 7 * 7 }}"


class Checker(HTMLParser):
    """Collects tags, text, table cells and the text of passages, and complains about what is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.passages: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag == "p" and (found.get("class") or "").startswith("tokens"):
            self.passages.append("")
            tag = "p.tokens"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().removesuffix(".tokens") == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += (" " if self.open[-1] == "small" else "") + data
            if "p.tokens" in self.open:
                self.passages[-1] += data


def check(found: dict[str, Any]) -> Checker:
    checker = Checker()
    checker.feed(render_dynamics(found))
    checker.close()
    assert checker.open == []
    ids = [attrs["id"] for _, attrs in checker.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in checker.tags:
        assert set((attrs.get("aria-labelledby") or "").split()) <= set(ids)
        if (attrs.get("href") or "").startswith("#"):
            assert (attrs["href"] or "")[1:] in ids
    for row in checker.rows:
        row[:] = [" ".join(cell.split(" ")).strip() for cell in row]
    return checker


@cache
def whole() -> Checker:
    """The sample's page, read once."""
    return check(SAMPLE)


def changed(*how: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    found = copy.deepcopy(SAMPLE)
    for change in how:
        change(found)
    assert errors(found) == []
    return found


def errors(found: dict[str, Any]) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in Draft202012Validator(SCHEMA).iter_errors(found)]


def without(part: str) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found[part] = None

    return change


def no_selection(found: dict[str, Any]) -> None:
    """Also nothing that only a selecting run can give."""
    found["selection"] = found["over_time"] = None
    for example in found["examples"]:
        for token in example["tokens"]:
            token["kept"] = token["tendency"] = None


def no_text(found: dict[str, Any]) -> None:
    found["examples"] = []
    found["fluctuating"] = {"low_to_low": [], "high_to_high": []}


def empty_kind(found: dict[str, Any]) -> None:
    category = found["categories"]["low_to_high"]
    category |= {"tokens": 0, "share": 0.0}
    for rows in category["by"].values():
        for row in rows:
            row["share"] = 0.0
    for holder in (found["trajectories"], found["fluctuation"]):
        for by in holder.values():
            by["low_to_high"] = None
    found["selection"]["kept"]["low_to_high"] = None


def tokens_unknown(found: dict[str, Any]) -> None:
    for run in found["runs"].values():
        for checkpoint in run["checkpoints"]:
            checkpoint["tokens"] = None


def one_run(found: dict[str, Any]) -> None:
    found["runs"] = {"given": {**found["runs"]["clm"], "label": "The checkpoints"}}
    for name in ("trajectories", "fluctuation"):
        found[name] = {"given": found[name]["clm"]}
    found["selection"] = found["over_time"] = found["split"] = found["accuracy"] = None


CUTS = [
    (without("split"), ["figure-6"], "Figure 6 (selected and unselected"),
    (without("accuracy"), ["figure-7"], "Figure 7 (accuracy"),
    (without("over_time"), ["figure-8"], "Figure 8 (tokens selected"),
    (without("sweep"), ["figure-9"], "Figure 9 (which ratio)"),
    (no_selection, ["kept", "figure-8", "figure-13", "figure-14"], "What selection kept of each kind: no run"),
    (no_text, ["figure-2bc", "figure-11", "figure-13", "figure-14"], "Figure 11 (tokens by kind)"),
]


def test_the_sample_is_an_analysis() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert errors(SAMPLE) == []
    assert set(SCHEMA["required"]) == set(SAMPLE)


@pytest.mark.parametrize("path", ["format", "text", "runs.clm.label", "categories.high_to_low.share", "split.tokens"])
def test_the_schema_misses_what_is_missing(path: str) -> None:
    found = copy.deepcopy(SAMPLE)
    *parents, last = path.split(".")
    holder = found
    for parent in parents:
        holder = holder[parent]
    del holder[last]
    assert any(path.split(".")[0] in error for error in errors(found))


def test_the_page_shows_every_part_in_order() -> None:
    text = whole().text
    parts = [
        SAMPLE["title"], "Of 320,000 tokens", "Warning", "The four kinds of tokens",
        "The signs say direction, not level",
        "Shares of the four kinds", "Paper: Mistral-7B", "How their losses moved", "Figure 2a of the paper",
        "Figures 2b and 2c of the paper", "Where they are found", "By source", "By region", "By class",
        "What selection did to them", "Not in the paper", "Figure 6 of the paper", "Figure 7 of the paper",
        "Figure 8 of the paper", "Figure 9 of the paper", "See the tokens", "Figure 11 of the paper",
        "Figure 13 of the paper", "Figure 14 of the paper", "Kept at the end", "After 33", "Not shown",
        "Nothing: every figure", "Thresholds and method", "The recipe",
    ]  # fmt: skip
    at = 0
    for part in parts:
        assert part in text[at:], part
        at = text.index(part, at)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 1 of dynamics.json, not 2"):
        render_dynamics({**SAMPLE, "format": 2})


def test_the_opening_sentence_holds_the_numbers() -> None:
    sentence = lead(SAMPLE)
    for key in KEYS:
        assert f"{SAMPLE['categories'][key]['share']:.0%}".replace("%", "\u202f%") in sentence
        assert f"{SAMPLE['selection']['kept'][key][-1]:.0%}".replace("%", "\u202f%") in sentence
    ends = {key: SAMPLE["trajectories"]["slm"][key][-1] - SAMPLE["trajectories"]["clm"][key][-1] for key in KEYS}
    assert f"{-min(ends.values()):.2f} nats lower on the learned tokens" in sentence
    assert f"{max(ends.values()):.2f} nats higher on the never learned ones" in sentence
    assert "no selection to hold against them" in lead(changed(no_selection))
    assert share(0.001) == "under 1\u202f%" and share(0.0) == "0\u202f%" and share(0.26) == "26\u202f%"


def test_the_table_of_kinds_shows_the_numbers_of_the_json() -> None:
    rows = [row for row in whole().rows if len(row) == 8 and "Mistral-7B" in row[1]]
    assert len(rows) == 4
    for row, key in zip(rows, KEYS, strict=True):
        category, measured = SAMPLE["categories"][key], SAMPLE["fluctuation"]["clm"][key]
        paper = category["paper"]
        assert row[1] == (
            f"{category['share']:.0%} {category['tokens']:,} tokens TinyLlama-1.1B: {paper['TinyLlama-1.1B']:.0%} "
            f"Mistral-7B: {paper['Mistral-7B']:.0%}"
        ).replace("%", "\u202f%")
        curves = [*(SAMPLE["trajectories"][arm][key] for arm in SAMPLE["runs"]), SAMPLE["paper_trajectories"][key]]
        for cell, curve in zip(row[2:6], curves, strict=True):
            assert cell.replace("−", "-") == f"{curve[0]:.2f} → {curve[-1]:.2f} {curve[-1] - curve[0]:+.2f}"
        # The paper's is the last of the losses; fluctuation follows.
        assert row[6].startswith(f"{measured['around_line']:.2f} lowest to highest {measured['range']:.2f}")


def test_every_kept_share_is_in_its_table() -> None:
    kept = SAMPLE["selection"]["kept"]
    rows = [row for row in whole().rows if len(row) == 4 and row[1].startswith("checkpoint-")]
    wanted = [f"{value:.4f}" for key in KEYS for value in kept[key]]
    assert [row[3] for row in rows] == wanted


@pytest.mark.parametrize(("how", "absent", "reason"), CUTS)
def test_what_is_missing_is_left_out_and_explained(
    how: Callable[[dict[str, Any]], None], absent: list[str], reason: str, tmp_path: Path
) -> None:
    assert reason not in whole().text
    found = changed(how)
    checker = check(found)
    assert reason in checker.text and "None" not in checker.text and "nan" not in checker.text
    written = {path.stem for path in write_figures(found, tmp_path)}
    links = {(attrs.get("href") or "").removeprefix("figures/") for _, attrs in checker.tags}
    for key in absent:
        assert key not in written and f"{key}.csv" not in links


def test_reasons_of_the_analysis_are_not_said_twice() -> None:
    def given(found: dict[str, Any]) -> None:
        no_selection(found)
        found["not_shown"] = [
            "how often each category was kept, and figures 8, 13 and 14: no selective run was measured",
        ]

    text = check(changed(given)).text
    assert "How often each category was kept, and figures 8, 13 and 14: no selective run was measured." in text
    assert "Figure 8 (tokens" not in text and "What selection kept of each kind: no" not in text


@pytest.mark.parametrize("how", [empty_kind, tokens_unknown, one_run])
def test_unusual_analyses_are_shown(how: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    found = changed(how)
    text = check(found).text
    assert "None" not in text and "nan" not in text
    assert write_figures(found, tmp_path)


def test_everything_can_be_missing_at_once(tmp_path: Path) -> None:
    found = changed(one_run, no_text, without("sweep"), tokens_unknown)
    found["warnings"] = []
    for key in KEYS:
        found["categories"][key]["by"] = {}
    text = check(found).text
    assert "Warning" not in text and "See the tokens" not in text and text.count("Figure") > 6
    assert "checkpoint →" in text and "tokens seen →" not in text
    assert [path.name for path in write_figures(found, tmp_path)] == ["figure-2.svg", "figure-2.csv"]


def test_checkpoints_without_tokens_are_numbered() -> None:
    found = changed(tokens_unknown)
    chart = figures(found, run_styles(found))["figure-2"].charts[0]
    assert (chart.x_label, chart.x_ticks[0].label) == ("checkpoint", "2") and chart.lines[0].path.startswith("M0 ")
    assert figures(SAMPLE, run_styles(SAMPLE))["figure-2"].charts[0].x_label == "tokens seen"


def test_the_text_of_the_passages_is_the_text() -> None:
    checker = whole()
    texts = ["".join(token["text"] for token in example["tokens"]) for example in SAMPLE["examples"]]
    assert checker.passages == [text for text in texts for _ in range(6)]


def test_tokens_carry_their_kind_fate_and_level() -> None:
    example = examples(SAMPLE)[0]
    kinds, fates = example.views
    for token, kind, fate, *moments in zip(
        SAMPLE["examples"][0]["tokens"],
        kinds.tokens,
        fates.tokens,
        *(moment.tokens for moment in example.moments),
        strict=True,
    ):
        if token["category"] is None:
            assert kind.css == fate.css == "o" and "not a candidate" in kind.title
            continue
        assert kind.css.split()[0] == {one.key: one.css for one in KINDS}[token["category"]]
        assert fate.css.split()[0] == ("kept-on" if token["kept"] else "kept-off")
        assert [moment.css.split()[0] for moment in moments] == [f"v{level}" for level in token["tendency"]]
    decided = [token["kept"] for token in SAMPLE["examples"][0]["tokens"] if token["kept"] is not None]
    assert fates.title == f"Kept at the end: {sum(decided)} of {len(decided)} tokens"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_link_leads_to_a_file(tmp_path: Path) -> None:
    write_figures(SAMPLE, tmp_path / "figures")
    write_dynamics(SAMPLE, tmp_path / "dynamics.html")
    links = {
        attrs["href"] or "" for tag, attrs in whole().tags if tag == "a" and not (attrs["href"] or "").startswith("#")
    }
    assert {str(path.relative_to(tmp_path)) for path in (tmp_path / "figures").iterdir()} == links


def hostile() -> dict[str, Any]:
    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        return HOSTILE if isinstance(value, str) and key not in {"arm", "category"} else value

    found: dict[str, Any] = spoil(SAMPLE)
    for name in ("arms", "target"):
        found["split"][name][HOSTILE] = found["split"][name]["clm"]
    for category in found["categories"].values():
        category["paper"][HOSTILE] = 0.5
    return found


def test_text_from_anywhere_is_escaped(tmp_path: Path) -> None:
    found = hostile()
    html = render_dynamics(found)
    for raw in ("<script", "<b onclick", "\u202e", "\x00", "\x1b", "\ufffe"):
        assert raw not in html
    assert html.count("</style>") == 1
    checker = check(found)
    assert "script" not in {tag for tag, _ in checker.tags}
    assert not any(name.startswith("on") for _, attrs in checker.tags for name in attrs)
    assert printable(HOSTILE) in checker.text
    for path in write_figures(found, tmp_path):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".svg":
            ET.fromstring(text)
            assert "<script" not in text and "\u202e" not in text
    # A spreadsheet would run what begins with an equals sign.
    assert all(row["text"].startswith('"') for row in read(tmp_path / "figure-11.csv"))
    tokens = [row[name] for row in read(tmp_path / "figure-2bc.csv") for name in ("token", "before", "after")]
    assert {json.loads(text) for text in tokens} == {HOSTILE}


@settings(max_examples=10, deadline=None)
@given(st.text(), st.text())
def test_any_text_of_a_corpus_comes_back_from_the_page_as_printable(before: str, token: str) -> None:
    found = copy.deepcopy(SAMPLE)
    found["fluctuating"]["low_to_low"][0] |= {"before": before, "token": token}
    found["examples"] = []
    html = render_dynamics(found)
    assert not set(re.findall(r"<(script|b on)", html))
    checker = Checker()
    checker.feed(html)
    signs = {"\r\n": "↵", "\n": "↵", "\t": "⇥"}
    shown = re.sub(r"\r\n|\n|\t", lambda match: signs[match[0]], token)
    assert printable(shown) in checker.text


def test_the_page_names_no_address_and_no_script() -> None:
    html = render_dynamics(SAMPLE)
    assert "http:" not in html and "https:" not in html and "<script" not in html and "url(" not in html
    assert "default-src 'none'" in html


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    page = tmp_path / "dynamics.html"
    write_dynamics(SAMPLE, page)
    before = page.read_bytes()
    broken = copy.deepcopy(SAMPLE)
    del broken["text"]
    with pytest.raises(KeyError):
        write_dynamics(broken, page)
    assert page.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["dynamics.html"]
    write_figures(SAMPLE, tmp_path / "figures")
    assert not list((tmp_path / "figures").glob("*.tmp"))
