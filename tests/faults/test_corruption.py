"""One changed byte, in any file of either store, is found by `verify` and by whoever reads it; so are lost files."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from .damage import Stores, corrupt


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("stores"))


def test_sixty_random_bytes(stores: Stores) -> None:
    assert stores.damage() == []
    draw = random.Random(0)
    for _ in range(60):
        corrupt(stores, draw)
    assert stores.damage() == []


@pytest.mark.soak
def test_a_thousand_random_bytes(stores: Stores) -> None:
    draw = random.Random(1)
    names = Counter(corrupt(stores, draw) for _ in range(1_000))
    assert set(names) == {path.name for path in stores.files}
    assert stores.damage() == []


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path: Path) -> None:
    path.unlink()


def doubled(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def extra(path: Path) -> None:
    shutil.copy(path, path.with_name("00003" + path.name[5:]))


def of_another_shard(path: Path) -> None:
    shutil.copy(path.with_name("00001" + path.name[5:]), path)


FAULTS: list[Callable[[Path], None]] = [emptied, halved, removed, doubled, extra, of_another_shard]


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_are_lost_cut_or_put_elsewhere(stores: Stores, fault: Callable[[Path], None]) -> None:
    for path in stores.files:
        if path.suffix == ".json" and fault in (extra, of_another_shard):
            continue
        if path.name[:5] == "00001" and fault is of_another_shard:
            continue
        before = path.read_bytes()
        fault(path)
        assert any(path.name[5:] in line or path.name in line for line in stores.damage()), (fault, path)
        path.write_bytes(before)
        if fault is extra:
            path.with_name("00003" + path.name[5:]).unlink()
    assert stores.damage() == []


@pytest.mark.parametrize("store", ["corpus", "scores"])
def test_whole_shards_put_in_each_others_place(stores: Stores, store: str, tmp_path: Path) -> None:
    """With their sidecars, so that each is sound in itself; the sizes differ or not."""
    folder = stores.corpus.folder if store == "corpus" else stores.scores.folder
    shutil.copytree(folder, tmp_path / "kept")
    for path in sorted(folder.glob("00000.*")):
        other = path.with_name("00002" + path.name[5:])
        data = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    assert stores.damage()
    for path in (tmp_path / "kept").iterdir():
        shutil.copy(path, folder)
    assert stores.damage() == []
