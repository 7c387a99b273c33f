"""Random damage to both stores, and whether it is found."""

import random
from pathlib import Path
from typing import Any

from tokensieve.corpus.store import TokenStore
from tokensieve.errors import UserError
from tokensieve.reference.store import COLUMNS, ScoreStore
from tokensieve.storage.checksums import CheckedArray

from .world import CONTEXT, SECTION, make_corpus, make_reference, score_corpus


class Stores:
    """A token store and a score store of several blocks a file, with all columns.

    Args:
        folder: for both.
    """

    def __init__(self, folder: Path) -> None:
        self.corpus = make_corpus(folder / "corpus", shards=3, documents=900, seed=5)
        self.scores = score_corpus(SECTION, CONTEXT, self.corpus, make_reference(), folder / "scores")
        assert (self.corpus.folder / "00000.ds").stat().st_size > 2 * 16_384
        self.files = sorted(path for store in (self.corpus, self.scores) for path in store.folder.iterdir())

    def open(self) -> tuple[TokenStore, ScoreStore]:
        """As a fresh process would."""
        corpus = TokenStore(self.corpus.folder)
        return corpus, ScoreStore(self.scores.folder, corpus, CONTEXT)

    def damage(self) -> list[str]:
        """What opening and `verify` find."""
        try:
            corpus, scores = self.open()
        except UserError as error:
            return [str(error)]
        return [*corpus.verify(), *scores.verify()]

    def arrays(self, shard: str, name: str) -> list[CheckedArray]:
        """The arrays that a file takes part in, newly opened: its own, or all of its shard."""
        corpus, scores = self.open()
        i = [described.name for described in corpus.shards].index(shard)
        own = {
            ".ds": corpus.shard_tokens(i),
            ".region.u8": corpus.shard_regions(i),
            **{COLUMNS[column].suffix: scores.column(column)[i] for column in scores.columns},
        }
        suffix = name.removeprefix(shard)
        if suffix in own:
            return [own[suffix]]
        return [own[".ds"], own[".region.u8"]] if name == ".corpus" else list(own.values())[2:]


def corrupt(stores: Stores, draw: random.Random) -> str:
    """Change one random byte of one file; check that it is found; put it back. Returns the file's name."""
    path = draw.choice(stores.files)
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    before = data[at]
    data[at] ^= draw.randrange(1, 256)
    path.write_bytes(data)
    try:
        place = f"{path}, byte {at}: {before} -> {data[at]}"
        found = stores.damage()
        assert found, f"not found: {place}"
        assert all("\n" not in line for line in found), place
        assert any(path.name in line or path.name[:5] in line for line in found), f"{place}: {found}"
        assert refused(stores, path, at), f"read all the same: {place}"
    finally:
        data[at] = before
        path.write_bytes(data)
    return path.name


def refused(stores: Stores, path: Path, at: int) -> bool:
    """Whether reading what a byte belongs to raises; all else of the file's store can still be read."""
    if path.suffix == ".json":
        return raises(stores.open)
    shard = path.name[:5]
    own = stores.corpus.folder == path.parent
    if path.name.endswith(".ds.index"):
        return raises(lambda: stores.open()[0].document_ends(int(shard)))
    if path.suffix == ".xxh3":
        return all(raises(lambda array=array: array[0:1]) for array in stores.arrays(shard, ".corpus" if own else ""))
    (array,) = stores.arrays(shard, path.name)
    block = at // 16_384 * 16_384
    size = array.dtype.itemsize
    outside = (0, block // size), (min(block + 16_384, len(array) * size) // size, len(array))
    for begin, end in outside:
        if begin < end:
            array[begin:end]
    return raises(lambda: array[at // size : at // size + 1])


def raises(read: Any) -> bool:
    """Whether it is refused with a line for people; any other error goes on."""
    try:
        read()
    except UserError:
        return True
    return False
