"""What is not installed is said in one line with the command that brings it, and hints name what is there."""

import ast
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from s2m3 import cluster, weight_wheels
from s2m3.broker.servers import launch
from s2m3.schemas import extras
from s2m3.schemas.errors import NotInstalledError
from tests.packaging.environments import ROOT, Environment, make_environment
from tests.test_architecture import ALLOWED

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOME = str(ROOT / "examples" / "home.json")
#: Command -> the extra without which it does nothing.
NEEDS = {
    "agent": "agent",
    "bridge": "bridge",
    "broker --kind embedded": "broker",
    f"plan {HOME} --method exact": "exact",
    f"plan {HOME} --plot plan.svg": "plot",
    "secure ls x": "secure",
    "secure init x --host hub": "secure",
    "serve": "serve",
}
#: What a bare installation does.
WORKS = ["--help", "--version", "models", f"plan {HOME}", "split retrieval", "weights --help"]
#: Distributions whose packages are called otherwise.
IMPORTED_AS = {
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "protobuf": "google.protobuf",
    "python-multipart": "python_multipart",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
}


@pytest.mark.parametrize("words", WORKS)
def test_a_bare_installation_works_as_far_as_it_goes(bare: Environment, words: str, tmp_path: Path) -> None:
    done = bare.run("s2m3", *words.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("words", "extra"), NEEDS.items())
def test_a_command_says_which_packages_it_lacks_and_what_brings_them(
    bare: Environment, words: str, extra: str, tmp_path: Path
) -> None:
    done = bare.run("s2m3", *words.split(), cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("s2m3: not_installed: ")
    assert all(package in line for package in extras.EXTRAS[extra])
    assert f"pip install 's2m3[{extra}]'" in line


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_local_cluster_starts_nothing_before_all_it_needs_is_there(
    bare: Environment, command: str, tmp_path: Path
) -> None:
    done = bare.run("s2m3", command, "--broker", "embedded", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in ("torch", "iotcore", "the weights of Whisper tiny.en"))
    wanted = "agent,broker" if command == "demo" else "agent,bridge,broker"
    assert ": python -m s2m3.torch_build && " in line
    assert line.endswith(f"pip install 's2m3[{wanted}]' && s2m3 weights")
    assert list(tmp_path.iterdir()) == []  # no log of any process


@pytest.mark.skipif(launch.find_mosquitto() is None, reason="mosquitto is not installed")
def test_the_demo_takes_mosquitto_where_the_embedded_broker_is_not_installed(bare: Environment, tmp_path: Path) -> None:
    done = bare.run("s2m3", "demo", cwd=tmp_path)
    assert done.returncode == 1
    assert "torch" in done.stderr
    assert "iotcore" not in done.stderr


def test_the_commands_are_those_of_this_environment_though_it_is_not_activated(
    bare: Environment, tmp_path: Path
) -> None:
    done = bare.run("s2m3", "agent", cwd=tmp_path, PATH="/usr/bin:/bin")
    assert f"{bare.python.parent}/python" in done.stderr
    assert " -m pip install 's2m3[agent]'" in done.stderr


def test_the_page_that_was_left_out_is_said(bare: Environment, tmp_path: Path) -> None:
    done = bare.run(
        "python", "-c", "import shutil, s2m3; shutil.rmtree(s2m3.__path__[0] + '/page', True)", cwd=tmp_path
    )
    assert done.returncode == 0
    done = bare.run("s2m3", "dashboard", cwd=tmp_path)
    assert done.returncode == 1
    assert "made without the page" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_weights_say_that_there_is_no_pip_to_install_them(tmp_path: Path, wheel: Path) -> None:
    names = [Requirement(line).name for line in PYPROJECT["project"]["dependencies"]]
    pipless = make_environment(tmp_path / "venv", *names)
    pipless.install("--no-deps", "--ignore-installed", str(wheel))
    done = pipless.run("s2m3", "weights", cwd=tmp_path)
    assert done.returncode == 1
    assert "s2m3: not_installed: this environment has no pip; once `python -m ensurepip` has run" in done.stderr
    assert "python -m ensurepip && " in pipless.run("s2m3", "bridge", cwd=tmp_path).stderr


def test_mosquitto_is_no_reason_to_ask_for_the_embedded_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_mosquitto", lambda: None)
    with pytest.raises(NotInstalledError, match="apt install mosquitto"):
        cluster.require_installed("a test", [], "mosquitto")
    monkeypatch.setattr(extras, "EXTRAS", {"broker": ("no_such_package",)})
    with pytest.raises(NotInstalledError, match=r"needs iotcore: .*; or install mosquitto"):
        launch.require_broker("embedded")
    monkeypatch.setattr(launch, "find_mosquitto", lambda: "/usr/sbin/mosquitto")
    launch.require_broker("mosquitto")


def test_the_extras_are_those_of_the_package() -> None:
    declared = PYPROJECT["project"]["optional-dependencies"]
    named = {extra: [Requirement(line).name for line in lines] for extra, lines in declared.items() if extra != "dev"}
    expected = {extra: {IMPORTED_AS.get(name, name) for name in names} for extra, names in named.items()}
    assert {extra: set(packages) for extra, packages in extras.EXTRAS.items()} == expected


def test_what_the_list_says_of_each_weight_wheel_is_so() -> None:
    wheels = weight_wheels.pinned_wheels()
    lines = (ROOT / "deploy" / "weights.txt").read_text().splitlines()
    assert len(wheels) == len([line for line in lines if line and not line.startswith("#")]) > 0
    provenance = (ROOT / "agents" / "zoo" / "weights" / "PROVENANCE.md").read_text()
    for wheel in wheels:
        assert wheel.is_installed
        size = sum(file.size or 0 for file in distribution(wheel.name).files or []) / 1e6
        assert round(size) == wheel.mb
        (row,) = re.findall(rf"^\| {wheel.name} {re.escape(wheel.version)} .*$", provenance, re.MULTILINE)
        assert wheel.licence in row


def test_no_text_that_is_printed_names_a_folder_of_the_checkout() -> None:
    """An installation has no docs/, deploy/ or examples/, and no Makefile."""
    folders = re.compile(r"\b(docs|deploy|examples|tests|bench)/\w|\b(agents|broker|planner|schemas)/\w+/|\bmake \w+`")
    allowed = {"in a checkout `make dashboard` builds it"}
    found = []
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            texts = [(n.lineno, n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in prose]
            found += [
                f"{path.relative_to(ROOT)}:{line}: {text}"
                for line, text in texts
                if isinstance(text, str) and folders.search(text) and not any(a in text for a in allowed)
            ]
    assert found == []
