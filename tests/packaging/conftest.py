"""The wheel, built once from the working tree by way of the source archive, and environments that hold it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from s2m3.page_server import page_is_built
from tests.packaging.environments import ROOT, Environment, make_environment

#: What a wheel is made of.
_SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "deploy",
    "schemas",
    "broker",
    "planner",
    "agents",
    "s2m3",
)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree, links as they are: building leaves folders behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source archive and the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    env = os.environ | ({} if page_is_built() else {"S2M3_WITHOUT_PAGE": "1"})
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def base_requirements() -> list[str]:
    """The names of what `pip install s2m3` brings."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [line.split(">")[0] for line in lines]


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What `pip install s2m3` makes: no extra, no weights; and pip."""
    made = make_environment(tmp_path_factory.mktemp("bare") / "venv", "pip", *base_requirements())
    made.install("--no-deps", "--ignore-installed", str(wheel))
    return made


@pytest.fixture(scope="session")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with all extras and the weights: those of the tests' own environment."""
    made = make_environment(tmp_path_factory.mktemp("whole") / "venv", everything=True)
    made.install("--no-deps", "--ignore-installed", str(wheel))
    return made
