"""The papers against the repository: files, modules, classes, functions and documents that are named are there."""

import ast
import re
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from s2m3.schemas import topics

ROOT = Path(__file__).parents[1]
PAPERS = ("*.md", "docs/*.md", "docs/schema/README.md", "docs/decisions/*.md")
#: Beginnings of names in backquotes that are topics, or files that a benchmark writes.
NO_PATHS = ("s2m3/v1", "bench/results/")
FOLDERS = "schemas|broker|planner|agents|s2m3|tests|docs|bench|examples|deploy|dashboard"
CODE = {".py", ".ts", ".tsx", ".mjs", ".toml", ".conf", ".yaml", ".service", ".css", ".html"}


@cache
def _tracked() -> list[str]:
    """The repository's files; new ones too, unless git ignores them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@cache
def _names() -> frozenset[str]:
    """`function`, `Class`, `Class.method` and `Class.field` of all our files."""
    found: set[str] = set()
    for name in _tracked():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / name).read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(node.name)
                elif isinstance(node, ast.ClassDef):
                    found.add(node.name)
                    found |= {f"{node.name}.{member}" for member in _members(node)}
    return frozenset(found)


def _members(node: ast.ClassDef) -> set[str]:
    """Methods and annotated fields. Those of a base are found under the base's own name."""
    found = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    return found | {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def _papers() -> list[Path]:
    return [path for pattern in PAPERS for path in sorted(ROOT.glob(pattern)) if path.name != "CHANGELOG.md"]


def _named(path: Path) -> set[str]:
    """What a paper names in backquotes, outside of code blocks and without what is only an example."""
    return set(re.findall(r"`([^`\n]+)`", _without_code_blocks(path)))


def _without_code_blocks(path: Path) -> str:
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("path", _papers(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_path_that_a_paper_names_is_there(path: Path) -> None:
    patterns = {topic.pattern for topic in topics.ALL}
    named = {name for name in _named(path) if re.fullmatch(rf"({FOLDERS})/[\w./-]*", name)} - patterns
    missing = (name for name in named if not name.startswith(NO_PATHS) and not (ROOT / name).exists())
    assert sorted(missing) == []


@pytest.mark.parametrize("path", _papers(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_class_and_function_that_a_paper_names_is_there(path: Path) -> None:
    missing = []
    for name in _named(path):
        if re.fullmatch(r"s2m3(\.\w+)+", name) and not name.endswith(".toml"):
            module, _, last = name.rpartition(".")
            if find_spec(module) is None or (find_spec(name) is None if last.islower() else last not in _names()):
                missing.append(name)
        elif re.fullmatch(r"[A-Z]\w*[a-z]\w*\.\w+", name) and not (ROOT / name).exists():
            missing += [name] if name not in _names() else []
        elif function := re.fullmatch(r"([a-z]\w+)\(\)", name):
            missing += [name] if function[1] not in _names() else []
    assert missing == []


def test_the_diagrams_name_methods_that_are_there() -> None:
    diagrams = "".join(re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL))
    named = set(re.findall(r"\b[A-Z]\w*[a-z]\w*\.\w+", diagrams))
    assert len(named) > 10
    assert sorted(named - _names()) == []


def test_every_link_between_documents_leads_somewhere() -> None:
    links = [
        (name, target)
        for name in _tracked()
        if name.endswith(".md")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", _without_code_blocks(ROOT / name))
        if "://" not in target
    ]
    assert [link for link in links if not (ROOT / link[0]).parent.joinpath(link[1]).exists()] == []


def test_comments_name_only_documents_that_exist() -> None:
    """A document is named from the root, from docs/, or by its own name alone."""
    there = {name for name in _tracked() if name.endswith(".md")}
    known = there | {name.removeprefix("docs/") for name in there} | {Path(name).name for name in there}
    code = [name for name in _tracked() if Path(name).suffix in CODE or name == "Makefile"]
    named = [
        (name, document)
        for name in code
        for document in re.findall(r"(?<![\w{}/.*%-])((?:[\w-]+/)*[\w-]+\.md)\b", (ROOT / name).read_text())
    ]
    assert len(named) > 20
    assert [pair for pair in named if pair[1] not in known] == []


def test_nothing_refers_to_an_issue_that_a_reader_does_not_have() -> None:
    texts = [name for name in _tracked() if Path(name).suffix in CODE | {".md"} or name == "Makefile"]
    refers = re.compile(r"\b(issue|ticket) #?\d", re.IGNORECASE)
    assert [name for name in texts if refers.search((ROOT / name).read_text())] == []


def test_every_decision_is_listed_and_every_one_listed_is_there() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
