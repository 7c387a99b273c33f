"""A corpus with planted noise: English whose noise tokens are known, because this script put them there.

    python experiments/planted_noise.py FOLDER [--noise 0.35] [--seed 0]

The paper's first figure shows a web page on which timestamps, user names and tracking numbers are passed over by
selection. Here such noise is planted into clean text (the English of sympy's docstrings, which every installation
has), between sentences and inside them, so that a comparison can say how much of the noise is dropped and how much
text is lost with it. `FOLDER/noisy.jsonl` has the text with noise, and `regions` [[start, end, kind], ...] that cover
every character; `clean.jsonl` (for the reference) and `target.jsonl` (held out) have text alone. The three come from
different source files, and no paragraph of the last two stands in another set. The same seed gives the same bytes.

Then: tokensieve compare experiments/planted-noise.yaml data_dir=FOLDER
"""

import argparse
import base64
import random
import re
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from json_lines import read_json_lines, write_json_lines

from tokensieve.corpus.embedded import repeated_in, write_embedded
from tokensieve.errors import UserError
from tokensieve.stage import Stage

TEXT = "text"
Piece = tuple[str, str]
"""(characters, kind)"""

BOILERPLATE = (
    "We use cookies to improve your experience. By continuing to browse this site you agree to our use of cookies.",
    "This website stores cookies on your computer. Accept all | Reject all | Manage preferences",
    "All rights reserved. Reproduction in whole or in part without written permission is prohibited.",
    "Sign up for our newsletter and never miss an update! Unsubscribe at any time.",
    "You must be logged in to post a reply. Click here to register, it is free and only takes a minute.",
    "Please enable JavaScript to view the comments on this page.",
    "Was this answer helpful? Yes / No. Share this page on social media or send it to a friend.",
    "Advertisement. The story continues below.",
    "This e-mail and any attachments are confidential and intended solely for the use of the addressee.",
    "Terms of Service - Privacy Policy - Contact Us - Careers - Sitemap",
)
MENU = ("Home", "Forum", "Products", "Support", "Downloads", "About", "Blog", "Login", "Register", "My Account", "Cart")
SYLLABLES = (
    "ka",
    "mi",
    "dra",
    "lo",
    "ven",
    "tor",
    "zu",
    "eli",
    "shi",
    "bro",
    "xan",
    "quo",
    "jet",
    "wolf",
    "sky",
    "max",
)
ALPHABET = string.ascii_uppercase + string.digits
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def timestamp(draw: random.Random) -> str:
    """A moment in one of five notations."""
    year, month, day = draw.randint(2004, 2023), draw.randint(1, 12), draw.randint(1, 28)
    hour, minute, second = draw.randrange(24), draw.randrange(60), draw.randrange(60)
    clock = f"{hour:02d}:{minute:02d}:{second:02d}"
    return draw.choice(
        (
            f"{year}-{month:02d}-{day:02d} {clock}",
            f"[{year}-{month:02d}-{day:02d}T{clock}Z]",
            f"({day} {MONTHS[month - 1]} {year}, {hour:02d}:{minute:02d})",
            f"{month}/{day}/{year % 100:02d} {hour % 12 + 1}:{minute:02d} {'AM' if hour < 12 else 'PM'}",
            f"[{clock}]",
        )
    )


def user_name(draw: random.Random) -> str:
    """A name as forums show it."""
    name = "".join(draw.choices(SYLLABLES, k=draw.randint(2, 3))) + str(draw.randrange(10_000))
    return draw.choice((f"@{name}", f"posted by {name}", f"u/{name}", f"<{name}>", f"{name} wrote:"))


def tracking_number(draw: random.Random) -> str:
    """A shipment, an order, a ticket."""
    return draw.choice(
        (
            "1Z" + "".join(draw.choices(ALPHABET, k=16)),
            "".join(draw.choices(string.ascii_uppercase, k=2)) + "".join(draw.choices(string.digits, k=9)) + "US",
            f"Tracking no. {draw.randrange(10**12):012d}",
            "TRK-" + "-".join("".join(draw.choices(ALPHABET, k=4)) for _ in range(3)),
            f"(ref #{draw.randrange(10**9):09d})",
        )
    )


def navigation(draw: random.Random) -> str:
    """A menu, a trail of pages, a pager."""
    page = draw.randint(1, 99)
    return draw.choice(
        (
            " | ".join(draw.sample(MENU, draw.randint(4, 7))),
            f"Home > Forum > Topic {draw.randrange(10_000)} > Page {page}",
            f"« Previous | {page} | {page + 1} | {page + 2} | ... | {page + draw.randint(5, 90)} | Next »",
            "Skip to content. " + " / ".join(draw.sample(MENU, 4)),
        )
    )


def boilerplate(draw: random.Random) -> str:
    """One of a few sentences that return throughout the corpus."""
    year = draw.randint(2004, 2023)
    return draw.choice((*BOILERPLATE, f"Copyright (c) {year} Example Media Group. All rights reserved."))


def blob(draw: random.Random) -> str:
    """An embedded picture or signature in base64."""
    data = base64.b64encode(draw.randbytes(draw.randint(24, 90))).decode()
    return draw.choice(("data:image/png;base64,", "sig=", "")) + data


NOISE: dict[str, tuple[Callable[[random.Random], str], float]] = {
    "timestamp": (timestamp, 0.34),
    "user name": (user_name, 0.20),
    "tracking number": (tracking_number, 0.20),
    "navigation": (navigation, 0.11),
    "boilerplate": (boilerplate, 0.08),
    "blob": (blob, 0.07),
}
"""Kind -> how it is made, and its share of the pieces (not of the characters)."""
LINES = ("navigation", "boilerplate")
"""Kinds that stand between paragraphs, in a line of their own; the others stand between words."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--noise", type=float, default=0.35, help="share of the noisy text's characters, below 1")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        counts = write_corpus(given.folder, noise=given.noise, seed=given.seed)
    except UserError as error:
        sys.exit(f"error: {error}")
    for name in ("noisy", "clean", "target"):
        documents, characters = counts[name]["documents"], counts[name]["characters"]
        print(f"{given.folder / name}.jsonl: {documents:,} documents, {characters:,} characters")
    total = sum(counts["regions"].values())
    print(", ".join(f"{kind} {count / total:.1%}" for kind, count in counts["regions"].items()))


def write_corpus(folder: Path, *, noise: float = 0.35, seed: int = 0) -> dict[str, Any]:
    """Write `noisy.jsonl`, `clean.jsonl`, `target.jsonl` and `planted.json`.

    Args:
        folder: where.
        noise: share of the noisy text's characters that is noise.
        seed: decides which source files are noisy and which clean, and all noise.

    Returns:
        What `planted.json` holds: for each set `documents` and `characters`, `regions` (characters of each kind) and
        the version of `sympy`.

    Raises:
        UserError: `noise` outside [0, 1), no text to be had, or a folder that holds something else.
    """
    if not 0 <= noise < 1:
        raise UserError(f"--noise must be at least 0 and below 1, not {noise:g}")
    stage = Stage(folder, "planted.json", {"noise": noise, "seed": seed})
    if not stage.finished:
        with stage.running():
            stage.finish(**_make(folder, noise, seed))
    return stage.outputs


def _make(folder: Path, noise: float, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        sympy = write_embedded(Path(temporary))["sympy"]
        prose = list(read_json_lines(Path(temporary) / "clean.jsonl"))
        target = list(read_json_lines(Path(temporary) / "target.jsonl"))
    draw = random.Random(f"planted noise {seed}")
    hosts, clean = _split(prose, draw)
    repeated = repeated_in([record["text"] for record in clean], [record["text"] for record in hosts])
    clean = [record for i, record in enumerate(clean) if i not in repeated]
    noisy = list(_noisy_records(hosts, noise, draw))
    regions: Counter[str] = Counter({TEXT: 0, **dict.fromkeys(NOISE, 0)})
    for record in noisy:
        for start, end, kind in record["regions"]:
            regions[kind] += end - start
    counts: dict[str, Any] = {"sympy": sympy, "regions": dict(regions)}
    for name, records in (("noisy", noisy), ("clean", clean), ("target", target)):
        write_json_lines(folder / f"{name}.jsonl", records)
        characters = sum(len(record["text"]) for record in records)
        counts[name] = {"documents": len(records), "characters": characters}
    return counts


def plant(text: str, budget: float, draw: random.Random) -> tuple[str, list[list[Any]], int]:
    """Plant noise into one text.

    Args:
        text: it stays whole and in order.
        budget: characters of noise; the last piece may exceed it.
        draw: decides what and where.

    Returns:
        The noisy text, its regions [[start, end, kind], ...] (ascending, without gap, neighbours differ in kind) and
        the characters of noise.
    """
    kinds, weights = list(NOISE), [weight for _, weight in NOISE.values()]
    # After a word, so that the space before the next one stays with the text; a paragraph's end is a word's end too.
    words = [found.end() for found in re.finditer(r"\S(?=\s|$)", text)]
    sentences = [found.end() for found in re.finditer(r"[.!?:](?=\s|$)", text)] or words
    paragraphs = [0, *(found.end() for found in re.finditer(r"\S(?=\n\s*\n|$)", text))]
    planted: list[tuple[int, Piece]] = []
    spent = 0
    while spent < budget and words:
        kind = draw.choices(kinds, weights)[0]
        noise = NOISE[kind][0](draw)
        if kind in LINES:
            place = draw.choice(paragraphs)
            noise = f"{noise}\n" if place == 0 else f"\n{noise}"
        else:
            place = draw.choice(sentences if draw.random() < 0.5 else words)
            noise = f" {noise}"
        planted.append((place, (noise, kind)))
        spent += len(noise)
    return *_join(text, sorted(planted, key=lambda item: item[0])), spent


def _join(text: str, planted: Sequence[tuple[int, Piece]]) -> tuple[str, list[list[Any]]]:
    parts: list[str] = []
    regions: list[list[Any]] = []
    length = 0

    def add(characters: str, kind: str) -> None:
        nonlocal length
        if not characters:
            return
        parts.append(characters)
        if regions and regions[-1][2] == kind:
            regions[-1][1] += len(characters)
        else:
            regions.append([length, length + len(characters), kind])
        length += len(characters)

    at = 0
    for place, (noise, kind) in planted:
        add(text[at:place], TEXT)
        add(noise, kind)
        at = place
    add(text[at:], TEXT)
    return "".join(parts), regions


def _split(prose: Sequence[dict[str, Any]], draw: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Half of the text, by source file, to plant noise into, and the other half."""
    sizes: Counter[str] = Counter()
    for record in prose:
        sizes[record["source"]] += len(record["text"])
    names = sorted(sizes)
    draw.shuffle(names)
    chosen: set[str] = set()
    taken = 0
    for name in names:
        if taken + sizes[name] <= sum(sizes.values()) / 2:
            chosen.add(name)
            taken += sizes[name]
    hosts = [record for record in prose if record["source"] in chosen]
    return hosts, [record for record in prose if record["source"] not in chosen]


def _noisy_records(hosts: Sequence[dict[str, Any]], noise: float, draw: random.Random) -> Iterator[dict[str, Any]]:
    owed = 0.0
    for record in hosts:
        # What one document got too much, the next ones get less.
        owed += len(record["text"]) * noise / (1 - noise)
        text, regions, spent = plant(record["text"], owed, draw)
        owed -= spent
        yield {"text": text, "source": record["source"], "regions": regions}


if __name__ == "__main__":
    main()
