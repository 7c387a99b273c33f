"""The figures of an analysis as files: all numbers of the JSON, and drawings that are readable alone."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import tokensieve.report.dynamics as dynamics_module
from tokensieve.report.dynamics import write_figures
from tokensieve.report.dynamics_figures import figures
from tokensieve.report.dynamics_kinds import KINDS
from tokensieve.report.dynamics_look import run_styles

SAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "dynamics.json").read_text(encoding="utf-8"))
TEMPLATES = Path(dynamics_module.__file__).parent / "templates"
KEYS = [kind.key for kind in KINDS]
ALL_FILES = [
    *(f"{key}.{end}" for key in ("figure-2", "figure-2bc", "kept") for end in ("svg", "csv")),
    *(f"figure-{n}.{end}" for n in (6, 7, 8, 9) for end in ("svg", "csv")),
    "kinds-by-group.svg", "kinds-by-group.csv", "figure-11.csv", "figure-13.csv", "figure-14.csv",
]  # fmt: skip


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_hold_the_numbers_of_the_json(tmp_path: Path) -> None:
    written = write_figures(SAMPLE, tmp_path / "made" / "figures")
    assert [path.name for path in written] == ALL_FILES
    folder = tmp_path / "made" / "figures"
    assert sorted(path.name for path in folder.iterdir()) == sorted(ALL_FILES)
    losses = [float(row["loss"]) for row in read(folder / "figure-2.csv")]
    assert losses == [y for arm in SAMPLE["runs"] for key in KEYS for y in SAMPLE["trajectories"][arm][key]]
    split = SAMPLE["split"]
    curves = {**{p: {a: c[p] for a, c in split["arms"].items()} for p in ("selected", "unselected")}, **split}
    for part in ("selected", "unselected", "target"):
        rows = [row for row in read(folder / "figure-6.csv") if row["part"] == part]
        wanted = [(a, x, y) for a, points in curves[part].items() for x, y in points]
        assert [(row["run"], float(row["tokens_seen"]), float(row["loss"])) for row in rows] == wanted
    sets = [(one["at"], *point) for one in SAMPLE["over_time"]["sets"] for point in one["curve"]]
    assert [tuple(map(float, row.values())) for row in read(folder / "figure-8.csv")] == sets
    groups = read(folder / "kinds-by-group.csv")
    assert len(groups) == 4 * sum(len(rows) for rows in SAMPLE["categories"]["low_to_low"]["by"].values())
    tokens = [token for example in SAMPLE["examples"] for token in example["tokens"]]
    assert [json.loads(row["text"]) for row in read(folder / "figure-11.csv")] == [token["text"] for token in tokens]
    assert [row["category"] for row in read(folder / "figure-11.csv")] == [token["category"] or "" for token in tokens]
    kept = [{None: "", True: "true", False: "false"}[token["kept"]] for token in tokens]
    assert [row["kept"] for row in read(folder / "figure-13.csv")] == kept
    levels = [row["at_66"] for row in read(folder / "figure-14.csv")]
    assert levels == [str(token["tendency"][2]) if token["tendency"] else "" for token in tokens]


def test_drawings_stand_alone(tmp_path: Path) -> None:
    for path in write_figures(SAMPLE, tmp_path):
        if path.suffix != ".svg":
            continue
        text = path.read_text(encoding="utf-8")
        root = ET.fromstring(text)
        name = "{http://www.w3.org/2000/svg}"
        words = [element.text or "" for element in root.iter(f"{name}text")]
        assert root.find(f"{name}title") is not None and len(words) > 8, path.name
        # Its own background, in both schemes, and nothing that only browsers know or that lies elsewhere.
        assert root.find(f"{name}rect[@class='page']") is not None and "prefers-color-scheme:dark" in text
        assert "var(" not in text and "href" not in text and text.count("http") == 1, path.name
        used = set(re.findall(r'<path class="(\w+)', text)) - {"at"}
        for css in used:
            assert re.search(rf"(?:path)?\.{css}[^{{]*\{{stroke:#", text), (path.name, css)
        if "seen" in text:
            assert "tokens seen →" in " ".join(words) and any("↑" in word for word in words)


def test_lines_are_told_apart_without_colour() -> None:
    sheet = (TEMPLATES / "dynamics.css").read_text(encoding="utf-8")
    rules = dict(re.findall(r"svg path\.(\w+) \{ ([^}]*) \}", sheet))
    assert len({rules["hl"], rules["ll"], rules["hh"], rules["lh"]}) == 4
    assert len({rules["f1"], rules["f2"], rules["f3"]}) == 3
    for figure in figures(SAMPLE, run_styles(SAMPLE)).values():
        for chart in figure.charts:
            assert len(chart.ends) == len(chart.lines) or figure.key == "figure-9", figure.key


def test_marks_of_text_are_told_apart_without_colour() -> None:
    sheet = (TEMPLATES / "dynamics.css").read_text(encoding="utf-8")
    for names in (("hl", "hh", "lh"), ("v1", "v2", "v3", "v4")):
        lines = [
            re.search(rf"\.{name}(?:, \.sample\.{name})? \{{[^}}]*border-bottom: ([^;]*);", sheet) for name in names
        ]
        styles = [line[1].rsplit(" ", 1)[0] for line in lines if line]
        assert len(styles) == len(names) == len(set(styles))
