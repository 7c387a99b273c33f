"""The work of `tokensieve verify`: everything that is wrong with a store, not only the first thing.

A store that opens checks itself. One that does not is looked at file by file, by the checksums beside its shards, so
that a person sees all of the damage at once.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tokensieve.corpus.store import MANIFEST as CORPUS_MANIFEST
from tokensieve.errors import UserError
from tokensieve.recipe import ContextSection
from tokensieve.reference.digest import weights_digest
from tokensieve.reference.gate import TOLERANCE, check_sample
from tokensieve.reference.store import MANIFEST as SCORES_MANIFEST
from tokensieve.reuse.opening import OpenedStore, is_score_store, open_store
from tokensieve.stage import read_manifest
from tokensieve.storage.checksums import SIDECAR_SUFFIX, checksums_of, describe_damage, read_sidecar


def find_problems(
    folder: Path, corpus: Path | None = None, advance: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[str]:
    """Look at every byte of a token store or a score store.

    Args:
        folder: the store's.
        corpus: the token store that scores belong to; None: `../../corpus`.
        advance: called with the tokens just looked at, and with how many there are.

    Yields:
        One line for each thing that is wrong; nothing if the store is sound.

    Raises:
        UserError: there is no store.
    """
    scored = is_score_store(folder)
    try:
        opened = open_store(folder, corpus)
    except UserError as error:
        yield str(error)
        yield from _problems_of_files(folder, folder / (SCORES_MANIFEST if scored else CORPUS_MANIFEST))
        return
    total = opened.corpus.tokens
    yield from (opened.scores or opened.corpus).verify(lambda count: advance(count, total))


def score_again(opened: OpenedStore, model: PreTrainedModel, windows: int, seed: int = 0) -> dict[str, Any]:
    """Score a sample of windows again with the reference, each alone, and compare it with what is stored.

    Args:
        opened: a score store.
        model: the reference, on its device.
        windows: how many.
        seed: of the places.

    Returns:
        What `gate.check_sample` measured.

    Raises:
        UserError: the store holds no scores or carried-over ones, the model is not its reference, or they differ.
    """
    scores = opened.scores
    if scores is None:
        raise UserError(f"{opened.folder}: holds tokens, not scores; --sample scores again what a reference scored")
    context, digest = scores.inputs.get("context"), scores.inputs.get("reference")
    dtype = str(scores.inputs.get("dtype"))
    if "carried_over" in scores.inputs:
        raise UserError(
            f"{opened.folder}: its losses were carried over from another tokenizer; verify what was scored: "
            f"{opened.folder / 'foreign' / 'scores'} --corpus {opened.folder / 'foreign' / 'corpus'}"
        )
    if not isinstance(context, dict) or set(context) != {"length", "document_mask"} or dtype not in TOLERANCE:
        raise UserError(f"{opened.folder}: damaged (context {context}, dtype {dtype}); score again")
    found = weights_digest(model)
    if found != digest:
        raise UserError(
            f"{opened.folder}: scored by a reference of digest {digest}, the recipe's has {found}; give the recipe "
            f"that it was scored with"
        )
    return check_sample(
        scores.column("loss"), opened.corpus, ContextSection(**context), model, dtype, windows=windows, seed=seed
    )


def _problems_of_files(folder: Path, manifest: Path) -> Iterator[str]:
    """Every file that differs from the checksums beside it, and every shard without."""
    for path in sorted(folder.glob(f"*{SIDECAR_SUFFIX}")):
        try:
            listed = read_sidecar(path)
        except UserError as error:
            yield str(error)
            continue
        for suffix, expected in listed.items():
            file = path.with_name(path.name.removesuffix(SIDECAR_SUFFIX) + suffix)
            size = file.stat().st_size if file.exists() else -1
            if size != expected.size:
                yield f"{file}: {'is missing' if size < 0 else f'has {size} bytes, not {expected.size}'}"
                continue
            different = checksums_of(suffix, file).digests != expected.digests
            yield from (f"{file}: {describe_damage(int(block))}" for block in different.nonzero()[0])
    try:
        shards = read_manifest(manifest)["outputs"].get("shards", [])
    except UserError:
        return  # said already: it is why the store does not open
    for shard in shards:
        name = shard.get("name") if isinstance(shard, dict) else None
        if isinstance(name, str) and not (folder / (name + SIDECAR_SUFFIX)).exists():
            yield f"{folder / (name + SIDECAR_SUFFIX)}: is missing"
