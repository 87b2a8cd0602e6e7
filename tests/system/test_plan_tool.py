"""`s2m3 plan` as a tool: sweeps, comparisons, lost devices, CSV and figures."""

import csv
import io
import json
import struct
from pathlib import Path

import pytest

from s2m3.schemas import extras
from tests.command import s2m3_here

HOME = Path(__file__).parents[2] / "examples" / "home.json"
SWEEP = ["plan", str(HOME), "--compare", "greedy,auto,random", "--sweep", "devices.pi5.mbps=10,50,100"]


def test_a_sweep_by_three_methods_is_csv_with_a_row_for_each_plan_and_task() -> None:
    done = s2m3_here(*SWEEP, "--csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 3 * 3 * 2
    assert [row["devices.pi5.mbps"] for row in rows[::6]] == ["10", "50", "100"]
    best = {row["devices.pi5.mbps"]: float(row["objective_s"]) for row in rows if row["method"] == "auto"}
    assert best["10"] > best["50"] > best["100"]
    for row in rows:
        assert float(row["objective_s"]) >= best[row["devices.pi5.mbps"]] - 1e-12
        assert float(row["memory_mb_all"]) == sum(float(row[f"memory_mb.{d}"]) for d in ("server", "laptop", "pi5"))


def test_the_json_of_a_comparison_has_what_each_plan_alone_has() -> None:
    found = json.loads(s2m3_here(*SWEEP, "--json").stdout)["cases"]
    alone = json.loads(s2m3_here("plan", str(HOME), "--json").stdout)
    same = next(case for case in found if case["method"] == "auto" and case["values"] == {"devices.pi5.mbps": 100})
    assert {**same, "solve_s": 0} == {**alone, "solve_s": 0, "values": {"devices.pi5.mbps": 100}}


def test_what_does_not_fit_is_a_row_and_the_others_are_planned() -> None:
    done = s2m3_here("plan", str(HOME), "--compare", "auto,single:server", "--csv")
    assert done.returncode == 0
    last = list(csv.DictReader(io.StringIO(done.stdout)))[-1]
    assert last["error"] == "all modules need 871 MB, server has 700 MB"
    table = s2m3_here("plan", str(HOME), "--compare", "auto,single:server").stdout
    assert "1.000" in table
    assert s2m3_here("plan", str(HOME), "--compare", "single:server,single:pi5").returncode == 3


def test_a_plan_without_a_device_does_not_use_it() -> None:
    found = json.loads(s2m3_here("plan", str(HOME), "--without", "pi5", "--json").stdout)
    assert found["memory_mb"].keys() == {"server", "laptop"}
    lost = s2m3_here("plan", str(HOME), "--without", "server", "--json")
    assert (lost.returncode, json.loads(lost.stdout)["error"]["code"]) == (3, "no_capacity")


def test_an_instance_is_written_as_it_would_be_placed(tmp_path: Path) -> None:
    devices, written = HOME.parent / "devices.json", tmp_path / "left.json"
    words = ["plan", "--models", "clip-vit-b16", "--devices", str(devices), "--without", "server"]
    assert s2m3_here(*words, "--write", str(written)).returncode == 0
    assert [device["id"] for device in json.loads(written.read_text())["devices"]] == ["desktop", "laptop", "pi5"]
    alone = json.loads(s2m3_here(*words, "--json").stdout)
    assert json.loads(s2m3_here("plan", str(written), "--json").stdout) | {"solve_s": 0} == alone | {"solve_s": 0}
    nothing = s2m3_here("plan", "--models", " , ", "--devices", str(devices))
    assert nothing.returncode == 2
    assert "--models names none" in nothing.stderr


def test_joules_are_shown_where_devices_say_what_they_draw(tmp_path: Path) -> None:
    document = json.loads(HOME.read_text())
    for device in document["devices"]:
        device |= {"energy_w": 30, "idle_w": 8, "x-measured-with": "a plug"}
    powered = tmp_path / "powered.json"
    powered.write_text(json.dumps(document))
    tasks = json.loads(s2m3_here("plan", str(powered), "--json").stdout)["tasks"]
    assert all(task["joules"] > task["joules_above_idle"] > 0 for task in tasks.values())
    assert " J " in s2m3_here("plan", str(powered)).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--sweep devices.pi6.mbps=1", "no 'pi6'; there are: server, laptop, pi5"),
        ("--sweep devices.pi5.mpbs=1", "unknown key; did you mean mbps? keys of your own begin with x-"),
        ("--sweep devices.pi5.mbps=-1", "devices.2.mbps: Input should be greater than or equal to 0.000001"),
        ("--sweep devices.pi5.mbps", "not PATH=VALUE"),
        ("--compare fast", "no method 'fast'; known are auto, exact, greedy"),
        ("--compare single:pi6", "no device 'pi6'; there are: server, laptop, pi5"),
        ("--without pi6", "no such device"),
        ("--plot plan.gif", "the name ends with .svg or .png or .pdf"),
        ("--plot /no/such/folder/plan.svg", "there is no folder /no/such/folder"),
        ("--csv --json", "either --json or --csv"),
        ("--sweep tasks.retrieval.steps.head.after=image", "not a value; what is in it: image, text"),
        ("--sweep devices.pi5.mbps=1e-308", "devices.2.mbps: Input should be greater than or equal to 0.000001"),
        ("--sweep tasks.*.weight=1e308", "tasks.0.weight: Input should be less than or equal to 1000000000"),
        ("--budget nan", "--budget nan: seconds, 0 or more"),
        ("--budget -1", "--budget -1: seconds, 0 or more"),
        ("--devices home.json", "either an instance file, or --models and --devices"),
        ("--source pi5", "either an instance file, or --models and --devices"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(words: str, said: str) -> None:
    done = s2m3_here("plan", str(HOME), *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.skipif(bool(extras.missing("plot")), reason="matplotlib is not installed")
@pytest.mark.parametrize("words", [["plan", str(HOME)], SWEEP, SWEEP[:4]], ids=["one", "sweep", "comparison"])
def test_a_figure_is_as_wide_as_a_phone_names_what_it_shows_and_has_a_dark_mode(
    words: list[str], tmp_path: Path
) -> None:
    again, drawn, image = (tmp_path / name for name in ("again.svg", "plan.svg", "plan.png"))
    for path in (again, drawn, image):
        assert s2m3_here(*words, "--plot", str(path)).returncode == 0
    text = drawn.read_text()
    assert text == again.read_text()
    assert "prefers-color-scheme: dark" in text
    assert "fill: #ffffff" in text  # a background, so that ink is read on a page of any colour
    shown = {"greedy", "auto"} if "--compare" in words else {"retrieval", "transcription", "server", "pi5"}
    assert all(f">{name}</text>" in text for name in shown)
    width, _ = struct.unpack(">II", image.read_bytes()[16:24])
    assert width == 2 * 400
