"""The files that a source names, in reading order: on the local disk or behind a URL, by the same rules.

They are listed before any is read: for parallel work, for progress, and because the manifest keeps their names
and sizes.
"""

import glob
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokensieve.errors import UserError
from tokensieve.recipe import Source
from tokensieve.storage import remote

COMPRESSIONS = (".gz", ".zst")
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
}
"""What a file's suffix, after .gz or .zst is taken off, says about its format."""


@dataclass(frozen=True)
class Input:
    """One file, or one Hub dataset, of a source."""

    path: str
    """A local path, a URL or a dataset's id."""
    size: int
    """Bytes of the file; 0 for a Hub dataset, whose size is not known."""
    format: str
    """jsonl, parquet, text or hub."""


def list_inputs(source: Source) -> tuple[Input, ...]:
    """The files a source names, in reading order.

    A folder stands for every file below it with a suffix from `FORMATS` (those of `source.format`, if that is
    given), hidden ones excepted; name other files with a glob.

    Raises:
        UserError: missing, empty, of a format that the name does not tell, or behind a URL that cannot be reached.
    """
    if source.hub is not None:
        return (Input(source.hub, 0, "hub"),)
    given = str(source.path)
    if remote.is_url(given):
        kind, found = remote.find(given)
        files = [(file.url, file.size) for file in found]
    else:
        given = os.path.expanduser(given)
        kind, paths = _find(given)
        files = [(path, _size(path)) for path in paths if kind != "folder" or _known(path, source.format)]
    if kind == "folder":
        files = [file for file in files if _known(file[0], source.format)]
        if not files:
            suffixes = [suffix for suffix, format in FORMATS.items() if source.format in ("auto", format)]
            raise UserError(
                f"{given}: no {', '.join(suffixes)} file (or its .gz, .zst) in this folder; "
                f"name other files with a glob and a format"
            )
    if not files:
        raise UserError(f"{given}: no file matches; check the pattern (** goes through folders)")
    inputs = [Input(path, size, _format(path, source.format)) for path, size in files]
    texts = itertools.count()
    return tuple(item for item in inputs if item.format != "text" or next(texts) % source.every == 0)


def _find(given: str) -> tuple[remote.Kind, list[str]]:
    """Local files by path, and whether it is a folder, a file or a glob."""
    if os.path.isdir(given):
        return "folder", _walk(given)
    if os.path.exists(given):
        return "file", [given]
    if glob.has_magic(given):
        return "glob", _sorted(path for path in glob.glob(given, recursive=True) if os.path.isfile(path))
    raise UserError(f"{given}: no such file or folder; check the source's path")


def _walk(folder: str) -> list[str]:
    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot read the folder ({error.strerror})") from error

    paths = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [os.path.join(parent, name) for name in names if not name.startswith(".")]
    return _sorted(paths)


def _sorted(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: Path(path).parts)


def _known(path: str, wanted: str) -> bool:
    format = FORMATS.get(_suffix(path))
    return format is not None and wanted in ("auto", format)


def _suffix(path: str) -> str:
    name = Path(path)
    return Path(name.stem if name.suffix in COMPRESSIONS else name.name).suffix.lower()


def _format(path: str, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if _suffix(path) not in FORMATS:
        raise UserError(
            f"{path}: the name does not tell the format (known: {', '.join(FORMATS)}, also .gz, .zst); "
            f"set the source's format to jsonl, parquet or text"
        )
    return FORMATS[_suffix(path)]


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror}); check the source's path") from error
