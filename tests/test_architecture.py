"""The house's own rules: who may import whom, what stays out of which process, how long a file may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "schemas": {"schemas"},
    "broker": {"schemas", "broker"},
    "planner": {"schemas", "broker", "planner"},
    "agents": {"schemas", "broker", "agents"},
    "s2m3": {"schemas", "broker", "planner", "agents", "s2m3"},
}
HEAVY = {"torch", "transformers"}
LONGEST_FILE = 350


def _sources() -> Iterator[tuple[str, Path]]:
    for package in ALLOWED:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield package, path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield (node.module or "").split(".")[0]


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package, path in _sources()
        for name in _imports(path)
        if name in ALLOWED and name not in ALLOWED[package]
    ]
    assert wrong == []


def test_only_agents_import_torch_or_transformers() -> None:
    wrong = [str(path) for package, path in _sources() if package != "agents" and HEAVY & set(_imports(path))]
    assert wrong == []


def test_one_file_imports_paho() -> None:
    assert [path.relative_to(ROOT).as_posix() for _, path in _sources() if "paho" in set(_imports(path))] == [
        "broker/connection.py"
    ]


@pytest.mark.parametrize("module", ["s2m3", "s2m3.cli", "planner.service", "planner.live", "agents.service"])
def test_neither_asking_nor_planning_nor_starting_an_agent_imports_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_starting_an_agent_loads_nothing_of_the_planner() -> None:
    code = "import sys, s2m3.cli, agents.service; print([m for m in sys.modules if m.startswith('planner.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['planner.catalogue']"


def test_files_stay_short_enough_to_read() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for _, path in _sources()}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FILE} == {}


def test_every_python_file_says_what_it_is_for() -> None:
    assert [str(path) for _, path in _sources() if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_nothing_names_a_machine_or_a_registry() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    hosts = "|".join(("pypi" + r"\.org", "files" + r"\.pythonhosted", "registry" + r"\.npmjs", "deb" + r"\.debian"))
    paths = re.compile(rf"(?<![\w.])/(work|root|home)/\w|{hosts}")
    text = {".py", ".md", ".toml", ".txt", ".json", ".conf", ".yaml", ".yml", ""}
    found = [
        name
        for name in tracked
        if Path(name).suffix in text
        and (ROOT / name).is_file()
        and paths.search((ROOT / name).read_text(errors="ignore"))
    ]
    assert found == []


def test_nothing_is_ever_unpickled() -> None:
    calls = re.compile(r"pickle\.|torch\.load\((?!.*weights_only=True)|yaml\.load\(|\beval\(|\bexec\(")
    found = []
    for _, path in _sources():
        text = re.sub(r"\.eval\(\)", "", path.read_text())
        if calls.search(text.replace("\n", " ")) and "torch.load" not in text:
            found.append(str(path))
    assert found == []
