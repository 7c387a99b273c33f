"""The comparison's page as a whole: complete for every kind of comparison, true to its JSON, safe for every text."""

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import tokensieve.report.comparison as comparison_module
from tokensieve import compare
from tokensieve.report import words
from tokensieve.report.comparison import render_comparison, write_comparison

SAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "comparison.json").read_text(encoding="utf-8"))
SCHEMA = json.loads((Path(compare.__file__).parent / "comparison.schema.json").read_text(encoding="utf-8"))
TEMPLATES = Path(comparison_module.__file__).parent / "templates"
VOID = {"meta", "link", "path"}
MAIN = SAMPLE["main"]


class Checker(HTMLParser):
    """Collects tags, text and table cells, and complains about elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += (" " if self.open[-1] == "small" else "") + data


def check(comparison: dict[str, Any]) -> Checker:
    checker = Checker()
    checker.feed(render_comparison(comparison))
    checker.close()
    assert checker.open == []
    ids = [attrs["id"] for _, attrs in checker.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in checker.tags:
        assert set((attrs.get("aria-labelledby") or "").split()) <= set(ids)
        if (attrs.get("href") or "").startswith("#"):
            assert (attrs["href"] or "")[1:] in ids
    return checker


@cache
def whole() -> Checker:
    """The sample's page, read once."""
    return check(SAMPLE)


def without_arms(comparison: dict[str, Any], *kinds: str) -> None:
    gone = {key for key, arm in comparison["arms"].items() if arm["kind"] in kinds}
    for key in gone:
        del comparison["arms"][key], comparison["measured"]["arms"][key]
    comparison["differences"] = [row for row in comparison["differences"] if not gone & {row["arm"], row["other"]}]
    for holder in [
        comparison["split"],
        *comparison["tasks"],
        *({"arms": v} for v in comparison["matched"]["differ"].values()),
    ]:
        for key in gone & set(holder["arms"]):
            del holder["arms"][key]


def one_seed(comparison: dict[str, Any]) -> None:
    def cut(value: Any) -> None:
        if isinstance(value, dict):
            if set(value) == {"mean", "low", "high"}:
                value["low"] = value["high"] = None
            if "reached" in value:
                value |= {"seeds": 1, "reached": 1, "per_seed": value["per_seed"][:1]}
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            cut(inner)

    cut(comparison)
    comparison["seeds"] = [0]
    for arm in comparison["arms"].values():
        arm["seeds"] = arm["seeds"][:1]
    for row in comparison["differences"]:
        nothing = dict.fromkeys(("low", "high", "p", "seed_sd", "document_error", "effect_size", "detectable"))
        row |= {**nothing, "per_seed": row["per_seed"][:1], "verdict": "undecided", "seeds_needed": {"0.01": None}}


def no_general(comparison: dict[str, Any]) -> None:
    comparison["general"], comparison["start"]["general"] = [], {}
    comparison["differences"] = [row for row in comparison["differences"] if row["text"] != "general"]
    for arm in comparison["arms"].values():
        arm["general"], arm["general_loss"] = {}, None
        for point in arm["curve"]:
            point["general_loss"] = None


def no_tasks(comparison: dict[str, Any]) -> None:
    comparison["tasks"] = []
    comparison["differences"] = [row for row in comparison["differences"] if row["unit"] != "accuracy"]


def no_reference(comparison: dict[str, Any]) -> None:
    comparison["reference"] = None


def no_sweep(comparison: dict[str, Any]) -> None:
    comparison["sweep"] = []


def no_probe(comparison: dict[str, Any]) -> None:
    comparison["split"] = comparison["over_time"] = None


def no_keep_rates(comparison: dict[str, Any]) -> None:
    for arm in comparison["arms"].values():
        arm["keep_rates"] = None


def no_plain(comparison: dict[str, Any]) -> None:
    without_arms(comparison, "clm")
    for sweep in comparison["sweep"]:
        sweep["plain"] = None
    for key, arm in comparison["arms"].items():
        arm["to_plain"] = comparison["measured"]["arms"][key]["to_plain_seconds"] = None


def no_selection(comparison: dict[str, Any]) -> None:
    comparison |= {"main": None, "sweep": [], "split": None, "over_time": None, "reference": None}
    comparison["split"] = {"arms": {}}
    without_arms(comparison, "slm", "weak", "self")
    comparison["split"] = None


def diverged(comparison: dict[str, Any]) -> None:
    """An arm whose later losses are not numbers."""
    arm = comparison["arms"]["mixed"]
    for point in arm["curve"][3:]:
        point["target_loss"] = {"mean": float("nan"), "low": float("nan"), "high": float("nan")}
    arm["target_loss"] = {"mean": float("nan"), "low": float("nan"), "high": float("nan")}


def empty_measurements(comparison: dict[str, Any]) -> None:
    for found in comparison["measured"]["arms"].values():
        found |= {"peak_memory": [None, None, None], "curve_seconds": [], "to_plain_seconds": None}


CUTS: list[tuple[Callable[[dict[str, Any]], None], list[str]]] = [
    (one_seed, []),
    (no_general, ["What was forgotten"]),
    (no_tasks, ["Share of right answers"]),
    (no_reference, ["it scored the corpus"]),
    (no_sweep, ["Which ratio?"]),
    (no_probe, ["Selected and unselected tokens", "Tokens selected early and late"]),
    (no_keep_rates, ["What was kept"]),
    (no_plain, ["What it took to reach", "of plain training’s tokens"]),
    (no_selection, ["Which ratio?", "main arm", "it scored the corpus"]),
    (diverged, []),
    (empty_measurements, []),
]


def cut(*how: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    comparison = copy.deepcopy(SAMPLE)
    for one in how:
        one(comparison)
    return comparison


def test_the_sample_is_a_comparison() -> None:
    Draft202012Validator(SCHEMA).validate(SAMPLE)


def test_the_page_shows_every_part_in_order() -> None:
    text = whole().text
    parts = [
        "PlanetMath and StackMathQA", "Selection is shown to help.", "95\u202f% interval", "Warning", "14 ways",
        "The main question", "The arms side by side", "main arm", "At equal what?", "Plain training’s final loss",
        "Which ratio?", "Score: reference loss", "Loss on 16.3k tokens", "selected at 72.1k tokens", "By source",
        "By position in the window", "Loss on held-out text of other kinds", "gsm8k_choice", "13 settings are the same",
        "Target text found again", "Effect size".lower(), "How this was made", "2 CPU cores", "What was not run",
    ]  # fmt: skip
    at = 0
    for part in parts:
        assert part in text[at:], part
        at = text.index(part, at)


@pytest.mark.parametrize(("how", "absent"), CUTS, ids=[how.__name__ for how, _ in CUTS])
def test_what_was_not_measured_is_left_out(how: Callable[[dict[str, Any]], None], absent: list[str]) -> None:
    complete = whole().text
    text = check(cut(how)).text
    for part in absent:
        assert part in complete and part not in text
    assert "None" not in text and "nan" not in text


def test_everything_can_be_missing_at_once() -> None:
    comparison = cut(one_seed, no_general, no_tasks, no_sweep, no_keep_rates, no_selection)
    comparison |= {"warnings": [], "not_run": [], "differences": []}
    comparison["overlap"]["targets"] = {}
    comparison["matched"]["differ"] = {}
    text = check(comparison).text
    for part in ("Warning", "What was not run", "how sure they are", "Target text found again", "settings that differ"):
        assert part not in text


def test_one_seed_is_said_and_has_no_interval() -> None:
    text = check(cut(one_seed)).text
    assert text.count("one seed: no interval") > 2 and "95\u202f% interval" not in text
    assert "With one seed there is no interval" in text and "4 times in 5" not in text


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 1 of comparison.json, not 2"):
        render_comparison({**SAMPLE, "format": 2})


def row_of(checker: Checker, label: str, width: int) -> list[str]:
    return next(row for row in checker.rows if len(row) == width and label in row[0])


def test_the_table_of_arms_shows_the_numbers_of_the_json() -> None:
    checker, arm = whole(), SAMPLE["arms"][MAIN]
    name, loss, general, selected, flops, seconds, memory = row_of(checker, "main arm", 7)
    assert arm["label"] in name and "ratio: 0.6, reference: reference" in name

    def shown(interval: dict[str, float]) -> str:
        return "{mean:.3f} {low:.3f} to {high:.3f}".format(**interval)

    assert (loss, general) == (shown(arm["target_loss"]), shown(arm["general_loss"]))
    assert selected == words.count(arm["tokens_selected"]["mean"])
    cost = {key: f"{value / 1e12:.0f}" for key, value in arm["flops"].items()}
    assert flops == f"{cost['total']} reference {cost['reference']} scoring {cost['scoring']}"
    measured = sorted(SAMPLE["measured"]["arms"][MAIN]["seconds"])
    assert seconds == f"{words.duration(measured[0])} to {words.duration(measured[-1])}"
    assert memory.startswith("2.8")


def test_what_it_took_is_a_share_a_count_of_seeds_or_never() -> None:
    checker = whole()
    shares = [*(part["share"] for part in SAMPLE["arms"][MAIN]["to_plain"].values())]
    shares.append(SAMPLE["measured"]["arms"][MAIN]["to_plain_seconds"]["share"])
    assert row_of(checker, SAMPLE["arms"][MAIN]["label"], 5)[1:] == [words.percent(share) for share in shares]
    assert row_of(checker, "Random, 60", 5)[1:] == ["never"] * 4
    assert row_of(checker, "Selective by reference loss, 60", 5)[1:] == ["in 2 of 3 seeds"] * 4


def test_every_difference_is_in_the_table_with_all_its_numbers() -> None:
    rows = [row for row in whole().rows if len(row) == 12 and " against " in row[0]]
    assert len(rows) == len(SAMPLE["differences"])
    for shown, found in zip(rows, SAMPLE["differences"], strict=True):
        scale, digits = (100, 1) if found["unit"] == "accuracy" else (1, 3)
        numbers = [float(cell.replace("−", "-")) for cell in shown[2:5]]
        wanted = [scale * found[key] for key in ("estimate", "low", "high")]
        assert numbers == pytest.approx(wanted, abs=0.5 * 10**-digits + 1e-9)
        assert shown[1] == found["text"] and shown[6].count(",") == 2
        assert shown[11].endswith(f"about {found['seeds_needed']['0.01']} seeds")


def test_every_number_in_a_table_stands_in_the_json() -> None:
    allowed = {*"12345678", "10"}
    for value in leaves(SAMPLE):
        for scaled in (value, 100 * value):
            allowed |= {f"{abs(scaled):.{digits}f}" for digits in range(5)}
        allowed |= {f"{value:,.0f}", *re.findall(r"[\d.]+", words.count(value) + words.duration(value))}
        allowed |= {f"{float(f'{value / 10**power:.3g}'):.10g}" for power in (6, 9, 12)}
        allowed |= {f"{value / 1e9:.2f}"}
    kept = [
        r["kept"] / r["tokens"] for a in SAMPLE["arms"].values() for g in (a["keep_rates"] or {}).values() for r in g
    ]
    allowed |= {f"{100 * share:.0f}" for share in kept}
    texts = json.dumps(SAMPLE, ensure_ascii=False)
    for row in whole().rows:
        for number in re.findall(r"\d[\d.,]*\d|\d", " ".join(row)):
            assert number in allowed or f"{number}" in texts, (number, row)


def leaves(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [leaf for inner in (value.values() if isinstance(value, dict) else value) for leaf in leaves(inner)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_text_from_anywhere_is_escaped() -> None:
    evil = '</style></script><script>alert(1)</script><img src=x onerror="alert(2)"> {{ 7*7 }} \x00\ud800'
    comparison = cut()
    comparison |= {"title": evil, "warnings": [evil], "not_run": [evil], "varies": [evil]}
    comparison["answer"] |= {"lead": evil, "sentence": evil}
    comparison["model"]["description"] = comparison["measured"]["hardware"] = evil
    comparison["measured"]["stages"] = {evil: 1.0}
    comparison["versions"] = {evil: evil}
    comparison["recipe"] = {evil: evil}
    for arm in comparison["arms"].values():
        arm["label"], arm["changes"] = evil, {evil: evil}
        for group in ("targets", "general"):
            arm[group] = {evil: {"mean": 1.0, "low": None, "high": None}}
        for rows in (arm["keep_rates"] or {}).values():
            rows[0]["name"] = evil
    for group in ("targets", "general"):
        comparison[group] = [{"name": evil, "documents": 1, "tokens": 1}]
        comparison["start"][group] = {evil: 1.0}
    for row in comparison["differences"]:
        row["sentence"] = evil
        row["text"] = evil if row["unit"] == "accuracy" else row["text"]
    for task in comparison["tasks"]:
        task |= {"name": evil, "kind": evil, "metric": evil}
    comparison["sweep"][0]["score"] = evil
    comparison["overlap"]["targets"] = {evil: comparison["overlap"]["targets"]["math"]}
    comparison["matched"] = {"same": [evil], "differ": {evil: dict.fromkeys(comparison["arms"], evil)}}
    checker = check(comparison)
    tags = [tag for tag, _ in checker.tags]
    assert "script" not in tags and "img" not in tags and tags.count("style") == 1
    assert not any(name.startswith("on") for _, attrs in checker.tags for name in attrs)
    assert checker.text.count("alert(1)") == checker.text.count("{{ 7*7 }}") > 100
    assert "\x00" not in checker.text and "\ud800" not in checker.text


def test_the_page_names_no_address_and_no_script() -> None:
    page = render_comparison(SAMPLE)
    assert not re.search(r"https?:|[^:]//\w|@import|url\(|<script", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none'") and "script" not in policy[1]


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "comparison.html"
    write_comparison(SAMPLE, path)
    before = path.read_bytes()
    assert b"PlanetMath" in before and [child.name for child in tmp_path.iterdir()] == ["comparison.html"]
    broken = cut()
    del broken["matched"]
    with pytest.raises(Exception, match="matched"):
        write_comparison(broken, path)
    assert path.read_bytes() == before and [child.name for child in tmp_path.iterdir()] == ["comparison.html"]
