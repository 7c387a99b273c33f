"""The page's data say what the view says, bit for bit."""

import base64
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokensieve.viewer.encoding import page_data
from tokensieve.viewer.passages import Model, Passage, View


def whole(text: str) -> list[int]:
    """Unsigned LEB128, read byte by byte."""
    found, number, shift = [], 0, 0
    for byte in base64.b64decode(text):
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number, shift = 0, 0
    assert shift == 0
    return found


def halves(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<u2")


columns = st.lists(
    st.tuples(
        st.text(max_size=4), st.integers(0, 2**31), st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 2**40)
    ),
    min_size=1,
    max_size=30,
)


@given(rows=columns)
def test_every_column_is_read_back(rows):
    pieces, ids, bits, regions, documents = map(list, zip(*rows, strict=True))
    losses = np.array(bits, dtype=np.uint16).view(np.float16)
    passage = Passage(
        source=0,
        place="here",
        ids=np.array(ids, dtype=np.int64),
        pieces=tuple(pieces),
        losses={"s": losses},
        entropies={"s": losses[::-1]},
        regions=np.array(regions, dtype=np.uint8),
        categories=np.array(regions[::-1], dtype=np.uint8),
        documents=np.array(documents, dtype=np.int64),
    )
    data = page_data(View("t", (Model("s", "student", "S"),), ("web",), (passage,), regions=("other",)))
    (found,) = json.loads(json.dumps(data))["passages"]
    assert found["text"] == "".join(pieces) and found["tokens"] == len(ids)
    assert whole(found["ids"]) == ids
    assert whole(found["documents"]) == [number - min(documents) for number in documents]
    assert halves(found["losses"]["s"]).tolist() == bits
    assert halves(found["entropies"]["s"]).tolist() == bits[::-1]
    assert list(base64.b64decode(found["regions"])) == regions
    assert list(base64.b64decode(found["categories"])) == regions[::-1]
    units, at = found["text"].encode("utf-16-le"), 0
    for piece, length in zip(pieces, whole(found["lengths"]), strict=True):
        assert units[2 * at : 2 * (at + length)].decode("utf-16-le") == piece
        at += length
    assert 2 * at == len(units)


def test_what_is_not_there_is_left_out():
    passage = Passage(0, "here", np.array([1, 2]), ("a", "b"), {"s": np.zeros(2, dtype=np.float16)})
    view = View("t", (Model("s", "student", "S"),), ("web",), (passage,), notes=("n",))
    data = page_data(view)
    assert data["regions"] is None and data["notes"] == ["n"]
    assert data["models"] == [{"key": "s", "kind": "student", "label": "S"}]
    assert not {"regions", "categories", "documents"} & set(data["passages"][0])


def test_a_hundred_thousand_tokens_stay_small():
    draw = np.random.default_rng(0)
    count = 100_000
    columns = {key: draw.random(count).astype(np.float16) for key in "sr"}
    ids = draw.integers(0, 32_000, count)
    passage = Passage(0, "here", ids, (" word",) * count, columns, columns)
    models = (Model("s", "student", "S"), Model("r", "reference", "R"))
    assert len(json.dumps(page_data(View("t", models, ("web",), (passage,))))) < 3_000_000
