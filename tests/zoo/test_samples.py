"""The shipped samples stay small, and each has its source and licence written down."""

from tests.zoo.samples import FOLDER

FILES = [path for path in FOLDER.iterdir() if path.suffix in (".jpg", ".png", ".flac")]


def test_the_samples_take_less_than_700_kb() -> None:
    assert len(FILES) >= 12
    assert sum(path.stat().st_size for path in FILES) < 700_000


def test_every_sample_has_a_source_and_a_licence() -> None:
    text = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    named = [path.name for path in FILES if f"`{path.name}`" in text]
    assert sorted(named) == sorted(path.name for path in FILES)
