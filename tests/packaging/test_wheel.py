"""The wheel: nothing but s2m3 in it and all of s2m3, beside packages that are called as our folders are."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from s2m3.page_server import page_is_built
from tests.packaging.environments import ROOT, Environment

pytestmark = pytest.mark.timeout(400)  # pip fetches what openai-agents requires

#: Its top level is `agents`.
OTHER = "openai-agents==0.24.0"
LINKS = ("schemas", "broker", "planner", "agents")

USERS_SCRIPT = """\
from s2m3 import Answer, BrokerSettings, BusyError, Client, S2M3Error, Stream, TooLargeError

def ask(client: Client) -> float:
    stream: Stream = client.stream("porch", text="a", deadline_s=3.0)
    for part in stream:
        print(part.text.upper(), part.at + 1)
    try:
        answer: Answer = stream.result()
    except TooLargeError as error:
        return error.size / error.limit
    return answer.latency_ms if not BusyError("full").retriable else float(len(answer.route))

with Client(settings=BrokerSettings(host="hub")) as client:
    print(ask(client), S2M3Error.code.upper())
"""
#: From the third line on each is wrong.
WRONG_SCRIPT = """\
from s2m3 import Answer, BrokerSettings, BusyError, Client, Stream, TooLargeError
def wrong(client: Client, answer: Answer, stream: Stream, error: TooLargeError, settings: BrokerSettings) -> None:
    from s2m3 import Anwser
    answer.latency_s
    answer.route["image"].node
    client.ask(5)
    client.stream("porch", deadline_s="3")
    next(stream).words
    stream.result().text
    error.most
    BusyError("full").again
    settings.hots
    Client(settings="hub")
"""
#: Broker, planner and an agent as processes of the wheel.
ASK_A_CLUSTER = """\
import s2m3, sys
from s2m3 import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas.messages import TaskSpec
from s2m3.snapshot import Site
with Cluster({"a": 150.0}, threads=1) as cluster, Site(cluster.settings) as site:
    add_task(site, "noop", TaskSpec(model="noop"))
    assert site.wait(lambda s: s.ready("noop"), 120), cluster.log("planner")
    with Client(settings=cluster.settings) as client:
        print(client.ask("noop", left=1, right=2).value, s2m3.__file__.startswith(sys.prefix))
"""


@pytest.fixture(scope="module")
def beside_agents(whole: Environment) -> Environment:
    """The wheel in one environment with a published package that is called `agents`."""
    whole.install(OTHER)
    return whole


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_one_name_and_all_that_the_package_reads(wheel: Path) -> None:
    found = names(wheel)
    assert {name.split("/")[0].split("-")[0] for name in found} == {"s2m3"}
    assert {name for name in found if "/.." in name or "__pycache__" in name} == set()
    code = {f"s2m3/{p.relative_to(ROOT / 's2m3')}" for p in (ROOT / "s2m3").rglob("*.py")}
    code |= {f"s2m3/{p.relative_to(ROOT)}" for link in LINKS for p in (ROOT / link).rglob("*.py")}
    assert code <= found
    data = ("py.typed", "weights.txt", "constraints.txt", "samples/expected.toml", "secured/mosquitto.conf")
    assert {f"s2m3/{name}" for name in data} <= found
    with zipfile.ZipFile(wheel) as archive:
        for name in ("weights.txt", "constraints.txt"):
            assert archive.read(f"s2m3/{name}") == (ROOT / "deploy" / name).read_bytes()


@pytest.mark.skipif(not page_is_built(), reason="the page is not built: make dashboard")
def test_the_wheel_holds_the_page(wheel: Path) -> None:
    assert {f"s2m3/page/{p.name}" for p in (ROOT / "s2m3" / "page").iterdir()} <= names(wheel)


def test_the_source_archive_holds_files_alone(built: Path) -> None:
    """Whatever unpacks it need not know links."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert [m.name for m in members if not (m.isfile() or m.isdir())] == []
    top = {m.name.split("/")[1] for m in members if "/" in m.name}
    assert top == {
        "s2m3",
        "s2m3.egg-info",
        "pyproject.toml",
        "setup.py",
        "setup.cfg",
        "README.md",
        "LICENSE",
        "PKG-INFO",
    }


def test_it_works_beside_a_package_that_is_called_agents(beside_agents: Environment, tmp_path: Path) -> None:
    helped = beside_agents.run("s2m3", "--help", cwd=tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert "task" in helped.stdout
    code = "import agents, s2m3; print(agents.Agent.__module__.split('.')[0], s2m3.Client.__module__)"
    done = beside_agents.run("python", "-c", code, cwd=tmp_path)
    assert done.stdout.split() == ["agents", "s2m3.client"], done.stderr


def test_nothing_but_s2m3_is_new_in_site_packages(whole: Environment) -> None:
    (info,) = whole.packages.glob("s2m3-*.dist-info")
    recorded = {line.split(",")[0].split("/")[0] for line in (info / "RECORD").read_text().splitlines()}
    assert recorded == {"s2m3", info.name, ".."}  # and bin/s2m3
    assert (info / "top_level.txt").read_text().split() == ["s2m3"]


def checked(script: str, environment: Environment, folder: Path) -> str:
    """What mypy --strict says of a user's script."""
    path = folder / "script.py"
    path.write_text(script)
    words = ["--strict", "--config-file=", "--python-executable", str(environment.python)]
    command = [sys.executable, "-m", "mypy", *words, "--cache-dir", str(folder / "cache"), str(path)]
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def test_mypy_knows_the_types_of_a_users_script(whole: Environment, tmp_path: Path) -> None:
    said = checked(USERS_SCRIPT, whole, tmp_path)
    assert said.startswith("Success"), said
    found = {int(line) for line in re.findall(r"script\.py:(\d+): error", checked(WRONG_SCRIPT, whole, tmp_path))}
    assert found == set(range(3, len(WRONG_SCRIPT.splitlines()) + 1))


def test_the_wheel_alone_in_an_empty_folder_finds_the_weights_and_answers(whole: Environment, tmp_path: Path) -> None:
    """`make wheel-demo` has everything come from the registry, and runs the demo."""
    weights = whole.run("s2m3", "weights", "--json", cwd=tmp_path)
    assert weights.returncode == 0, weights.stderr
    assert {row["state"] for row in json.loads(weights.stdout)} == {"there already"}
    asked = whole.run("python", "-c", ASK_A_CLUSTER, cwd=tmp_path)
    assert asked.stdout.split() == ["[1,", "2]", "True"], asked.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_is_of_this_version(wheel: Path) -> None:
    assert wheel.name.startswith(f"s2m3-{distribution('s2m3').version}-")
