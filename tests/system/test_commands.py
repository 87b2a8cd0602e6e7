"""The command as a person types it: exit codes 0, 1, 2, 3, one-line errors on stderr, JSON where a script wants it."""

import json
from pathlib import Path

import pytest

from s2m3.broker.servers.launch import free_port
from tests.command import s2m3, s2m3_here

HOME = Path(__file__).parents[2] / "examples" / "home.json"


COMMANDS = [
    "demo",
    "up",
    "ask",
    "status",
    "watch",
    "dashboard",
    "models",
    "broker",
    "planner",
    "agent",
    "drain",
    "forget",
    "replan",
    "plan",
    "split",
]
TASK_COMMANDS = ["task add", "task rm", "task ls", "secure init", "secure add", "secure revoke", "secure ls"]


@pytest.mark.parametrize("command", COMMANDS + TASK_COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = s2m3_here(*command.split(), "--help")
    assert done.returncode == 0
    assert "s2m3" in done.stdout
    assert "Usage" in done.stdout


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


def test_without_a_broker_commands_say_so_and_exit_1() -> None:
    done = s2m3("ask", "retrieval", "--text", "a", "--port", str(free_port()))
    assert done.returncode == 1
    assert "no MQTT v5 broker answers" in done.stderr
    assert "Traceback" not in done.stderr


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
