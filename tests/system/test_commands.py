"""The command as a person types it: exit codes 0, 1, 2, 3, one-line errors on stderr, JSON where a script wants it."""

import json
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from s2m3.broker.servers.launch import free_port
from s2m3.cluster import Cluster
from s2m3.command_line import command_line
from s2m3.page_server import page_is_built
from tests.command import s2m3, s2m3_here

HOME = Path(__file__).parents[2] / "examples" / "home.json"


#: Each command with input that is wrong whatever runs where.
WRONG_INPUT = {
    "agent": "--node A.B",
    "ask": "porch --image /no/such/file",
    "bind": "a --task porch --publish b --path nonsense",
    "bindings": "--root UPPER",
    "bridge": "--discovery-prefix #",
    "broker": "--kind nonsense",
    "calibrate": "porch --folder /no/such/folder",
    "churn": "/no/such/file",
    "dashboard": "--broker http://hub/",
    "demo": "--broker nonsense",
    "drain": "pi5 --undo --wait soon",
    "forget": "pi5 --port 0",
    "history clear": "--file /no/such/file",
    "history show": "--root UPPER",
    "models": "--models /no/such/folder",
    "node clear": "desktop --port 0",
    "node set": "desktop --wake nonsense",
    "node show": "--root UPPER",
    "node sleep": "desktop --wait soon",
    "node wake": "desktop --wait soon",
    "plan": "/no/such/file",
    "planner": "--models /no/such/folder",
    "replan": "--password-file /no/such/file",
    "secure add": "/no/such/folder agent pi5",
    "secure init": "/no/such/folder",
    "secure install": "/no/such/folder",
    "secure ls": "/no/such/folder",
    "secure revoke": "/no/such/folder pi5",
    "secure uninstall": "/no/such/folder",
    "serve": "--bind 0.0.0.0",
    "split": "/no/such/folder",
    "status": "--tls-ca /no/such/file",
    "task add": "porch --model ./no/such/folder",
    "task ls": "--root UPPER",
    "task rm": "porch --port 0",
    "unbind": "porch --port 0",
    "uninstall": "--root UPPER",
    "up": "--port 70000",
    "watch": "--root UPPER",
    "weights": "--nonsense",
}
#: What a user may name that a site does not have.
NOT_THERE = [
    "ask nosuch --text a",
    "ask noop --text a",
    "bind a --task nosuch --input left --publish b",
    "bind a --task noop --input nosuch --publish b",
    "drain nosuch",
    "drain nosuch --undo",
    "forget nosuch",
    "node clear nosuch",
    "node set nosuch --prefer 2",
    "node show nosuch",
    "node sleep nosuch",
    "node wake nosuch",
    "task add x --model nosuch",
    "task add x --model noop --image /no/such/file",
    "task rm nosuch",
    "unbind nosuch",
]


def commands(group: Any, before: str = "") -> list[str]:
    """The commands of a group and of the groups in it, as they are typed."""
    inner = getattr(group, "commands", None)
    if inner is None:
        return [before.strip()]
    return [name for word, command in inner.items() for name in commands(command, f"{before} {word}")]


COMMANDS = commands(typer.main.get_command(command_line()))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = s2m3_here(*command.split(), "--help")
    assert done.returncode == 0
    assert f"s2m3 {command}" in " ".join(done.stdout.split())
    assert "Usage" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_input_exits_2_and_is_said_without_a_traceback(command: str) -> None:
    done = s2m3_here(*command.split(), *WRONG_INPUT[command].split())
    assert done.returncode == 2, done
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_the_name_of_something_that_is_not_there_is_wrong_input(noop_cluster: Cluster) -> None:
    done = {words: s2m3_here(*words.split(), port=noop_cluster.settings.port) for words in NOT_THERE}
    assert {words: (d.returncode, len(d.stderr.splitlines())) for words, d in done.items()} == dict.fromkeys(
        NOT_THERE, (2, 1)
    )
    nodes = {
        words: d.stderr for words, d in done.items() if words.startswith(("drain", "forget", "node set", "node show"))
    }
    assert {words: text.rstrip().endswith("; there are: a, b, c") for words, text in nodes.items()} == dict.fromkeys(
        nodes, True
    )
    for words in ("ask nosuch --text a", "task rm nosuch", "bind a --task nosuch --input left --publish b"):
        assert done[words].stderr == "s2m3: unknown_task: no task 'nosuch'; there are: noop\n"


def test_it_says_its_version() -> None:
    done = s2m3_here("--version")
    assert (done.returncode, done.stdout) == (0, f"s2m3 {version('s2m3')}\n")


def test_it_completes_commands_in_a_shell() -> None:
    done = s2m3("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout


def test_plan_prints_the_placement_and_its_proof() -> None:
    done = s2m3("plan", str(HOME))
    assert done.returncode == 0
    assert "vit-b16" in done.stdout
    assert "objective" in done.stdout


def test_plan_prints_the_contracts_json() -> None:
    document = json.loads(s2m3("plan", str(HOME), "--json").stdout)
    keys = {"method", "objective_s", "proven_optimal", "lower_bound_s", "placement", "tasks", "memory_mb", "solve_s"}
    assert document.keys() == keys
    assert set(document["tasks"]["retrieval"]) == {"latency_s", "route"}


def test_plan_places_models_of_which_nothing_is_there(tmp_path: Path) -> None:
    words = ["plan", "--models", "clip-vit-l14-336,llava-tinyllama", "--devices", str(HOME.parent / "devices.json")]
    placed = json.loads(s2m3_here(*words, "--dtype", "bfloat16", "--source", "pi5", "--json").stdout)
    assert placed["proven_optimal"]
    written = tmp_path / "instance.json"
    assert s2m3_here(*words, "--dtype", "bfloat16", "--source", "pi5", "--write", str(written)).returncode == 0
    assert json.loads(s2m3_here("plan", str(written), "--json").stdout)["objective_s"] == placed["objective_s"]


@pytest.mark.parametrize("words", [[], [str(HOME), "--models", "clip-vit-b16"], ["--models", "clip-vit-b16"]])
def test_plan_wants_a_file_or_models_and_devices(words: list[str]) -> None:
    done = s2m3_here("plan", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_plan_exits_3_with_the_numbers_when_it_does_not_fit(tmp_path: Path) -> None:
    instance = json.loads(HOME.read_text())
    for device in instance["devices"]:
        device["memory_mb"] = 300
    small = tmp_path / "small.json"
    small.write_text(json.dumps(instance))
    done = s2m3_here("plan", str(small), "--json")
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "no_capacity"
    assert "vit-b16 needs 340 MB" in error["detail"]
    spoken = s2m3_here("plan", str(small))
    assert spoken.returncode == 3
    assert spoken.stderr.startswith("s2m3: no_capacity: ")
    assert len(spoken.stderr.splitlines()) == 1


def test_a_wrong_instance_file_names_the_file_and_the_key(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(HOME.read_text().replace('"module": "cosine"', '"module": "sine"'))
    done = s2m3_here("plan", str(wrong))
    assert done.returncode == 2
    assert "wrong.json" in done.stderr
    assert "sine" in done.stderr


@pytest.mark.parametrize("words", ["ask retrieval --text a", "status", "task ls", "drain pi5", "bindings"])
def test_26_a_broker_that_is_not_there_is_said_in_one_line(words: str) -> None:
    """That a command does not wait for one is shown on the link (tests/broker/test_link.py)."""
    port = free_port()
    done = s2m3_here(*words.split(), port=port)
    assert done.returncode == 1
    assert done.stderr.startswith("s2m3: broker_unreachable: ")
    assert f"nothing listens on port {port} of 127.0.0.1 (connection refused)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_26_a_host_that_has_no_address_is_said_at_once() -> None:
    done = s2m3_here("status", "--host", "no-such-host.invalid")
    assert done.returncode == 1
    assert "the name 'no-such-host.invalid' cannot be resolved" in done.stderr


def test_26_something_that_speaks_no_mqtt_is_told_from_a_broker_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = s2m3_here("status", port=silent.getsockname()[1])
    assert done.returncode == 1
    assert "took the connection, but did not answer as MQTT v5" in done.stderr


_WITH_PAGE = pytest.mark.skipif(not page_is_built(), reason="the page is not built: make dashboard")


@pytest.mark.parametrize(
    "words", ["up --port", "broker --port", pytest.param("up --page-port", marks=_WITH_PAGE), "broker --port-ws"]
)
def test_a_port_that_is_taken_is_said_with_its_flag(words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = s2m3_here(*words.split(), str(port))
    assert done.returncode == 2
    flag = words.split()[1]
    assert done.stderr.startswith(f"s2m3: bad_input: {flag} {port}: something listens there already")


@pytest.mark.parametrize(
    "words", [["ask"], ["ask", "x", "--image", "/no/such/file"], ["nonsense"], ["agent", "--node", "A B"]]
)
def test_wrong_usage_exits_2(words: list[str]) -> None:
    done = s2m3(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_models_lists_what_tasks_can_be_made_of() -> None:
    document = json.loads(s2m3_here("models", "--json").stdout)
    assert {
        "retrieval",
        "classification",
        "vqa",
        "transcription",
        "spoken-retrieval",
        "spoken-intent",
    } <= document.keys()


def test_a_wrong_model_definition_stops_the_planner_with_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        'id = "x"\ndescription = ""\ninputs = {a = "text"}\nanswer = ["b"]\nsteps = {}\n'
    )
    done = s2m3("planner", "--models", str(tmp_path), "--port", str(free_port()))
    assert done.returncode == 2
    assert "bad.toml: steps" in done.stderr
