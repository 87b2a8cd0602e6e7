"""The table of families in docs/checkpoints.md: `python -m tests.families.document` writes it, the rows hold it."""

import tempfile
from pathlib import Path

from s2m3.schemas.checkpoints.architectures import architecture_name, architecture_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from tests.families.family import Family

__all__ = ["DOCUMENT", "documented", "row"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoints.md"
_BEGIN, _END = "<!-- families: begin -->\n", "<!-- families: end -->\n"
_HEAD = "| row | `architectures` | parts | answers |\n|---|---|---|---|\n"


def row(family: Family, folder: Path) -> str:
    """Returns the line of one family, from its checkpoint's folder."""
    config = read_checkpoint(folder).config
    known = architecture_of(config)
    return f"| {family.name} | `{architecture_name(config)}` | {', '.join(known.parts)} | {', '.join(known.answer)} |\n"


def documented() -> list[str]:
    """Returns the lines that the document has."""
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN + _HEAD)
    return rest.partition(_END)[0].splitlines(keepends=True)


def _write() -> None:
    from tests.families.table import FAMILIES  # noqa: PLC0415  # it imports transformers

    lines = []
    with tempfile.TemporaryDirectory() as made:
        for family in FAMILIES:
            folder = Path(made) / family.name
            folder.mkdir()
            family.make(folder)
            lines.append(row(family, folder))
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    DOCUMENT.write_text(before + _BEGIN + _HEAD + "".join(lines) + _END + after, encoding="utf-8")


if __name__ == "__main__":
    _write()
