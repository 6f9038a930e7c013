"""The documents lead to one another, and to nothing that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "checkpoints").glob("*.md"),
     *(ROOT / "bsdnet" / "weights").glob("*.md")]
)  # fmt: skip

pytestmark = pytest.mark.skipif(not README.is_file(), reason="an installed package has no documents")


def links(document: Path) -> list[tuple[Path, str]]:
    """Files and headings that a document links to; not those elsewhere in the world."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    here = [target.partition("#") for target in found if "://" not in target]
    return [(document if not name else (document.parent / name).resolve(), heading) for name, _, heading in here]


def headings(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path):
    for target, heading in links(document):
        assert target.exists(), f"{document.name} links to {target}"
        assert not heading or heading in headings(target), f"{document.name} links to {target.name}#{heading}"


def test_every_document_and_picture_can_be_reached_from_the_readme():
    reached, ahead = {README}, [README]
    while ahead:
        document = ahead.pop()
        linked = {target for target, _ in links(document)}
        linked |= {file for folder in linked if folder.is_dir() for file in folder.glob("*.md")}
        new = linked - reached
        reached |= new
        ahead += [target for target in new if target.suffix == ".md"]
    pictures = {path for path in (ROOT / "docs" / "images").iterdir() if path.is_file()}
    assert {*DOCUMENTS, *pictures} <= reached
