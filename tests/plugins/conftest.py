"""The package, definitions and checkpoint that docs/models.md shows, as a reader makes them; a site that has them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from s2m3.agents.registry import entry_points as registered
from s2m3.agents.registry import installed_classes, requirements
from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S

ROOT = Path(__file__).parents[2]
#: A block of code that names its file behind the language.
_BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


class OwnCluster(Cluster):
    """One node whose Python finds packages of others; a planner and an agent with the folders of the document.

    Args:
        written: What the document's files were written into.
        path: Where packages are installed.
        kind: Of broker.
    """

    def __init__(self, written: Path, path: list[Path], kind: BrokerKind) -> None:
        super().__init__({"a": 400.0}, kind=kind, threads=1)
        self.written = written
        self.environment["PYTHONPATH"] = python_path(*path)

    def start_planner(self) -> None:
        self._spawn("planner", "planner", "--models", str(self.written / "models"))

    def start_agent(self, node: str) -> None:
        folders = ["--architectures", str(self.written / "architectures"), "--checkpoints", str(self.written)]
        self._spawn(node, "agent", "--node", node, "--memory-mb", str(self._nodes[node]), "--threads", "1", *folders)


def python_path(*first: Path) -> str:
    return os.pathsep.join(filter(None, [*map(str, first), str(ROOT), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the document, and the checkpoint that one of them writes."""
    folder = tmp_path_factory.mktemp("document")
    for name, text in _BLOCK.findall((ROOT / "docs" / "models.md").read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run([sys.executable, "make_checkpoint.py"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip installed the document's package: built by its own backend, without a network."""
    target = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index"]
    flags = ["--no-deps", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*pip, *flags, str(written / "mean-color")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def site(written: Path, installed: Path, broken: Path, kind: BrokerKind) -> Iterator[OwnCluster]:
    with OwnCluster(written, [installed, broken], kind) as cluster:
        with Site(cluster.settings) as seen:
            assert seen.wait(lambda s: s.nodes.ready == {"a"} and "a" in s.profiles, WAIT_S), cluster.log("a")
            add_task(seen, "wall", m.TaskSpec(model="wall"))
            assert seen.wait(lambda s: s.ready("wall"), WAIT_S), cluster.log("a")
        yield cluster


@pytest.fixture(scope="session")
def sky(site: OwnCluster) -> str:
    """A task of the document's checkpoint, added as the document says."""
    folders = ["--model", str(site.written / "day-or-night"), "--architectures", str(site.written / "architectures")]
    added = s2m3("task", "add", "sky", *folders, port=site.settings.port)
    assert added.returncode == 0, (added.stderr, site.log("a"))
    return "sky"


def install(folder: Path, name: str, classes: dict[str, str], code: str, requires: tuple[str, ...] = ()) -> None:
    """Writes a package as it lies once installed: one Python file and its metadata."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
    points = "".join(f"{name} = {value}\n" for name, value in classes.items())
    (info / "entry_points.txt").write_text(f"[s2m3.modules]\n{points}")
    (folder / f"{name.replace('-', '_')}.py").write_text(code)


BROKEN = {
    "fails-at-import": "raise RuntimeError('no such camera')\n",
    "exits-at-import": "raise SystemExit('not today')\n",
    "fails-at-load": "def load(spec, source):\n    raise OSError('the model is not there')\n",
    "makes-no-module": "def load(spec, source):\n    return object()\n",
    "has-no-function": "def other(spec, source):\n    return None\n",
}


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of which each goes wrong in another way, each with one class that is called like the package."""
    folder = tmp_path_factory.mktemp("broken")
    for name, code in BROKEN.items():
        install(folder, f"acme-{name}", {name: f"acme_{name.replace('-', '_')}:load"}, code)
    needy = ("numpy>=2", "no-such-package>=3; python_version >= '3'")
    install(folder, "acme-needy", {"needs-more": "acme_needy:load"}, "raise AssertionError\n", needy)
    install(folder, "acme-cosine", {"cosine": "acme_cosine:load"}, "raise AssertionError\n")
    return folder


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder on this process's path: what is installed there is read anew, and what is elsewhere is left out."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registered, "entry_points", partial(_declared_in, tmp_path))
    _forget()
    yield tmp_path
    _forget()


def _declared_in(folder: Path, *, group: str) -> list[EntryPoint]:
    """The entry points of what is installed in a folder: a checkout's environment may hold packages of its user."""
    found = [point for point in entry_points(group=group) if point.dist is not None]
    return [point for point in found if point.dist and Path(str(point.dist.locate_file(""))) == folder]


def _forget() -> None:
    for cached in (installed_classes, requirements.requires):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]
