"""A wheel without the page is not made by accident."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def make(source: Path, what: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if name != "S2M3_WITHOUT_PAGE"} | variables
    command = [sys.executable, "-c", BUILD, what, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=source, env=env)


@pytest.fixture
def pageless(source: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "source"
    shutil.copytree(source, copy, symlinks=True)
    shutil.rmtree(copy / "s2m3" / "page", ignore_errors=True)
    return copy


@pytest.mark.parametrize("what", ["build_wheel", "build_sdist"])
def test_without_the_page_nothing_is_made_and_the_way_is_said(pageless: Path, what: str, tmp_path: Path) -> None:
    done = make(pageless, what, tmp_path / "dist")
    assert done.returncode != 0
    assert "the page is not built: `make wheel` builds it" in done.stderr
    assert list(tmp_path.glob("dist/*")) == []


def test_whoever_wants_none_says_so(pageless: Path, tmp_path: Path) -> None:
    done = make(pageless, "build_wheel", tmp_path / "dist", S2M3_WITHOUT_PAGE="1")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("dist/*.whl"))) == 1


def test_an_editable_installation_needs_no_page(pageless: Path, tmp_path: Path) -> None:
    done = make(pageless, "build_editable", tmp_path / "dist")
    assert done.returncode == 0, done.stderr
