"""JSON lines, gzipped or not: what the scripts of this folder read and write."""

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokensieve.errors import UserError


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a `.jsonl` or `.jsonl.gz` file.

    Raises:
        UserError: missing, unreadable, or a line that is no JSON object.
    """
    line = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line, text in enumerate(file, 1):
                record = json.loads(text)
                if not isinstance(record, dict):
                    raise UserError(f"{path}: line {line} is no JSON object; fetch the file again")
                yield record
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot read after line {line} ({error}); see its folder's README") from error


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write a whole `.jsonl` file or none; returns the number of records.

    Raises:
        UserError: the folder cannot be written.
    """
    temporary, count = path.with_name(path.name + ".tmp"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror}); free space or use another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count
