"""Sources to documents: the text and regions of each record of a source's files.

A source is a file, a folder, a glob (on the local disk or behind a URL) or a Hub dataset. Its inputs are listed
first (`listing.py`), then read one by one. Nothing is guessed: a record without the field, a text that is not a
string are errors with a place and a cure.
"""

import functools
import itertools
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokensieve.corpus.listing import Input, list_inputs
from tokensieve.corpus.readers import MEGABYTE, Advance, absent_field, read_jsonl, read_parquet, read_text
from tokensieve.errors import UserError
from tokensieve.recipe import Source

Region = tuple[int, int, str]
"""Start and end in characters, and the kind of text."""

Extract = Callable[[str, Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Document:
    """One document."""

    text: str
    regions: tuple[Region, ...] | None
    """The spans it brings, when the source names a `regions_field`."""
    place: str
    """What an error about it says: file and line, or row."""
    bytes: int
    """UTF-8 bytes of the text."""


def read_documents(source: Source, max_document_mb: int) -> Iterator[Document]:
    """All documents of a source, in order.

    Raises:
        UserError: see `list_inputs` and `read_input`.
    """
    for item in list_inputs(source):
        yield from read_input(source, item, max_document_mb)


def read_input(
    source: Source, item: Input, max_document_mb: int, advance: Advance = lambda count: None
) -> Iterator[Document]:
    """The documents of one input, in order.

    Args:
        source: says where the text stands in a record.
        item: one of `list_inputs(source)`.
        max_document_mb: a larger document is an error.
        advance: called with the bytes of the file just read.

    Raises:
        UserError: unreadable or damaged file, record without the field, text that is not a string or not
            UTF-8, document too large, unreachable Hub.
    """
    if item.format == "text":
        if source.regions_field is not None or source.template is not None:
            raise UserError(f"{item.path}: plain text has no fields; remove template and regions_field, or set format")
        yield _document(read_text(item, max_document_mb, advance), None, item.path, max_document_mb)
        return
    fields, extract = _extraction(source)
    wanted = (*fields, *((source.regions_field,) if source.regions_field else ()))
    records: Iterator[tuple[str, Mapping[str, Any]]]
    if item.format == "jsonl":
        records = read_jsonl(item, max_document_mb, advance)
    elif item.format == "parquet":
        records = read_parquet(item, wanted, max_document_mb, advance)
    else:
        records = _read_hub(source)
    for place, record in itertools.islice(records, None, None, source.every):
        text = extract(place, record)
        regions = _regions(source.regions_field, place, record, len(text)) if source.regions_field else None
        yield _document(text, regions, place, max_document_mb)


def _document(text: str, regions: tuple[Region, ...] | None, place: str, max_mb: int) -> Document:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: character {error.start} is half of a surrogate pair ({text[error.start]!a}), "
            f"which is not UTF-8; repair or remove it"
        ) from error
    if size > max_mb * MEGABYTE:
        raise UserError(f"{place}: larger than {max_mb} MB; split the document or raise corpus.max_document_mb")
    return Document(text, regions, place, size)


def _extraction(source: Source) -> tuple[tuple[str, ...], Extract]:
    """The fields a source's text is made of, and the function that makes it."""
    if source.template is None:
        return (source.field,), functools.partial(_string, source.field)
    pieces = _parse_template(source.template)

    def fill(place: str, record: Mapping[str, Any]) -> str:
        return "".join(piece if literal else _string(piece, place, record) for literal, piece in pieces)

    return tuple(dict.fromkeys(piece for literal, piece in pieces if not literal)), fill


def _parse_template(template: str) -> list[tuple[bool, str]]:
    """Split a template into (is it literal, literal or field name).

    Only `{name}` is allowed: format strings that reach into attributes or items would run on untrusted data.
    """
    pieces = []
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            if literal:
                pieces.append((True, literal))
            if name is None:
                continue
            if not name or spec or conversion or not set(name).isdisjoint(".[]") or name.isdigit():
                raise ValueError(f"{{{name}}} is not a plain field name")
            pieces.append((False, name))
    except ValueError as error:
        raise UserError(f"template {template!r}: {error}; write fields as {{name}} and braces as {{{{ }}}}") from error
    if all(literal for literal, _ in pieces):
        raise UserError(f"template {template!r}: names no field; write fields as {{name}}")
    return pieces


def _string(field: str, place: str, record: Mapping[str, Any]) -> str:
    if field not in record:
        raise absent_field(place, field, list(record))
    value = record[field]
    if not isinstance(value, str):
        raise UserError(f"{place}: field {field!r} is {_kind(value)}, not a string; name another or repair it")
    return value


def _regions(field: str, place: str, record: Mapping[str, Any], length: int) -> tuple[Region, ...]:
    if field not in record:
        raise absent_field(place, field, list(record))
    spans = record[field]
    if isinstance(spans, list) and len(spans) == 2 and all(type(bound) is int for bound in spans):
        spans = [[*spans, field]]  # one span, named by its field
    if not isinstance(spans, list):
        raise UserError(f'{place}: field {field!r} is {_kind(spans)}, not [[start, end, "kind"], ...]')
    for span in spans:
        match span:
            case [int(start), int(end), str()] if 0 <= start <= end <= length:
                pass
            case _:
                raise UserError(
                    f'{place}: field {field!r} holds {span!r}, not [start, end, "kind"] within the {length} '
                    f"characters of the text"
                )
    return tuple((start, end, kind) for start, end, kind in spans)


def _read_hub(source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import datasets  # seconds to import, and only Hub sources need it

    row = 0
    try:
        rows = datasets.load_dataset(
            source.hub, source.config, split=source.split, data_files=source.data_files, streaming=True
        )
        for row, record in enumerate(rows):
            yield f"{source.hub}: row {row} (from 0)", record
    except (OSError, ValueError) as error:
        # Everything datasets raises for a wrong id, split, configuration, file or network is one of the two.
        what = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"{source.hub}: cannot read this dataset after row {row} ({what}); check the network and the "
            f"source's hub, config, split and data_files"
        ) from error


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"
