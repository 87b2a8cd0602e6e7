"""The commands that papers, examples, texts and units show: each exists, with the options that it is shown with."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from s2m3.command_line import command_line

ROOT = Path(__file__).parents[1]
#: What is not a use of today's command: the record of changes, and tests of what is typed wrongly.
_LEFT_OUT = ("CHANGELOG.md", "tests/")
_SUFFIXES = (".md", ".py", ".ts", ".tsx", ".sh", ".yaml", ".service", ".ipynb", ".toml")
#: A command up to what ends it in a shell, in a sentence or in a string; or the next command.
_SHOWN = re.compile(r"(?<![\w./@-])s2m3 ((?:[^\n`;|&#()\\]|\\\n)*)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@cache
def _app() -> Any:
    return typer.main.get_command(command_line())


def _uses() -> Iterator[tuple[str, str]]:
    """File, and what follows `s2m3` there, of each command that a file shows."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT)
    for name in listed.stdout.splitlines():
        if name.endswith(_SUFFIXES) and not name.startswith(_LEFT_OUT) and (ROOT / name).is_file():
            for found in _SHOWN.finditer((ROOT / name).read_text()):
                yield name, found[1].partition(" s2m3 ")[0]


def _named(words: list[str]) -> tuple[str, Any] | None:
    """The command that words begin with; None if they begin with none: `s2m3` in a sentence."""
    found, name = _app(), ""
    for word in words:
        inner = getattr(found, "commands", {}).get(word.strip("\"',.:"))
        if inner is None:
            break
        found, name = inner, f"{name} {word}".strip()
    return (name, found) if name and not hasattr(found, "commands") else None


USES = [(file, shown, named) for file, shown in _uses() if (named := _named(shown.split())) is not None]


def test_many_commands_are_shown() -> None:
    assert len(USES) > 300
    assert len({name for _, _, (name, _) in USES}) > 30


@pytest.mark.parametrize("file", sorted({file for file, _, _ in USES if file.endswith((".md", ".service", ".yaml"))}))
def test_a_paper_begins_no_line_of_a_shell_with_a_command_that_does_not_exist(file: str) -> None:
    lines = re.findall(
        r"^(?:[A-Z0-9_]+=\S+ )*s2m3 ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", (ROOT / file).read_text(), re.MULTILINE
    )
    assert [words for words in lines if words[0] not in _app().commands] == []


def test_each_is_shown_with_options_that_it_has() -> None:
    wrong = []
    for file, shown, (name, command) in USES:
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        wrong += [(file, name, option) for option in _OPTION.findall(shown) if option not in {*known, "--help"}]
    assert wrong == []
