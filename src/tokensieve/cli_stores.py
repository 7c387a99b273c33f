"""The commands about stores that are there: verify, inspect, export, import. Parse, call, print.

`cli.py` registers them; each is a plain function of typer options.
"""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tokensieve.errors import UserError

console = Console(highlight=False)

StorePath = Annotated[
    Path,
    typer.Argument(metavar="STORE", help="A token or score store, such as OUT/scores/NAME.", show_default=False),
]
CorpusPath = Annotated[
    Path | None,
    typer.Option(help="The token store that scores belong to.", show_default="the run's corpus"),
]
TokenizerName = Annotated[
    str | None, typer.Option(help="Folder or Hub id of the tokenizer.", show_default="the run's folder")
]


class RowKind(StrEnum):
    """What a row of an export is."""

    documents = "documents"
    windows = "windows"


class ShareOf(StrEnum):
    """What a share to keep is measured in."""

    tokens = "tokens"
    documents = "documents"


def verify(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Token or score stores: OUT/corpus OUT/scores/*.", show_default=False),
    ],
    sample: Annotated[
        int, typer.Option(min=0, help="Also score this many windows again, with the recipe's reference.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Where those windows lie.")] = 0,
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe that names the reference.", show_default="STORE/../../recipe.yaml")
    ] = None,
    corpus: CorpusPath = None,
) -> None:
    """Check every byte of stores against its checksum, and scores against their reference."""
    from tokensieve.reuse.verifying import find_problems

    count = 0
    for store in stores:
        with _bar("verify") as progress:
            task = progress.add_task(store.name, total=None)

            def advance(done: int, total: int, progress: Progress = progress, task: Any = task) -> None:
                progress.update(task, advance=done, total=total)

            problems = list(find_problems(store, corpus, advance))
        for problem in problems:
            _print(problem)
        if not problems:
            _print(f"{store}: sound{_rest_of(store, corpus)}")
            if sample:
                _score_again(store, corpus, recipe, sample, seed)
        count += len(problems)
    if count:
        raise UserError(
            f"{count:,} problem{'s' if count > 1 else ''} found; of scores, remove the damaged shards' files "
            f"(NNNNN.*) and run `tokensieve score` again; of a corpus, remove the folder and run `tokensieve tokenize`"
        )


def inspect(
    store: StorePath,
    examples: Annotated[int, typer.Option(min=0, help="How many of the highest and lowest tokens.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    corpus: CorpusPath = None,
    tokenizer: TokenizerName = None,
) -> None:
    """Say what a store holds: counts, reference, context, losses, the highest and lowest tokens."""
    from tokensieve.reuse.inspecting import inspect_store
    from tokensieve.reuse.opening import open_store, tokenizer_of

    opened = open_store(store, corpus)
    reader = tokenizer_of(opened.corpus, tokenizer) if opened.scores is not None and examples else None
    with _bar("inspect") as progress:
        task = progress.add_task("", total=opened.corpus.tokens, visible=opened.scores is not None)
        found = inspect_store(
            opened, examples=examples, tokenizer=reader, advance=lambda count: progress.advance(task, count)
        )
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    _print_counts(found)
    if opened.scores is not None:
        _print_scores(found)


def export(
    store: StorePath,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A .parquet file, or .jsonl for text.", show_default=False)
    ],
    rows: Annotated[RowKind, typer.Option(help="What a row is.")] = RowKind.documents,
    text: Annotated[bool, typer.Option("--text", help="Add the decoded text to Parquet rows.")] = False,
    keep: Annotated[
        float | None, typer.Option(help="Keep this share with the lowest score, such as 0.3.", show_default="all")
    ] = None,
    by: Annotated[str, typer.Option(help="mean, median or sum of a column: median_loss.")] = "mean_loss",
    of: Annotated[ShareOf, typer.Option(help="What the share is of.")] = ShareOf.tokens,
    highest: Annotated[bool, typer.Option("--highest", help="The highest instead of the lowest.")] = False,
    rank: Annotated[bool, typer.Option("--rank", help="Write in order of the score.")] = False,
    corpus: CorpusPath = None,
    tokenizer: TokenizerName = None,
) -> None:
    """Write a store, or the best documents in it, to Parquet or JSON lines."""
    from tokensieve.reuse.exporting import Selection, export_store
    from tokensieve.reuse.opening import open_store

    selection = None
    if keep is not None or rank:
        selection = Selection(keep=keep, by=by, unit=of.value, highest=highest, ranked=rank)
    elif highest or by != "mean_loss":
        raise UserError("--by and --highest say what --keep and --rank go by; give one of those too")
    opened = open_store(store, corpus)
    done = export_store(opened, out, rows=rows.value, selection=selection, text=text, tokenizer=tokenizer)
    _print(
        f"{out}: {done.rows:,} of {done.of_rows:,} {rows.value}, {done.tokens:,} of {done.of_tokens:,} tokens "
        f"({done.tokens / done.of_tokens:.1%})"
    )
    if done.unscored and keep is not None:
        _print(f"{done.unscored:,} {rows.value} without a scored token were left out")


def import_tokens(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="File, folder or glob of .ds, Megatron .bin, Parquet or JSON lines; or a Hub dataset.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[str, typer.Option(help="Folder or Hub id of the tokenizer that made them.")],
    out: Annotated[Path, typer.Option(help="The run's folder: receives corpus/ and tokenizer/.")],
    field: Annotated[str, typer.Option(help="The column of ids in rows.")] = "input_ids",
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="Split of a Hub dataset.")] = "train",
    add_eos: Annotated[bool, typer.Option("--add-eos", help="End documents with EOS that do not.")] = False,
    shard_tokens: Annotated[int, typer.Option(min=2, help="Tokens of a shard, at most.")] = 2**28,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the tokenizer.")
    ] = False,
) -> None:
    """Make a corpus of tokens that are there already: .ds, Megatron, Parquet, a Hub dataset."""
    from tokensieve.reuse.importing import added_eos, import_corpus

    store = import_corpus(
        source,
        tokenizer,
        out,
        field=field,
        config=config,
        split=split,
        add_eos=add_eos,
        shard_tokens=shard_tokens,
        trust_remote_code=trust_remote_code,
    )
    _print(f"{store.folder}: {store.tokens:,} tokens, {store.documents:,} documents, {len(store.shards):,} shards")
    if added := added_eos(store):
        _print(f"{added:,} of {store.documents:,} documents did not end with EOS and do now")


def _score_again(store: Path, corpus: Path | None, recipe: Path | None, sample: int, seed: int) -> None:
    from tokensieve.recipe import load_recipe
    from tokensieve.reuse.opening import open_store
    from tokensieve.reuse.verifying import score_again
    from tokensieve.training.reference import load_reference

    opened = open_store(store, corpus)
    if opened.scores is None:
        return
    from transformers.utils import logging

    logging.disable_progress_bar()  # our lines, not one bar for every file of weights
    path = recipe or store.resolve().parent.parent / "recipe.yaml"
    if not path.exists():
        raise UserError(f"{path}: no recipe here to take the reference from; name it with --recipe")
    found = score_again(opened, load_reference(load_recipe(path)).eval(), sample, seed)
    _print(
        f"{store}: {found['windows']:,} windows scored again agree: mean difference {found['mean_difference']:.2g}, "
        f"largest {found['largest_difference']:.2g} nats"
    )


def _rest_of(store: Path, corpus: Path | None) -> str:
    from tokensieve.reuse.opening import open_store

    opened = open_store(store, corpus)
    rest, count = opened.elsewhere, len(opened.corpus.shards)
    if not rest:
        return ""
    return f"; {len(rest):,} of {count:,} shards are not all here but in the run's `storage`: checked when they come"


def _print_counts(found: Mapping[str, Any]) -> None:
    lengths = found["document_tokens"]
    _print(f"{found['kind'].removesuffix('s')} store {found['folder']}")
    table = Table.grid(padding=(0, 2))
    table.add_row("tokens", f"{found['tokens']:,} of {found['token_bytes']} bytes, ids below {found['vocab_size']:,}")
    table.add_row(
        "documents",
        f"{found['documents']:,}; of {lengths['min']:,} to {lengths['max']:,} tokens, median {lengths['median']:,.0f}",
    )
    table.add_row("text", f"{found['text_bytes']:,} bytes, {found['text_bytes'] / found['tokens']:.2f} a token")
    table.add_row("shards", f"{found['shards']:,}")
    if found["regions"]:
        table.add_row("regions", ", ".join(found["regions"]))
    rest = f"{found['shards_elsewhere']:,} of {found['shards']:,} shards are not all here but in the run's `storage`"
    if not found["shards_elsewhere"]:
        rest = f"{found['bytes_per_token']:.2f} a token"
    table.add_row("on disk", f"{found['disk_bytes']:,} bytes; {rest}")
    table.add_row("tokenizer", found["tokenizer"])
    console.print(table)
    if found["kind"] == "tokens":
        table = Table("source", box=SIMPLE)
        for name in ("tokens", "documents", "text bytes", "weight"):
            table.add_column(name, justify="right")
        for source in found["sources"]:
            counts = (f"{source[key]:,}" for key in ("tokens", "documents", "bytes"))
            weight = "" if source["weight"] is None else f"{source['weight']:g}"
            table.add_row(Text(source["name"]), *counts, weight)
        console.print(table)


def _print_scores(found: Mapping[str, Any]) -> None:
    from tokensieve.reuse.inspecting import QUANTILES

    table = Table.grid(padding=(0, 2))
    never = found["tokens"] - found["scored"]
    table.add_row("scored", f"{found['scored']:,} ({found['scored'] / found['tokens']:.1%}), never: {never:,}")
    table.add_row("columns", ", ".join(found["columns"]))
    for name, value in _flat({**found["inputs"], **found["outputs"]}):
        if name not in ("columns", "scored_tokens"):
            table.add_row(Text(name), Text(value, overflow="fold"))
    console.print(table)
    for column, rows in found["distribution"].items():
        unit = "" if column == "correct" else ", nats"
        table = Table(title=f"{column}{unit}", title_justify="left", box=SIMPLE, padding=(0, 0, 0, 1))
        table.add_column("source", overflow="ellipsis", no_wrap=True, max_width=16)
        # Of zeros and ones the mean says all.
        names = () if column == "correct" else (*(f"{q:.0%}" for q in QUANTILES), "max")
        for name in ("scored", "mean", *names):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows if len(rows) > 2 else rows[:1]:
            values: list[str] = []
            if row["scored"]:
                numbers = (row["mean"], *row["quantiles"].values(), row["max"])
                values = [f"{value:.4g}" for value in numbers[: 1 + len(names)]]
            table.add_row(Text(row["source"] or "all"), _short(row["scored"]), *values)
        console.print(table)
    for name in ("highest", "lowest"):
        if found.get(name):
            _print_examples(name, found[name])


def _print_examples(name: str, examples: list[dict[str, Any]]) -> None:
    table = Table(title=f"{name} losses", title_justify="left", box=SIMPLE, padding=(0, 0, 0, 1))
    table.add_column("loss", justify="right", no_wrap=True, min_width=6)
    table.add_column("shard:document", no_wrap=True, min_width=14)
    table.add_column("text around the «token»", no_wrap=True)
    for example in examples:
        before, token, after = (_visible(example[part] or "") for part in ("before", "token", "after"))
        text = Text(set_cell_size(before[::-1], min(24, cell_len(before)))[::-1].rjust(24), style="dim")
        text.append(f"«{set_cell_size(token, min(14, cell_len(token)))}»", style="bold not dim")
        text.append(set_cell_size(after, min(10, cell_len(after))))
        table.add_row(f"{example['loss']:.4g}", f"{example['shard']}:{example['document']}", text)
    console.print(table)


def _visible(text: str) -> str:
    """Text on one line; what no terminal shows is escaped."""
    text = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A manifest's values with dotted names."""
    rows: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + str(name), value if isinstance(value, str) else json.dumps(value)))
    return rows


def _short(count: int) -> str:
    """A count in at most seven characters."""
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.4g}{letter}"
    return f"{count:,}"


def _bar(what: str) -> Progress:
    columns = (TextColumn(f"{what} {{task.description}}", markup=False), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TextColumn("tokens"), TimeRemainingColumn(), console=Console(stderr=True, highlight=False)
    )


def _print(line: str) -> None:
    # Neither markup nor wrapped: a path is printed as it is.
    console.print(line, markup=False, soft_wrap=True)
    sys.stdout.flush()
