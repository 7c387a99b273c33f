"""Paired differences: false alarms and coverage over simulated comparisons, known answers, and what is refused."""

import dataclasses
import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tokensieve.compare.statistics import Difference, DocumentSums, mean_interval, paired_difference, seeds_needed

SIMULATED = 200
MOST_FALSE_ALARMS = 18
SEED = 20261105

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_t(3, shape) / np.sqrt(3)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What differs between two arms that are the same, in nats a token."""

    seed: float = 0.0
    """Of the whole run: one draw per seed."""
    document: float = 0.0
    """Of a document with every seed, as standard error of the mean over documents."""
    both: float = 0.0
    """Of a document with one seed, as standard error of a run's mean over documents."""
    noise: Noise = normal
    unequal: bool = False

    def lengths(self, rng: np.random.Generator, documents: int) -> np.ndarray:
        if self.unequal:
            return np.maximum(rng.lognormal(6, 1.5, documents), 5).astype(np.int64)
        return np.full(documents, 400)


SETTINGS = {
    "seeds": Setting(seed=0.01),
    "documents": Setting(document=0.01),
    "seeds and documents": Setting(seed=0.01, document=0.006),
    "seeds, some documents": Setting(seed=0.01, document=0.003),
    "documents by seed": Setting(both=0.01),
    "all": Setting(seed=0.01, document=0.01, both=0.01),
    "heavy tails, unequal lengths": Setting(seed=0.01, document=0.01, both=0.01, noise=heavy, unequal=True),
    "documents, heavy tails, unequal lengths": Setting(document=0.01, noise=heavy, unequal=True),
}


def pair(ours_SD: np.ndarray, counts_D: np.ndarray) -> tuple[list[DocumentSums], list[DocumentSums]]:
    """Runs whose mean losses on documents differ by `ours_SD`, around losses that vary much more."""
    base_D = 3 + 0.5 * np.sin(np.arange(len(counts_D)))
    ours = [DocumentSums((base_D + ours_D) * counts_D, counts_D) for ours_D in ours_SD]
    return ours, [DocumentSums(base_D * counts_D, counts_D) for _ in ours_SD]


def simulate(
    setting: Setting, documents: int, true: float = 0.0, seeds: int = 3, count: int = SIMULATED
) -> list[Difference]:
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(count):
        counts_D = setting.lengths(rng, documents)
        # With unequal lengths fewer documents carry the mean; the effects are then larger than their names say.
        scale = np.sqrt(documents)
        ours_SD = true + setting.seed * rng.standard_normal((seeds, 1))
        ours_SD = ours_SD + setting.document * scale * setting.noise(rng, (1, documents))
        ours_SD = ours_SD + setting.both * scale * setting.noise(rng, (seeds, documents))
        found.append(paired_difference(*pair(ours_SD, counts_D)))
    return found


def covered(found: Sequence[Difference], true: float) -> int:
    return sum(one.low <= true <= one.high for one in found if one.low is not None and one.high is not None)


@pytest.mark.parametrize("documents", [20, 2000])
@pytest.mark.parametrize("name", SETTINGS)
def test_an_arm_against_itself_gives_few_false_alarms(name: str, documents: int) -> None:
    found = simulate(SETTINGS[name], documents)
    assert sum(one.verdict != "undecided" for one in found) <= MOST_FALSE_ALARMS


@pytest.mark.parametrize(
    ("name", "documents"),
    [*((name, 20) for name in SETTINGS), ("all", 2000), ("heavy tails, unequal lengths", 2000)],
)
def test_the_interval_covers_a_planted_difference(name: str, documents: int) -> None:
    # 95 % of 300 is 285; fewer than 274 would happen once in 1,000 times.
    assert covered(simulate(SETTINGS[name], documents, true=-0.021, count=300), -0.021) >= 274


@pytest.mark.parametrize("seeds", [2, 5])
def test_other_numbers_of_seeds_cover_too(seeds: int) -> None:
    found = simulate(SETTINGS["seeds, some documents"], 200, true=0.01, seeds=seeds, count=300)
    assert covered(found, 0.01) >= 274


@pytest.mark.parametrize("name", ["seeds", "documents", "documents by seed"])
def test_the_interval_is_not_needlessly_wide(name: str) -> None:
    # With one source of chance the paired t interval is exact, and ours may be wider only where a run's own
    # documents are the source: there it cannot know that they are all there is.
    found = simulate(SETTINGS[name], 200, count=300)
    factor = {"seeds": stats.t.ppf(0.975, 2), "documents": 1.972, "documents by seed": stats.t.ppf(0.975, 2)}[name]
    error = 0.01 if name == "documents" else 0.01 / np.sqrt(3)
    width = np.sqrt(np.mean([(one.high - one.low) ** 2 / 4 for one in found if one.high is not None and one.low]))
    assert 0.85 * factor * error < width < 1.15 * factor * error


@pytest.mark.parametrize("name", ["seeds", "documents"])
def test_a_planted_difference_of_detectable_size_is_found(name: str) -> None:
    quiet = simulate(SETTINGS[name], 200)
    size = float(np.sqrt(np.mean([one.detectable**2 for one in quiet if one.detectable is not None])))
    verdicts = [one.verdict for one in simulate(SETTINGS[name], 200, true=-size)]
    assert 0.7 * SIMULATED <= verdicts.count("better") <= 0.9 * SIMULATED
    assert verdicts.count("worse") == 0


def test_a_percentile_bootstrap_over_three_seeds_covers_far_too_little() -> None:
    # The reason for t: a bootstrap's interval ends at the best and the worst seed.
    found = simulate(SETTINGS["seeds"], 200)
    inside = 0
    for one in found:
        drawn = np.random.default_rng(1).choice(one.per_seed, (2000, 3)).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        inside += low <= 0 <= high
    assert inside < 0.82 * SIMULATED
    assert covered(found, 0.0) >= 0.91 * SIMULATED


def test_right_items_of_a_task_give_few_false_alarms() -> None:
    rng = np.random.default_rng(SEED)
    alarms = 0
    for _ in range(SIMULATED):
        chance_D = rng.beta(0.6, 0.9, 60)
        runs = [DocumentSums((rng.random(60) < chance_D).astype(float), np.ones(60, int)) for _ in range(6)]
        alarms += paired_difference(runs[:3], runs[3:], lower_is_better=False).verdict != "undecided"
    assert alarms <= MOST_FALSE_ALARMS


@pytest.mark.parametrize(("gained", "lost"), [(30, 12), (20, 14), (9, 9), (4, 25)])
def test_equal_seeds_of_a_task_agree_with_mcnemar(gained: int, lost: int) -> None:
    ours_D, theirs_D = np.zeros(300), np.zeros(300)
    ours_D[:gained], theirs_D[gained : gained + lost] = 1, 1
    ones = np.ones(300, int)
    found = paired_difference([DocumentSums(ours_D, ones)] * 3, [DocumentSums(theirs_D, ones)] * 3,
                              lower_is_better=False)  # fmt: skip
    mcnemar = stats.chi2.sf((gained - lost) ** 2 / (gained + lost), 1)
    assert found.p == pytest.approx(mcnemar, rel=0.25, abs=1e-4)
    expected = "undecided" if mcnemar > 0.05 else "better" if gained > lost else "worse"
    assert found.verdict == expected


def test_documents_that_add_nothing_leave_the_paired_t_test() -> None:
    differences_S = np.array([-0.03, -0.01, -0.024, -0.017])
    found = paired_difference(*pair(np.repeat(differences_S[:, None], 50, axis=1), np.full(50, 100)))
    expected = stats.ttest_1samp(differences_S, 0)
    low, high = expected.confidence_interval(0.95)
    assert found.estimate == pytest.approx(differences_S.mean())
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))
    assert found.effect_size == pytest.approx(differences_S.mean() / differences_S.std(ddof=1))
    assert found.seed_sd == pytest.approx(differences_S.std(ddof=1))
    assert found.document_error == pytest.approx(0, abs=1e-9)
    assert found.verdict == "better"


def test_seeds_that_add_nothing_leave_the_t_test_over_documents() -> None:
    differences_D = np.random.default_rng(3).normal(0.02, 0.05, 40)
    found = paired_difference(*pair(np.repeat(differences_D[None], 3, axis=0), np.full(40, 7)))
    expected = stats.ttest_1samp(differences_D, 0)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))
    assert found.document_freedom == pytest.approx(39)
    assert found.document_error == pytest.approx(differences_D.std(ddof=1) / np.sqrt(40))


def test_the_documents_part_is_the_jackknife_of_the_ratio() -> None:
    rng = np.random.default_rng(5)
    counts_D, differences_D = rng.integers(1, 900, 25), rng.normal(0, 0.1, 25)
    found = paired_difference(*pair(np.repeat(differences_D[None], 3, axis=0), counts_D))
    sums_D = differences_D * counts_D
    left_out_D = (sums_D.sum() - sums_D) / (counts_D.sum() - counts_D)
    expected = np.sqrt(24 / 25 * ((left_out_D - found.estimate) ** 2).sum())
    assert found.document_error == pytest.approx(expected)


def test_degrees_of_freedom_of_documents_follow_their_lengths() -> None:
    rng = np.random.default_rng(5)
    counts_D = rng.integers(1, 900, 25)
    found = paired_difference(*pair(rng.normal(0, 0.1, (3, 25)), counts_D))
    # From the definition: the variance is a quadratic form of the documents' means, here independent and alike.
    weights_D = counts_D / counts_D.sum()
    form = np.diag(weights_D / (1 - weights_D)) @ (np.eye(25) - np.outer(np.ones(25), weights_D))
    form = form @ form.T
    assert found.document_freedom == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))
    assert found.document_freedom < 20


def test_the_interaction_is_counted_once() -> None:
    errors = [(one.seed_error, one.document_error) for one in simulate(SETTINGS["documents by seed"], 200)]
    seeds, documents = np.sqrt(np.mean(np.square(np.array(errors, dtype=float)), axis=0))
    assert seeds == pytest.approx(0.01 / np.sqrt(3), rel=0.25)
    assert documents < 0.3 * seeds


def test_seeds_that_agree_by_chance_are_no_surer_than_their_documents() -> None:
    # Every seed's mean is the same and so is every document's, but no two seeds agree on any document.
    both_SD = np.array([[3.0, -3, 1, -1], [-1, 1, -3, 3], [-2, 2, 2, -2]])
    found = paired_difference(*pair(both_SD + 0.5, np.full(4, 10)))
    assert found.seed_sd == pytest.approx(0, abs=1e-12) and found.document_error == pytest.approx(0, abs=1e-12)
    # The mean square of rows by columns, (20 + 20 + 16) / 6, over the 12 numbers; 2 x 3 degrees of freedom.
    error = np.sqrt(56 / 6 / 12)
    assert found.seed_error == pytest.approx(error)
    assert found.low == pytest.approx(0.5 - stats.t.ppf(0.975, 6) * error)
    assert found.verdict == "undecided"


def test_seeds_that_agree_to_the_last_digits_have_no_effect_size() -> None:
    found = paired_difference(*pair(np.array([[0.1, 0.3], [0.3, 0.1], [0.2 + 1e-16, 0.2]]), np.full(2, 10)))
    assert found.effect_size is None


def test_p_is_below_the_level_where_the_interval_leaves_out_zero() -> None:
    for true in (0.0, 0.01, 0.03):
        for one in simulate(SETTINGS["all"], 20, true=true, count=30):
            assert one.p is not None
            assert (one.verdict != "undecided") == (one.p < 0.05)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_changing_sides_mirrors_everything(seeds: int, documents: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = pair(rng.normal(0.1, 0.1, (seeds, documents)), rng.integers(1, 500, documents))
    one, other = paired_difference(ours, theirs), paired_difference(theirs, ours)
    flipped = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert other.estimate == -one.estimate and other.verdict == flipped[one.verdict]
    assert one.low is not None and one.high is not None
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert paired_difference(ours, theirs, lower_is_better=False).verdict == flipped[one.verdict]
    assert one.low <= one.estimate <= one.high


def test_losses_are_sums_over_counts() -> None:
    ours, theirs = [DocumentSums(np.array([10.0, 900]), np.array([10, 300]))], [
        DocumentSums(np.array([20.0, 900]), np.array([10, 300]))
    ]  # fmt: skip
    assert paired_difference(ours, theirs).estimate == pytest.approx(-10 / 310)


def test_a_wider_confidence_is_a_wider_interval() -> None:
    ours, theirs = pair(np.random.default_rng(2).normal(0, 0.1, (3, 30)), np.full(30, 9))
    narrow, wide = (paired_difference(ours, theirs, confidence=level) for level in (0.8, 0.99))
    assert wide.low is not None and narrow.low is not None and wide.low < narrow.low
    assert wide.confidence == 0.99 and wide.p == narrow.p


def test_one_seed_is_undecided_and_has_no_interval() -> None:
    found = paired_difference(*pair(np.full((1, 50), -5.0), np.full(50, 10)))
    assert found.estimate == pytest.approx(-5)
    assert (found.low, found.high, found.p, found.detectable, found.seed_sd) == (None,) * 5
    assert found.effect_size is None and found.verdict == "undecided"
    assert seeds_needed(found, 0.01) is None


def test_one_document_is_undecided_and_has_no_interval() -> None:
    ours, theirs = pair(np.array([[-5.0], [-5.1], [-5.2]]), np.array([10]))
    found = paired_difference(ours, theirs)
    assert (found.low, found.high, found.p, found.detectable, found.document_error) == (None,) * 5
    assert found.verdict == "undecided" and found.seed_sd == pytest.approx(0.1)


def test_documents_without_tokens_count_for_nothing() -> None:
    means_SD = np.random.default_rng(2).normal(0, 0.1, (3, 30))
    plain = paired_difference(*pair(means_SD, np.full(30, 9)))
    counts_D = np.concatenate([np.full(30, 9), np.zeros(30, int)])
    padded = paired_difference(*pair(np.concatenate([means_SD, means_SD], axis=1), counts_D))
    assert padded.low == pytest.approx(plain.low) and padded.document_freedom == pytest.approx(29)


def test_identical_arms_are_no_better() -> None:
    ours, _ = pair(np.random.default_rng(2).normal(0, 0.1, (3, 30)), np.full(30, 9))
    found = paired_difference(ours, ours)
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.verdict == "undecided" and found.effect_size is None and found.detectable == 0


def test_detectable_agrees_with_the_noncentral_t() -> None:
    differences_S = np.array([-0.03, -0.01, -0.024])
    found = paired_difference(*pair(np.repeat(differences_S[:, None], 50, axis=1), np.full(50, 100)))
    error = differences_S.std(ddof=1) / np.sqrt(3)
    critical = stats.t.ppf(0.975, 2)
    assert found.detectable is not None
    shift = found.detectable / error
    assert stats.nct.sf(critical, 2, shift) + stats.nct.cdf(-critical, 2, shift) == pytest.approx(0.8, abs=0.005)


def test_seeds_needed_agrees_with_the_noncentral_t() -> None:
    differences_S = np.array([-0.03, -0.01, -0.024])
    found = paired_difference(*pair(np.repeat(differences_S[:, None], 50, axis=1), np.full(50, 100)))
    sd = differences_S.std(ddof=1)

    def power(seeds: int, size: float) -> float:
        return float(stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, size / sd * np.sqrt(seeds)))

    for size in (0.005, 0.01, 0.03):
        needed = seeds_needed(found, size)
        assert needed is not None
        assert power(needed + 1, size) > 0.8 > power(needed - 1, size)
    assert found.detectable is not None and seeds_needed(found, found.detectable * 1.001) == 3
    few, many = seeds_needed(found, 0.01, power=0.5), seeds_needed(found, 0.01, power=0.99)
    assert few is not None and many is not None and few < many


def test_no_number_of_seeds_makes_up_for_too_few_documents() -> None:
    rng = np.random.default_rng(4)
    ours_SD = rng.normal(0, 0.001, (3, 1)) + rng.normal(0, 0.1, (1, 20))
    found = paired_difference(*pair(ours_SD, np.full(20, 50)))
    assert seeds_needed(found, 0.01) is None
    assert seeds_needed(found, 0.3) == 2


def test_plain_is_json_with_the_names_of_the_schema() -> None:
    shown = simulate(SETTINGS["all"], 20, count=1)[0].plain()
    assert set(json.loads(json.dumps(shown))) == {
        "estimate", "low", "high", "confidence", "p", "per_seed", "seed_sd", "document_error", "effect_size",
        "verdict", "detectable",
    }  # fmt: skip


def test_mean_interval_is_the_t_interval() -> None:
    values = [3.1, 3.0, 3.3]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, 0.9) == pytest.approx({"mean": np.mean(values), "low": low, "high": high})
    assert mean_interval([2.5]) == {"mean": 2.5, "low": None, "high": None}


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_mean_interval_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


@pytest.mark.parametrize(
    ("sums", "counts", "message"),
    [
        ([1.0, float("nan")], [2, 2], "document 1 has no finite sum"),
        ([float("inf"), 1.0], [2, 2], "document 0 has no finite sum"),
        ([1.0], [2, 2], "two equal rows"),
        ([], [], "no token"),
        ([0.0], [0], "no token"),
        ([1.0, 1.0], [2, -2], "0 or more"),
        ([1.0, 1.0], [2.0, 2.0], "whole numbers"),
        ([1.0, 1.0], [2, 0], "without tokens has nats"),
    ],
)
def test_sums_that_mean_nothing_are_refused(sums: list[float], counts: list[float], message: str) -> None:
    counts_D = np.array(counts) if counts else np.zeros(0, int)
    with pytest.raises(ValueError, match=message):
        DocumentSums(np.array(sums), counts_D)


def test_runs_that_do_not_pair_are_refused() -> None:
    ours, theirs = pair(np.zeros((3, 4)), np.full(4, 5))
    with pytest.raises(ValueError, match="3 of ours, 2 of theirs"):
        paired_difference(ours, theirs[:2])
    with pytest.raises(ValueError, match="0 of ours"):
        paired_difference([], [])
    longer = [DocumentSums(run.sums_D, run.counts_D + 1) for run in theirs]
    with pytest.raises(ValueError, match="different documents"):
        paired_difference(ours, longer)
    _, more = pair(np.zeros((3, 5)), np.full(5, 5))
    with pytest.raises(ValueError, match="different documents"):
        paired_difference(ours, more)


def test_senseless_settings_are_refused() -> None:
    ours, theirs = pair(np.zeros((3, 4)), np.full(4, 5))
    with pytest.raises(ValueError, match="confidence"):
        paired_difference(ours, theirs, confidence=95)
    with pytest.raises(ValueError, match="size"):
        seeds_needed(paired_difference(ours, theirs), 0)
