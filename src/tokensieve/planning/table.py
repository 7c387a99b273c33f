"""The plan as tables for the terminal."""

from typing import Any

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokensieve.report.words import count


def format_plan(plan: dict[str, Any]) -> RenderableType:
    """Lay out what `plan` returns: stages, storage, assumptions, warnings."""
    student, reference = plan["models"]["student"], plan["models"]["reference"]
    # Text, not markup: a folder name may hold square brackets.
    head = Text(
        f"student    {student['name']}, {count(student['parameters'])} parameters\n"
        f"reference  {reference['name']}, {count(reference['parameters'])} parameters\n"
        f"hardware   {plan['devices']} x {plan['device']} at {plan['utilisation']:.0%} of peak\n"
        f"text       {count(plan['corpus_tokens'])} tokens noisy, {count(plan['clean_tokens'])} clean, "
        f"windows of {plan['context']}"
    )
    warnings = [Text(f"warning: {warning}", style="yellow") for warning in plan["warnings"]]
    return Group(head, _stages(plan), _storage(plan), Text(_ASSUMPTIONS, style="dim"), *warnings)


_ASSUMPTIONS = (
    "FLOPs: 6 a weight and token in training, 2 forward, causal attention; the output layer\n"
    "2 + 6k of V·D instead of 6 under a live score. Not counted: tokenizing, evaluation, saving.\n"
    "Memory: weights, gradients, AdamW, buffers, activations, no fragmentation: leave 10 %."
)


def _stages(plan: dict[str, Any]) -> Table:
    # Nine columns have to fit into 80 characters: few borders, short words, no wrapping inside a number.
    table = Table(title="what it takes", title_justify="left", box=SIMPLE, padding=0)
    table.add_column("stage", no_wrap=True)
    for column in ("tokens seen", "selected", "steps", "a step", "FLOPs", "device hours", "on", "hours", "GB each"):
        table.add_column(column, justify="right", no_wrap=" " not in column)
    for stage in plan["stages"]:
        table.add_row(
            stage["name"],
            count(stage["tokens"]),
            count(stage["selected"]),
            "-" if stage["steps"] is None else f"{stage['steps']:,}",
            count(stage["tokens_per_step"]),
            f"{stage['flops']:.1e}",
            _hours(stage["device_hours"]),
            str(stage["devices"]),
            _hours(stage["hours"]),
            f"{stage['memory_gb']:.3g}",
        )
    total = plan["total"]
    table.add_section()
    table.add_row(
        *("total", "", "", "", "", f"{total['flops']:.1e}", _hours(total["device_hours"]), ""),
        *(_hours(total["hours"]), ""),
    )
    return table


def _storage(plan: dict[str, Any]) -> Table:
    table = Table(title="on disk", title_justify="left", box=SIMPLE)
    table.add_column("what")
    table.add_column("GB", justify="right")
    for name, size in plan["storage"].items():
        if name == "total":
            table.add_section()
        table.add_row(name, f"{size:,.3g}" if size < 1000 else f"{size:,.0f}")
    return table


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
