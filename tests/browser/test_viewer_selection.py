"""The choice on the viewer's page is the choice of the library, and its numbers are those of the stores."""

import json
import math
import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tokensieve.selection import TokenColumns, compute_score, select_tokens
from tokensieve.viewer.passages import View

from .chromium import PROGRAM, Browser, browser
from .viewer_pages import MODELS, Page, choose, kept, kept_everywhere, open_passage, table, texts, view, written

pytestmark = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="chromium is not installed; scripts/install-debian-packages installs it",
)


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PROGRAM is not None, "CI is set, so chromium must be installed: scripts/install-debian-packages"
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(view(), tmp_path_factory.mktemp("page"))


def expected(shown: View, score: str, scope: str, ratio: float, student: str, reference: str) -> list[list[bool]]:
    """What the library keeps of each passage."""
    longest = max(len(passage.ids) for passage in shown.passages)

    def column(values: list[np.ndarray], fill: float) -> torch.Tensor:
        rows = [np.pad(row, (0, longest - len(row)), constant_values=fill) for row in values]
        return torch.from_numpy(np.stack(rows))

    def floats(name: str, key: str) -> torch.Tensor:
        return column([getattr(passage, name)[key] for passage in shown.passages], 0).float()

    columns = TokenColumns(
        loss=floats("losses", student),
        reference_loss=floats("losses", reference),
        entropy=floats("entropies", student),
        reference_entropy=floats("entropies", reference),
    )
    valid = column([passage.candidates for passage in shown.passages], 0)
    documents = column([p.documents for p in shown.passages if p.documents is not None], -1)
    scores = compute_score(score, columns)
    chosen = select_tokens(scores, valid, ratio, scope, documents)
    return [chosen[i, : len(passage.ids)].tolist() for i, passage in enumerate(shown.passages)]


SCORES = ("excess_loss", "reference_loss", "current_loss", "reference_entropy", "current_entropy")


@pytest.mark.parametrize("scope", ["global", "sequence", "document"])
@pytest.mark.parametrize("score", SCORES)
def test_the_page_keeps_what_the_library_keeps(tab: Browser, page: Page, score: str, scope: str) -> None:
    tab.open(page.path, fragment=f"#score={score}&scope={scope}")
    for percent in (1, 37, 57, 60, 100):
        choose(tab, "ratio", str(percent))
        right = expected(page.view, score, scope, percent / 100, "late", "ref")
        assert kept_everywhere(tab) == right, percent
        shown = tab.evaluate("document.getElementById('kept-count').textContent")
        candidates = sum(int(passage.candidates.sum()) for passage in page.view.passages)
        assert shown == f"{sum(map(sum, right)):,} of {candidates:,} tokens kept"


def test_a_ratio_between_whole_percents_can_be_typed(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    choose(tab, "percent", "42.7")
    assert kept(tab) == expected(page.view, "excess_loss", "global", 0.427, "late", "ref")[0]
    choose(tab, "percent", "0")
    assert kept(tab) == expected(page.view, "excess_loss", "global", 0.427, "late", "ref")[0]
    assert tab.evaluate("document.getElementById('percent').value") == "42.7"


def test_other_models_make_another_choice(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    choose(tab, "student", "early")
    choose(tab, "reference", "other")
    assert kept(tab) == expected(page.view, "excess_loss", "global", 0.6, "early", "other")[0]


def test_shares_follow_the_slider(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for percent in (20, 85):
        choose(tab, "ratio", str(percent))
        right = expected(page.view, "excess_loss", "global", percent / 100, "late", "ref")
        rows = tab.evaluate(
            """[...document.querySelectorAll("#share-groups li")].map(e => [e.querySelector(".name").textContent,
                +e.dataset.kept, +e.dataset.candidates, e.querySelector(".value").textContent,
                e.querySelector(".fill").style.width])"""
        )
        pairs = list(zip(page.view.passages, right, strict=True))
        groups = {"All passages": pairs, "This passage": pairs[:1]}
        groups |= {name: [pair for pair in pairs if pair[0].source == i] for i, name in enumerate(page.view.sources)}
        wanted = {
            name: (sum(map(sum, (row for _, row in members))), sum(int(p.candidates.sum()) for p, _ in members))
            for name, members in groups.items()
        }
        for i, name in enumerate(page.view.regions or ()):
            inside = [(p.regions == i, p.candidates, np.array(row)) for p, row in pairs]
            wanted[name] = (
                int(sum((region & row).sum() for region, _, row in inside)),
                int(sum((region & candidates).sum() for region, candidates, _ in inside)),
            )
        assert {name: (a, b) for name, a, b, *_ in rows} == wanted
        for name, a, b, value, width in rows:
            assert value == f"{math.floor(100 * a / b + 0.5)}\u202f%", name
            assert math.isclose(float(width.rstrip("%")), 100 * a / b, rel_tol=1e-3)


def test_all_numbers_are_those_of_the_view(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    for number, passage in enumerate(page.view.passages):
        open_passage(tab, number)
        rows = table(tab)
        assert [int(row["id"]) for row in rows] == passage.ids.tolist()
        assert [json.loads(row["token"]) for row in rows] == list(passage.pieces) == texts(tab)
        for model in MODELS:
            for name, columns in (("loss", passage.losses), ("entropy", passage.entropies)):
                shown = np.array([float(row[f"{name} {model.label}"] or "nan") for row in rows])
                assert np.array_equal(shown, columns[model.key].astype(float), equal_nan=True)
        excess = passage.losses["late"].astype(np.float32) - passage.losses["ref"].astype(np.float32)
        shown = np.array([float(row["excess"] or "nan") for row in rows])
        assert np.array_equal(shown, excess.astype(float), equal_nan=True)


def test_the_panel_of_a_token_shows_its_numbers(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    passage = page.view.passages[0]
    scores = np.concatenate([(p.losses["late"].astype(np.float32) - p.losses["ref"]) for p in page.view.passages])
    for token in (0, 1, 7, 50, 89):
        tab.evaluate(f"document.querySelectorAll('.text > span')[{token}].click()")
        losses = tab.evaluate(
            "[...document.querySelectorAll('#detail .loss data')].map(e => e.value === '' ? null : +e.value)"
        )
        right = [float(column[key][token]) for key in passage.losses for column in (passage.losses, passage.entropies)]
        assert losses == [None if math.isnan(value) else value for value in right]
        assert tab.evaluate("document.querySelector('#detail .id data').value") == str(passage.ids[token])
        rank = tab.evaluate("document.querySelector('#detail .rank dd')?.textContent ?? null")
        if token == 0:
            assert rank is None
            continue
        ahead = (scores > scores[token]).sum() + (scores[:token] == scores[token]).sum()
        assert rank == f"{ahead + 1} of {np.isfinite(scores).sum()}"


def test_sentences_say_why(tab: Browser, page: Page) -> None:
    tab.open(page.path)
    why = "document.querySelector('#detail .why').textContent"
    hard = float(
        np.median(
            np.concatenate([p.losses[key][p.candidates] for p in page.view.passages for key in ("late", "ref")]).astype(
                np.float32
            )
        )
    )
    tab.evaluate("document.getElementById('help-open').click()")
    helped = tab.evaluate("document.getElementById('help-thresholds').textContent")
    assert f"above {hard:.2f} nats" in helped
    for kind, key in (("student", "late"), ("reference", "ref")):
        found_unsure = np.concatenate([p.entropies[key][p.candidates] for p in page.view.passages]).astype(np.float32)
        assert (
            f"{kind} is “unsure” where its entropy is above its median here, {np.median(found_unsure):.2f} " in helped
        )
    tab.evaluate("document.getElementById('help').close()")
    found = set()
    for number, passage in enumerate(page.view.passages[:3]):
        open_passage(tab, number)
        chosen = kept(tab)
        sentences = tab.evaluate(
            f"[...document.querySelectorAll('.text > span')].map(e => {{ e.click(); return {why}; }})"
        )
        for token, (keep, sentence) in enumerate(zip(chosen, sentences, strict=True)):
            student, reference = float(passage.losses["late"][token]), float(passage.losses["ref"][token])
            if math.isnan(student):
                assert sentence.startswith("No candidate: the first token")
                continue
            assert sentence.startswith("Kept" if keep else "Dropped"), sentence
            if keep and student - reference < 0.25:
                assert "only because the ratio reaches down" in sentence
            elif keep and student > hard >= reference:
                assert "something to learn" in sentence and "the reference does not" in sentence
            elif not keep and student - reference < 0.25 and min(student, reference) > hard:
                more = ", the reference even more so" if student - reference <= -0.25 else ""
                assert f"both models find it hard{more}: nothing to learn here" in sentence
            elif not keep and abs(student - reference) < 0.25 and max(student, reference) <= hard:
                assert "learned already" in sentence
            elif not keep and student <= hard and student - reference <= -0.25:
                assert "the student is ahead of the reference" in sentence
            found.add(sentence.split(":")[1][:20])
    assert len(found) >= 6


@pytest.mark.parametrize("score", SCORES[1:])
def test_every_score_has_sentences_of_its_own(tab: Browser, page: Page, score: str) -> None:
    tab.open(page.path, fragment=f"#score={score}")
    sentences = tab.evaluate(
        """[...new Set([...document.querySelectorAll('.text > span')].map(e => { e.click();
            return document.querySelector('#detail .why').textContent; }))]"""
    )
    who = "reference" if score.startswith("reference") else "student"
    about = [sentence for sentence in sentences if not sentence.startswith("No candidate")]
    assert len(about) >= 2 and all(who in sentence for sentence in about)
