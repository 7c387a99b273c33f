"""A comparison.json as Markdown, for docs/results: so that no number there is written by hand.

python experiments/table.py FOLDER/comparison.json
"""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """The command line."""
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("\n".join(markdown(found)))


def markdown(found: dict[str, Any]) -> list[str]:
    """The answer, the arms, the differences and what was kept, as lines."""
    arms, measured = found["arms"], found["measured"]["arms"]
    lines = [f"**{found['answer']['lead']}.** {found['answer']['sentence']}", ""]
    lines += [f"- {warning}" for warning in found["warnings"]] + [""]
    lines += _rule("arm", "target, nats a token", "general", "tokens trained on", "FLOPs (1e12)", "seconds, each seed")
    for key, arm in arms.items():
        seconds = ", ".join(f"{value:.0f}" for value in measured[key]["seconds"])
        cells = (
            arm["label"],
            _interval(arm["target_loss"]),
            _interval(arm["general_loss"]),
            f"{arm['tokens_selected']['mean']:,.0f}",
            f"{arm['flops']['total'] / 1e12:.2f}",
            seconds,
        )
        lines.append(_row(*cells))
    general = found["start"]["general"]
    forgotten = f"{sum(general.values()) / len(general):.3f}" if general else ""
    lines.append(_row("the untouched start", f"{found['start']['target_loss']:.3f}", forgotten, "", "", ""))
    if found["reference"] is not None:
        reference = found["reference"]
        flops = f"{reference['flops'] / 1e12:.2f}"
        cost = (f"{reference['tokens']:,}", flops, "")
        lines.append(_row("the reference itself", f"{reference['target_loss']:.3f}", "", *cost))
    lines += ["", *_rule("arm", "against", "text", "difference", "95 % interval", "p", "could have seen")]
    for item in found["differences"]:
        scale = 1 if item["unit"] == "nats" else 100
        interval = "" if item["low"] is None else f"{item['low'] * scale:+.3f} to {item['high'] * scale:+.3f}"
        p = "" if item["p"] is None else f"{item['p']:.3g}"
        seen = "" if item["detectable"] is None else f"{item['detectable'] * scale:.3f}"
        names = (arms[item["arm"]]["label"], arms[item["other"]]["label"], item["text"])
        lines.append(_row(*names, f"{item['estimate'] * scale:+.3f}", interval, p, seen))
    lines += ["", *_rule("arm", "tokens", "tokens trained on", "FLOPs", "seconds")]
    for key, arm in arms.items():
        if arm["to_plain"] is not None:
            shares = [*(arm["to_plain"][x] for x in ("tokens", "selected", "flops")), measured[key]["to_plain_seconds"]]
            lines.append(_row(arm["label"], *(_share(share) for share in shares)))
    for grouping in ("region", "source", "class", "frequency", "position"):
        selecting = {key: arm for key, arm in arms.items() if (arm["keep_rates"] or {}).get(grouping)}
        if not selecting:
            continue
        first = next(iter(selecting.values()))["keep_rates"][grouping]
        lines += ["", *_rule(grouping, "share of all", *(arm["label"] for arm in selecting.values()))]
        whole = sum(row["tokens"] for row in first)
        for i, row in enumerate(first):
            rates = (arm["keep_rates"][grouping][i] for arm in selecting.values())
            share = f"{100 * row['tokens'] / whole:.1f} %"
            lines.append(_row(row["name"], share, *(f"{100 * rate['kept'] / rate['tokens']:.0f} %" for rate in rates)))
    return lines


def _share(found: dict[str, Any]) -> str:
    if found["share"] is not None:
        return f"{100 * found['share']:.0f} %"
    return "never" if found["reached"] == 0 else f"{found['reached']} of {found['seeds']} seeds"


def _interval(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _rule(*cells: str) -> list[str]:
    return [_row(*cells), _row(*("---" for _ in cells))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
