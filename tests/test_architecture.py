"""The house's own rules: who may import whom, what stays out of which process, how long a file may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2m3
from s2m3.schemas import errors

ROOT = Path(__file__).parents[1]
#: folder at the top -> the folders that its files may import from, as s2m3.<folder>; "s2m3" is the face
ALLOWED = {
    "schemas": {"schemas"},
    "broker": {"schemas", "broker"},
    "planner": {"schemas", "broker", "planner"},
    "agents": {"schemas", "broker", "agents"},
    "s2m3": {"schemas", "broker", "planner", "agents", "s2m3"},
}
LINKED = [folder for folder in ALLOWED if folder != "s2m3"]
HEAVY = {"torch", "transformers", "onnxruntime"}
LONGEST_FILE = 350


def _sources() -> Iterator[tuple[str, Path]]:
    for package in ALLOWED:
        for path in sorted((ROOT / package).rglob("*.py")):  # rglob follows no links: each file comes once
            yield package, path


def _modules(path: Path) -> Iterator[str]:
    """The dotted names of the modules that a file imports; `from s2m3.a import b` may name a module b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imports(path: Path) -> set[str]:
    return {module.split(".")[0] for module in _modules(path)}


def _folder(module: str) -> str:
    """The folder at the top that one of our own modules lies in."""
    second = module.split(".")[1]
    return second if second in LINKED else "s2m3"


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for package, path in _sources()
        for module in _modules(path)
        if module.startswith("s2m3.") and _folder(module) not in ALLOWED[package]
    ]
    assert wrong == []


def test_one_name_is_installed() -> None:
    """Published packages are called agents, broker, planner and schemas: ours are s2m3.agents and so on, everywhere."""
    own = [
        *(path for _, path in _sources()),
        *(p for f in ("tests", "bench", "examples") for p in (ROOT / f).rglob("*.py")),
    ]
    assert [str(path) for path in own if _imports(path) & set(LINKED)] == []
    assert {name: (ROOT / "s2m3" / name).resolve() for name in LINKED} == {name: ROOT / name for name in LINKED}
    assert all((ROOT / "s2m3" / name).is_symlink() for name in LINKED)


def test_the_package_names_all_that_is_public() -> None:
    """Each name of s2m3.__all__ can be imported, and every error class is among them."""
    assert all(getattr(s2m3, name).__name__ == name for name in s2m3.__all__)
    assert {name for name in errors.__all__ if name.endswith("Error")} < set(s2m3.__all__)


def test_only_agents_import_torch_or_transformers() -> None:
    wrong = [str(path) for package, path in _sources() if package != "agents" and HEAVY & _imports(path)]
    assert wrong == []


def test_one_file_imports_paho() -> None:
    assert [path.relative_to(ROOT).as_posix() for _, path in _sources() if "paho" in _imports(path)] == [
        "broker/mqtt/connection.py"
    ]


@pytest.mark.parametrize(
    "module", ["s2m3", "s2m3.command_line", "s2m3.planner.service", "s2m3.planner.site.placer", "s2m3.agents.service"]
)
def test_neither_asking_nor_planning_nor_starting_an_agent_imports_torch(module: str) -> None:
    code = (
        f"import sys, {module}; getattr({module}, 'command_line', list)(); print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_starting_an_agent_loads_nothing_of_the_planner() -> None:
    started = "s2m3.command_line.command_line(['agent'])"
    loaded = "[m for m in sys.modules if m.startswith('s2m3.planner.')]"
    code = f"import sys, s2m3.command_line, s2m3.agents.service; {started}; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_supervisor_of_an_agent_imports_no_package() -> None:
    """What it imports stays in memory for as long as the agent runs, beside the agent."""
    code = "import sys; before = set(sys.modules); import s2m3.cli; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()} - {"s2m3"}
    assert loaded <= sys.stdlib_module_names
    assert not loaded & {"inspect", "dataclasses", "subprocess", "asyncio", "hashlib", "ctypes", "logging"}


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
