"""Figure 2: the losses of the four kinds over training, tokens that only fluctuate; and what selection keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from tokensieve.report.charts import Points, loss_range
from tokensieve.report.dynamics_drawing import NATS, Figure, by_checkpoint, exact
from tokensieve.report.dynamics_kinds import KINDS, share
from tokensieve.report.dynamics_look import Axis, along, axis_of, inline
from tokensieve.report.words import is_number, percent, printable

MOST_NAME = 14
"""Characters of a token that fit beside the end of its line."""


def trajectory_figure(found: Mapping[str, Any]) -> Figure | None:
    """Figure 2a: mean loss of each kind over the checkpoints, a panel for each run, on one scale."""
    runs = {arm: (run, axis_of(run)) for arm, run in found["runs"].items() if arm in found["trajectories"]}
    lines = {arm: _by_kind(found["trajectories"][arm], axis) for arm, (_, axis) in runs.items()}
    every = [y for curves in lines.values() for points in curves.values() for _, y in points]
    if not every:
        return None
    charts = tuple(
        by_checkpoint(f"figure-2-{i}", run["label"], lines[arm], axis, loss_range(every), NATS)
        for i, (arm, (run, axis)) in enumerate(runs.items())
        if lines[arm]
    )
    rows = tuple(
        (arm, kind.key, *_at(checkpoint), loss)
        for arm, (run, _) in runs.items()
        for kind in KINDS
        for checkpoint, loss in zip(run["checkpoints"], found["trajectories"][arm][kind.key] or (), strict=False)
    )
    first = next(iter(found["runs"].values()))["label"]
    note = f"Mean loss of the tokens of each kind; the kinds are those of {inline(first)} in every panel."
    return Figure(
        "figure-2",
        "Mean loss of the four kinds over training",
        "Figure 2a of the paper",
        note,
        charts,
        {kind.css: kind.name for kind in KINDS},
        {kind.css: kind.sign for kind in KINDS},
        ("run", "category", "checkpoint", "tokens_seen", "loss"),
        rows,
    )


def fluctuating_figure(found: Mapping[str, Any]) -> Figure | None:
    """Figures 2b and 2c: single tokens whose loss goes up and down without getting anywhere."""
    run = next(iter(found["runs"].values()))
    axis = axis_of(run)
    drawn = [(kind, found["fluctuating"].get(kind.key) or []) for kind in KINDS[1:3]]
    drawn = [(kind, tokens) for kind, tokens in drawn if tokens]
    values = [y for _, tokens in drawn for token in tokens for y in token["losses"] if is_number(y)]
    if not values:
        return None
    charts = []
    for kind, tokens in drawn:
        lines = {f"f{i}": along(axis, token["losses"]) for i, token in enumerate(tokens, 1)}
        lines = {css: points for css, points in lines.items() if points}
        names = {f"f{i}": _quoted(token["token"]) for i, token in enumerate(tokens, 1)}
        chart = by_checkpoint(
            f"figure-2-{kind.css}",
            f"Three tokens {kind.name} ({kind.sign})" if len(tokens) == 3 else f"Tokens {kind.name} ({kind.sign})",
            lines,
            axis,
            loss_range(values),
            NATS,
            names=names,
            short={f"f{i}": str(i) for i in range(1, len(tokens) + 1)},
        )
        charts.append(chart)
    rows = tuple(
        (kind.key, i, *(exact(token[name]) for name in ("token", "before", "after")), *_at(checkpoint), loss)
        for kind, tokens in drawn
        for i, token in enumerate(tokens, 1)
        for checkpoint, loss in zip(run["checkpoints"], token["losses"], strict=True)
    )
    heads = ("category", "example", "token", "before", "after", "checkpoint", "tokens_seen", "loss")
    return Figure(
        "figure-2bc",
        "Single tokens that fluctuate",
        "Figures 2b and 2c of the paper",
        "Their loss goes up and down by far more than it changes on the whole: being learned is no one-way street.",
        tuple(charts),
        {},
        {},
        heads,
        rows,
        contexts={
            f"figure-2-{kind.css}": [
                (f"f{i}", str(i), *(_shown(token[part]) for part in ("before", "token", "after")))
                for i, token in enumerate(tokens, 1)
            ]
            for kind, tokens in drawn
        },
    )


def kept_figure(found: Mapping[str, Any]) -> Figure | None:
    """How much of each kind the selection would keep at each checkpoint of its own run."""
    selection = found["selection"]
    if selection is None:
        return None
    run = found["runs"][selection["arm"]]
    axis = axis_of(run)
    lines = _by_kind(selection["kept"], axis)
    if not lines:
        return None
    chart = by_checkpoint(
        "kept-chart",
        run["label"],
        lines,
        axis,
        (0.0, 1.0),
        "share kept",
        level=selection["ratio"],
        describe=percent,
    )
    score = selection["score"].replace("_", " ")
    rows = tuple(
        (kind.key, *_at(checkpoint), kept)
        for kind in KINDS
        for checkpoint, kept in zip(run["checkpoints"], selection["kept"][kind.key] or (), strict=False)
    )
    note = (
        f"At each checkpoint the {share(selection['ratio'])} of all tokens with the highest {score} are kept. "
        "A line above the dotted one means the kind is preferred, below it that it is passed over."
    )
    return Figure(
        "kept",
        "How much of each kind selection keeps",
        "Not in the paper",
        note,
        (chart,),
        {kind.css: kind.name for kind in KINDS},
        {kind.css: kind.sign for kind in KINDS},
        ("category", "checkpoint", "tokens_seen", "kept"),
        rows,
        level="what chance would keep",
    )


def _by_kind(values: Mapping[str, Sequence[float | None] | None], axis: Axis) -> dict[str, Points]:
    lines = {kind.css: along(axis, values[kind.key] or [None] * len(axis.at)) for kind in KINDS}
    return {css: points for css, points in lines.items() if points}


def _shown(text: str) -> str:
    """Text of a corpus in one line: line ends and tabs as signs that every font has."""
    return printable(text.replace("\r\n", "\n").replace("\n", "↵").replace("\t", "⇥"))


def _quoted(token: str) -> str:
    shown = _shown(token)
    return f"“{shown if len(shown) <= MOST_NAME else shown[: MOST_NAME - 1] + '…'}”"


def _at(checkpoint: Mapping[str, Any]) -> tuple[str, int | None]:
    return checkpoint["name"], checkpoint["tokens"]
