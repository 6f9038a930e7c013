"""Blocks of Markdown between `<!-- results: NAME -->` and `<!-- end -->`, written anew from the results.

A marker that begins a line would end a paragraph, so it stands alone on a line between blank ones, around a table, or
further right, around a part of a sentence. What is around the block stays as it is.
"""

import json
import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from benchmarks.tables.blocks import Block

RESULTS = Path("benchmarks/results")
_MARKER = re.compile(r"<!-- (?:results: (?P<name>.*?)|end) -->")


def documents(root: Path) -> list[Path]:
    """Every document that may have blocks."""
    alone = [root / "README.md", root / "bsdnet/weights/MODEL_CARD.md", root / "checkpoints/README.md"]
    return [*alone, *sorted((root / "docs").glob("*.md"))]


def block_names(text: str) -> list[str]:
    """Names of the blocks of a document, in order."""
    return [marker["name"] for marker in _MARKER.finditer(text) if marker["name"]]


def update(root: Path, blocks: Mapping[str, Block], *, write: bool) -> list[str]:
    """Compare the documents below a repository's root with its results, and `write` what differs.

    Returns:
        One line for each block that differed, with document and name.

    Raises:
        click.ClickException: a marker is unknown or alone, or results are missing, broken or lack a figure.
    """
    differing = []
    changed = {}
    for path in documents(root):
        document = str(path.relative_to(root))
        text = path.read_text(encoding="utf-8")
        pieces, end = [], 0
        for opening, closing in _pairs(text, document):
            old = text[opening.end() : closing.start()]
            new = _render(root / RESULTS, blocks, opening["name"], document)
            if old.startswith("\n"):
                new = f"\n{new}\n"
            if new != old:
                differing.append(f"{document}: the block '{opening['name']}' differs from {RESULTS}")
            pieces += [text[end : opening.end()], new]
            end = closing.start()
        new_text = "".join([*pieces, text[end:]])
        if new_text != text:
            changed[path] = new_text
    if write:
        for path, new_text in changed.items():
            path.write_text(new_text, encoding="utf-8")
    return differing


def _pairs(text: str, document: str) -> list[tuple[re.Match[str], re.Match[str]]]:
    """Pair each opening marker with the end that follows it."""
    markers = list(_MARKER.finditer(text))
    pairs = []
    for opening, closing in zip_longest(markers[::2], markers[1::2]):
        line = 1 + text.count("\n", 0, opening.start())
        if not opening["name"]:
            raise click.ClickException(f"{document}:{line}: {opening[0]} ends no block")
        if closing is None or closing["name"]:
            raise click.ClickException(f"{document}:{line}: {opening[0]} has no <!-- end -->")
        pairs.append((opening, closing))
    return pairs


def _render(results: Path, blocks: Mapping[str, Block], name: str, document: str) -> str:
    if name not in blocks:
        raise click.ClickException(f"{document}: there is no block '{name}', only {', '.join(blocks)}")
    block = blocks[name]
    try:
        return block.render(*(_read(results / file) for file in block.files))
    except FileNotFoundError as error:
        reason = f"{RESULTS / Path(error.filename).name}, which is missing"
    except json.JSONDecodeError as error:
        reason = f"JSON, and one of {', '.join(block.files)} is broken: {error}"
    except KeyError as error:
        reason = f"{error} in {', '.join(block.files)}, where it is missing"
    raise click.ClickException(f"{document}: the block '{name}' needs {reason}")


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else text
