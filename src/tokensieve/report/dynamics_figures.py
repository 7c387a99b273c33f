"""The figures that follow the paper's 6 to 9, and the list of all figures.

The page and the files beside it are made from the same list, so neither can show what the other lacks. Figures that
the paper numbers keep its numbers; a part without data gives no figure, and the page says why.
"""

import math
from collections.abc import Mapping
from typing import Any

from tokensieve.report.charts import Points, line_chart, loss_range, ticks
from tokensieve.report.dynamics_drawing import NATS, Cell, Figure, by_arm, finite, name_of, seen_range
from tokensieve.report.dynamics_kinds import share
from tokensieve.report.dynamics_look import Run, counts_tokens
from tokensieve.report.dynamics_trajectories import fluctuating_figure, kept_figure, trajectory_figure
from tokensieve.report.words import count, fixed, is_number, percent


def figures(found: Mapping[str, Any], look: Mapping[str, Run]) -> dict[str, Figure]:
    """Every figure that there are data for, by its key, in the order of the page."""
    made = (
        trajectory_figure(found),
        fluctuating_figure(found),
        kept_figure(found),
        _split(found, look),
        _accuracy(found, look),
        _over_time(found),
        _sweep(found),
    )
    return {figure.key: figure for figure in made if figure is not None}


def _split(found: Mapping[str, Any], look: Mapping[str, Run]) -> Figure | None:
    """Figure 6: loss on selected tokens, on unselected ones, and on the target text."""
    split = found["split"]
    if split is None:
        return None
    parts = {
        "selected": ("Selected tokens", {arm: lines["selected"] for arm, lines in split["arms"].items()}),
        "unselected": ("Unselected tokens", {arm: lines["unselected"] for arm, lines in split["arms"].items()}),
        "target": ("Target text", split["target"]),
    }
    charts = []
    for part, (title, by) in parts.items():
        lines = {look[arm].css: finite(points) for arm, points in by.items() if look[arm].letter}
        # The target text was measured in training, where tokens are counted.
        counted = part == "target" or counts_tokens(found, by)
        x_label = "tokens seen" if counted else "checkpoint"
        if chart := by_arm(f"figure-6-{part}", title, lines, look, x_label):
            charts.append(chart)
    if not charts:
        return None
    drawn = {css for chart in charts for css in (line.arm for line in chart.lines)}
    rows = tuple(
        (part, arm, *point) for part, (_, by) in parts.items() for arm, points in by.items() for point in points
    )
    note = (
        f"Which {share(split['selected_share'])} of {split['tokens']:,} tokens count as selected was decided once, "
        f"by {split['decided_by']}. In the paper selective training ends lower on the selected tokens and on the "
        "target, and higher on the unselected ones. Each panel has its own scale."
    )
    return Figure(
        "figure-6",
        "Loss on selected tokens, on unselected ones and on the target",
        "Figure 6 of the paper",
        note,
        tuple(charts),
        {run.css: run.label for run in look.values() if run.css in drawn},
        {run.css: run.letter for run in look.values() if run.css in drawn},
        ("part", "run", "tokens_seen" if counts_tokens(found, split["arms"]) else "at", "loss"),
        rows,
    )


def _accuracy(found: Mapping[str, Any], look: Mapping[str, Run]) -> Figure | None:
    """Figure 7: accuracy against the loss on selected and on unselected tokens, with the fit through both."""
    accuracy = found["accuracy"]
    if accuracy is None:
        return None
    charts, rows = [], []
    for side in ("selected", "unselected"):
        points = {
            # In the order of training, so that the line leads from its start to its end.
            look[arm].css: finite([(point[side], point["accuracy"]) for point in rows_of])
            for arm, rows_of in accuracy["arms"].items()
            if look[arm].letter
        }
        points = {css: found_here for css, found_here in points.items() if found_here}
        every = [point for found_here in points.values() for point in found_here]
        if not every:
            continue
        x_range = loss_range([x for x, _ in every])
        y_range = loss_range([y for _, y in every])
        fit = [(x, y) for x, y in _fitted(accuracy["fit"][side], x_range) if y_range[0] <= y <= y_range[1]]
        described = "; ".join(
            f"{name_of(look, css)}: " + ", ".join(f"{percent(y)} at {fixed(x)} nats" for x, y in found_here)
            for css, found_here in points.items()
        )
        charts.append(
            line_chart(
                f"figure-7-{side}",
                f"Loss on {side} tokens",
                points | ({"fit": fit} if fit else {}),
                x_range=x_range,
                y_range=y_range,
                labels={run.css: run.word for run in look.values()} | {"fit": ""},
                short={run.css: run.letter for run in look.values()} | {"fit": "fit"},
                whiskers={css: [] for css in points},
                description=f"Accuracy against loss. {described}.",
                x_text=lambda x: fixed(x, 2),
                x_label=NATS,
                y_label="share of right answers",
            )
        )
    if not charts:
        return None
    for arm, found_here in accuracy["arms"].items():
        rows += [(arm, p["tokens"], p["accuracy"], p["selected"], p["unselected"]) for p in found_here]
    drawn = {line.arm for chart in charts for line in chart.lines}
    fits = [
        f"{side}: a = {_written(fit['a'])}, c = {_written(fit['c'])}" for side, fit in accuracy["fit"].items() if fit
    ]
    note = (
        f"Mean accuracy on {', '.join(accuracy['tasks'])}: one dot a checkpoint, joined in the order of training. "
        "Losses rise from left to right; the paper’s axis runs the other way."
    )
    if fits:
        note += f" Fitted Acc(L) = log(a L + c): {'; '.join(fits)}."
    names = {run.css: run.label for run in look.values() if run.css in drawn}
    return Figure(
        "figure-7",
        "Accuracy against loss",
        "Figure 7 of the paper",
        note,
        tuple(charts),
        names | ({"fit": "Fit"} if "fit" in drawn else {}),
        {run.css: run.letter for run in look.values() if run.css in drawn} | {"fit": ""},
        ("run", "tokens_seen", "accuracy", "selected_loss", "unselected_loss"),
        tuple(rows),
    )


def _over_time(found: Mapping[str, Any]) -> Figure | None:
    """Figure 8: perplexity, over the whole run, of the tokens that were selected at each of several checkpoints."""
    over_time = found["over_time"]
    sets = [one for one in over_time["sets"] if finite(one["curve"])] if over_time else []
    if not sets:
        return None
    shades = [f"t{1 + round(i * 5 / max(1, len(sets) - 1))}" for i in range(len(sets))]
    lines = {css: finite(one["curve"]) for css, one in zip(shades, sets, strict=True)}
    counted = counts_tokens(found, [over_time["arm"]])
    names = {
        css: f"selected at {count(one['at'])} tokens" if counted else f"selected at checkpoint {one['at']}"
        for css, one in zip(shades, sets, strict=True)
    }
    short = {css: count(one["at"]) for css, one in zip(shades, sets, strict=True)}
    described = " ".join(
        f"Tokens {names[css]}: from {fixed(points[0][1], 2)} to {fixed(points[-1][1], 2)}."
        for css, points in lines.items()
    )
    label = found["runs"][over_time["arm"]]["label"] if over_time["arm"] in found["runs"] else over_time["arm"]
    chart = line_chart(
        "figure-8-chart",
        label,
        lines,
        x_range=seen_range(lines),
        y_range=loss_range([y for points in lines.values() for _, y in points]),
        labels={css: "" for css in lines},
        short=short,
        x_ticks=ticks(*seen_range(lines), most=5),
        description=described,
        x_label="tokens seen" if counted else "checkpoint",
        y_label="perplexity",
    )
    note = (
        "One line for the tokens that were selected at one moment, followed over the whole run. In the paper each set "
        "peaks at its own moment and falls afterwards: selection picks tokens while they are badly predicted, and "
        "training on them works."
    )
    return Figure(
        "figure-8",
        "Perplexity of tokens that were selected at different moments",
        "Figure 8 of the paper",
        note,
        (chart,),
        names,
        {},
        ("selected_at", "tokens_seen" if counted else "checkpoint", "perplexity"),
        tuple((one["at"], *point) for one in sets for point in one["curve"]),
    )


def _sweep(found: Mapping[str, Any]) -> Figure | None:
    """Figure 9: final target loss by the ratio that was selected."""
    sweep = found["sweep"]
    if sweep is None:
        return None
    by = {
        css: [(p["ratio"], p[kind]) for p in sorted(sweep["points"], key=lambda p: p["ratio"]) if p[kind]]
        for css, kind in (("a1", "slm"), ("a3", "random"))
    }
    by = {css: [(x, i) for x, i in points if is_number(i["mean"])] for css, points in by.items()}
    level = sweep["plain"]["mean"] if sweep["plain"] else None
    ends = {css: [(x, *_ends(i)) for x, i in points] for css, points in by.items() if points}
    values = [y for spans in ends.values() for _, *both in spans for y in both]
    if not values:
        return None
    ratios = sorted({x for points in by.values() for x, _ in points})
    room = 0.1 * (ratios[-1] - ratios[0]) or 0.05
    names = {"a1": "Selective training", "a3": "Random selection"}
    described = " ".join(
        f"{names[css]}: " + ", ".join(f"{fixed(i['mean'])} at {percent(x)}" for x, i in points) + "."
        for css, points in by.items()
        if points
    )
    chart = line_chart(
        "figure-9-chart",
        f"Score: {sweep['score'].replace('_', ' ')}",
        {css: [(x, i["mean"]) for x, i in points] for css, points in by.items() if points},
        x_range=(ratios[0] - room, ratios[-1] + room),
        y_range=loss_range([*values, *([level] if is_number(level) else [])]),
        level=level,
        whiskers=ends,
        x_ticks=ratios,
        x_text=percent,
        description=described,
        x_label="share of tokens trained on",
        y_label=f"target loss, {NATS}",
    )
    rows: list[tuple[Cell, ...]] = [
        (kind, p["ratio"], p[kind]["mean"], p[kind]["low"], p[kind]["high"])
        for kind in ("slm", "random")
        for p in sweep["points"]
        if p[kind]
    ]
    if sweep["plain"]:
        rows.append(("clm", 1.0, *(sweep["plain"][name] for name in ("mean", "low", "high"))))
    return Figure(
        "figure-9",
        "Final target loss by the share of tokens trained on",
        "Figure 9 of the paper",
        "The paper shows accuracies, this the final loss on the target text: lower is better. The gap between the two "
        "lines is what the choice of tokens is worth; whiskers are intervals over seeds.",
        (chart,),
        {css: name for css, name in names.items() if by[css]},
        {},
        ("run", "ratio", "mean", "low", "high"),
        tuple(rows),
        level="Plain training, on all tokens" if is_number(level) else "",
    )


def _fitted(fit: Mapping[str, float] | None, x_range: tuple[float, float]) -> Points:
    """Points of Acc(L) = log(a L + c), where it has a value."""
    if fit is None:
        return []
    xs = [x_range[0] + i * (x_range[1] - x_range[0]) / 60 for i in range(61)]
    return [(x, math.log(fit["a"] * x + fit["c"])) for x in xs if fit["a"] * x + fit["c"] > 0]


def _ends(interval: Mapping[str, float | None]) -> tuple[float, float]:
    """The ends of an interval; the mean twice where one seed gave none."""
    low, high, mean = interval["low"], interval["high"], interval["mean"]
    assert mean is not None
    return (low, high) if is_number(low) and is_number(high) else (mean, mean)


def _written(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
