"""A module class of a user's own package and an architecture of a user's own folder, on a real broker and agent."""

import io
import json
import re

import pytest
from PIL import Image

from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.definitions import Definition, ModelSpec, ModuleSpec, StepSpec
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S
from tests.plugins.conftest import BROKEN, OwnCluster

pytestmark = pytest.mark.short_on("mosquitto")


def picture(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


def test_a_module_of_the_packages_class_answers(site: OwnCluster) -> None:
    with Client(settings=site.settings) as client:
        assert client.ask("wall", image=picture("#204060")).value == "#204060"


def test_a_checkpoint_of_the_folders_architecture_answers(site: OwnCluster, sky: str) -> None:
    with Client(settings=site.settings) as client:
        answers = [client.ask(sky, image=picture(color)) for color in ("#d0e0ff", "#081020")]
    assert [answer.value for answer in answers] == ["day", "night"]
    assert set(answers[0].route) == {"color", "classes"}


def test_the_parts_of_such_a_checkpoint_have_fingerprints(site: OwnCluster, sky: str) -> None:
    with Site(site.settings) as seen:
        assert seen.wait(lambda s: s.ready(sky) and "a" in s.reported, WAIT_S)
        reports = seen.reported["a"].modules
    prints = {report.fingerprint for name, report in reports.items() if name.startswith("day-or-night")}
    assert len(prints) == 2
    assert all(re.fullmatch("[0-9a-f]{64}", found) for found in prints)


def test_without_the_folder_the_architecture_is_unknown_and_named(site: OwnCluster) -> None:
    refused = s2m3("task", "add", "sky2", "--model", str(site.written / "day-or-night"), port=site.settings.port)
    assert refused.returncode == 2
    assert "'ColorClassifier' is not known" in refused.stderr


def test_status_and_models_name_the_class(site: OwnCluster) -> None:
    told = s2m3("status", "--json", port=site.settings.port, check=True)
    assert "mean-color" in json.loads(told.stdout)["nodes"]["a"]["classes"]
    shown = s2m3("status", port=site.settings.port, check=True, env={"COLUMNS": "300"})
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("a has module classes of its own: ")]
    named = set(line.partition(": ")[2].split(", "))
    assert {"mean-color", *BROKEN} <= named, "there may be more: packages of this checkout's own environment"
    assert not {"needs-more", "cosine"} & named
    listed = s2m3("models", "--models", str(site.written / "models"), env=site.environment | {"COLUMNS": "300"})
    assert "module class mean-color of mean-color 1.0\n" in listed.stdout
    assert "module class needs-more of acme-needy 1.0: it needs the package no-such-package>=3" in listed.stdout


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fails-at-import", "RuntimeError: no such camera"),
        ("exits-at-import", "SystemExit: not today"),
        ("fails-at-load", "OSError: the model is not there"),
        ("makes-no-module", "object is no module: it lacks nbytes, light, max_batch, prepare, run"),
        ("has-no-function", "has no attribute 'load'"),
    ],
)
def test_what_is_wrong_with_a_package_fails_its_module_alone(site: OwnCluster, name: str, why: str) -> None:
    with Site(site.settings) as seen:
        add_task(seen, name, m.TaskSpec(model=name, definition=one_step(name)))
        failed = seen.wait(lambda s: reason(s, name) is not None, WAIT_S)
        assert failed, site.log("a")
        detail = reason(seen, name) or ""
        boots = seen.profiles["a"].boot
        assert seen.wait(lambda s: s.ready("wall"), WAIT_S), site.log("a")
        assert seen.profiles["a"].boot == boots
    assert f"class {name} of acme-{name} 1.0: " in detail
    assert why in detail
    with Client(settings=site.settings) as client:
        assert client.ask("wall", image=picture("#ffffff")).value == "#ffffff"


def test_a_class_whose_package_lacks_something_is_not_offered_and_the_log_says_what(site: OwnCluster) -> None:
    with Site(site.settings) as seen:
        assert seen.wait(lambda s: "a" in s.profiles, WAIT_S)
        assert "needs-more" not in seen.profiles["a"].classes
    told = [line for line in site.log("a").splitlines() if "module_class_not_offered" in line]
    (line,) = [line for line in told if "module_class=needs-more" in line]
    assert "the package no-such-package>=3 (required by acme-needy 1.0)" in line


def test_a_class_of_a_shipped_ones_name_is_refused_and_the_log_says_so(site: OwnCluster) -> None:
    told = [line for line in site.log("a").splitlines() if "module_class_refused" in line]
    (line,) = [line for line in told if "module_class=cosine" in line]
    assert "acme-cosine 1.0 declares it, and a shipped class has this name" in line


def one_step(name: str) -> Definition:
    """A model of one module of a class."""
    spec = ModuleSpec.model_validate(
        {
            "id": f"of-{name}",
            "role": "head",
            "class": name,
            "source": "none",
            "inputs": {"data": "data"},
            "outputs": {"code": "data"},
            "memory_mb": 0.1,
        }
    )
    step = StepSpec(module=spec.id, inputs={"data": "input.data"})
    model = ModelSpec(id=name, description=name, inputs={"data": "data"}, steps={"only": step}, answer=["code"])
    return Definition(model=model, modules=[spec])


def reason(site: Site, name: str) -> str | None:
    """Why the module of a class failed, once it has; as the node told it or, when that is over, the planner."""
    report = site.reported["a"].modules.get(f"of-{name}") if "a" in site.reported else None
    if report is not None and report.reason is not None:
        return report.reason.detail
    doc = site.routes.get(name)
    error = doc.error if doc is not None else None
    return error.detail if error is not None and "it failed with" in error.detail else None
