"""What pip took on one device becomes requirements with hashes, which pip itself holds on the next."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from s2m3.hashed_requirements import hashed_lines
from s2m3.schemas.errors import BadInputError

SHA = "a" * 64
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "security.md").read_text()


def report(*installed: dict[str, Any], version: str = "1") -> dict[str, Any]:
    return {"version": version, "install": list(installed)}


def package(name: str, **download: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "version": "1.0"}, "download_info": download}


def test_42_each_archive_has_its_hash_and_what_comes_from_a_folder_is_said() -> None:
    archive, of_pip_23_0 = {"hashes": {"sha256": SHA}}, {"hash": f"sha256={SHA}"}
    found = hashed_lines(report(package("b", archive_info=archive), package("a", archive_info=of_pip_23_0)))
    assert found == [f"a==1.0 --hash=sha256:{SHA}", f"b==1.0 --hash=sha256:{SHA}"]
    assert hashed_lines(report(package("s2m3", dir_info={}))) == ["# s2m3==1.0 was installed from a folder: no hash"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        [],
        None,
        report(version="2"),
        report(package("a", archive_info={})),
        report(package("a", archive_info={"hashes": {"sha256": "short"}})),
        report(package("a", vcs_info={})),
        report(package("a\n--index-url elsewhere", archive_info={"hashes": {"sha256": SHA}})),
    ],
)
def test_what_is_no_report_or_has_no_hash_is_refused(given: Any) -> None:
    with pytest.raises(BadInputError):
        hashed_lines(given)


def wheel(folder: Path, says: str) -> Path:
    """A wheel of one module."""
    path = folder / "tiny_thing-1.0-py3-none-any.whl"
    info = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("tiny_thing.py", f"SAYS = {says!r}\n")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", f"tiny_thing.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_42_a_changed_archive_is_refused_by_pip_on_the_next_device(tmp_path: Path) -> None:
    made = wheel(tmp_path, "as tried")
    words = ["--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    assert all(word in DOCUMENTED for word in words[1:])
    told = pip("install", "--no-index", "--find-links", str(tmp_path), *words, "tiny-thing")
    assert told.returncode == 0, told.stderr
    command = [sys.executable, "-m", "s2m3.hashed_requirements"]
    done = subprocess.run(command, input=told.stdout, capture_output=True, text=True, check=True)
    assert done.stdout == f"tiny-thing==1.0 --hash=sha256:{hashlib.sha256(made.read_bytes()).hexdigest()}\n"
    (tmp_path / "locked.txt").write_text(done.stdout)
    locked = ["--no-index", "--find-links", str(tmp_path), "--require-hashes", "-r", str(tmp_path / "locked.txt")]
    assert pip("install", *locked, "--target", str(tmp_path / "same")).returncode == 0
    wheel(tmp_path, "something else")
    refused = pip("install", *locked, "--target", str(tmp_path / "changed"))
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def test_what_is_no_json_is_said_in_one_line() -> None:
    command = [sys.executable, "-m", "s2m3.hashed_requirements"]
    done = subprocess.run(command, input="no", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("s2m3: bad_input: that is no JSON")
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)
