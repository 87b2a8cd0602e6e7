"""Module classes of installed packages, by their metadata: what is offered, what is refused, what is imported when."""

import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from s2m3.agents.checkpoints.storage.folders import NO_CHECKPOINTS, CheckpointSources
from s2m3.agents.registry import can_load, identify, installed_classes, load, needs_torch, offered, origin_of
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from tests.plugins.conftest import install

MODULE = """
class Echo:
    nbytes, light, max_batch = 0, True, 8
    def __init__(self, made_of): self.made_of = made_of
    def prepare(self, inputs): return inputs["data"]
    def run(self, batch, wanted): return [{"code": data} for data in batch]

class Writer(Echo):
    generates, usual_tokens, cache_bytes = "code", 8, 0
    def most_tokens(self, prepared): return 8
    def need_bytes(self, prepared, tokens): return 0
    def begin(self, prepared, options): raise NotImplementedError
    def advance(self, rows): raise NotImplementedError
    def drop(self, rows): raise NotImplementedError
    def text(self, tokens): raise NotImplementedError

def load(spec, source): return Echo(source)
def folder(spec, source): return Echo(source.folder())
def part(spec, source): return Echo(source.part())
def write(spec, source): return Writer(source)
"""


def spec(class_name: str, **fields: Any) -> ModuleSpec:
    kinds = {"inputs": {"data": "text"}, "outputs": {"code": "text"}}
    base = {"id": "own", "role": "head", "source": "none", "memory_mb": 0.1}
    return ModuleSpec.model_validate({**base, **kinds, "class": class_name, **fields})


def refusals() -> list[dict[str, Any]]:
    with capture_logs() as logs:
        installed_classes()
    return [dict(line) for line in logs if line["event"] == "module_class_refused"]


def test_a_class_is_offered_loaded_and_named_by_its_package(on_path: Path) -> None:
    install(on_path, "acme-echo", {"echo": "acme_echo:load"}, MODULE)
    sources, classes = offered(NO_CHECKPOINTS, with_torch=True)
    assert "echo" in classes
    assert "none" in sources
    assert origin_of("echo") == "acme-echo 1.0"
    assert can_load(spec("echo"))
    assert identify(spec("echo")) == ""
    assert "acme_echo" not in sys.modules
    made = load(spec("echo"))
    assert made.run([made.prepare({"data": "a"})], frozenset({"code"})) == [{"code": "a"}]


def test_a_shipped_class_stays_what_it_is(on_path: Path) -> None:
    install(on_path, "acme-cosine", {"cosine": "acme_cosine:load"}, MODULE)
    (refusal,) = refusals()
    assert refusal["module_class"] == "cosine"
    assert "acme-cosine 1.0" in refusal["why"]
    assert origin_of("cosine") == ""
    assert "acme_cosine" not in sys.modules


def test_a_class_of_two_packages_is_of_neither(on_path: Path) -> None:
    for name in ("acme-one", "acme-two"):
        install(on_path, name, {"echo": f"{name.replace('-', '_')}:load"}, MODULE)
    (refusal,) = refusals()
    assert refusal["packages"] == "acme-one 1.0, acme-two 1.0"
    assert "echo" not in installed_classes()
    with pytest.raises(ModuleFailedError, match="unknown class 'echo'"):
        load(spec("echo"))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("Echo", "acme_echo:load", "is not an id"),
        ("an echo", "acme_echo:load", "is not an id"),
        ("echo", "acme_echo", "package.module:function"),
        ("echo", "acme echo!", "package.module:function"),
    ],
)
def test_what_is_no_class_is_refused(on_path: Path, name: str, value: str, why: str) -> None:
    install(on_path, "acme-echo", {name: value}, MODULE)
    (refusal,) = refusals()
    assert why in refusal["why"]
    assert installed_classes() == {}


def test_what_a_user_has_installed_besides_does_not_count_in_these_tests(
    on_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.syspath_prepend(str(elsewhere))
    install(elsewhere, "acme-foreign", {"foreign": "acme_foreign:load", "cosine": "acme_foreign:load"}, MODULE)
    install(on_path, "acme-echo", {"echo": "acme_echo:load"}, MODULE)
    assert refusals() == []
    assert list(installed_classes()) == ["echo"]


@pytest.mark.parametrize(
    ("requires", "extra", "missing"),
    [
        (("no-such-package",), "", "the package no-such-package (required by acme-echo 1.0)"),
        (("numpy>=1000",), "", "the package numpy>=1000"),
        (("no-such-package; python_version < '3'",), "", None),
        (("no-such-package; extra == 'gpu'",), "", None),
        (("no-such-package; extra == 'gpu'",), " [gpu]", "the package no-such-package"),
        (("this is no requirement",), "", "a requirement that can be read"),
        (("s2m3[agent]", "numpy>=1"), "", None),
    ],
)
def test_a_class_is_offered_if_all_that_its_package_requires_is_there(
    on_path: Path, requires: tuple[str, ...], extra: str, missing: str | None
) -> None:
    install(on_path, "acme-echo", {"echo": f"acme_echo:load{extra}"}, MODULE, requires)
    assert can_load(spec("echo")) == (missing is None)
    assert ("echo" in offered(NO_CHECKPOINTS, with_torch=True)[1]) == (missing is None)
    if missing is not None:
        with pytest.raises(ModuleFailedError) as failed:
            load(spec("echo"))
        assert f"module own needs {missing}" in failed.value.detail


def test_a_package_that_requires_torch_by_another_one_is_not_offered_without_room_for_it(on_path: Path) -> None:
    install(on_path, "acme-deep", {"deep": "acme_deep:load"}, MODULE, ("acme-layers",))
    install(on_path, "acme-layers", {}, "", ("acme-deep", "torch>=2"))
    install(on_path, "acme-echo", {"echo": "acme_echo:load"}, MODULE, ("s2m3[agent]", "numpy"))
    assert needs_torch("deep")
    assert not needs_torch("echo")
    _, classes = offered(NO_CHECKPOINTS, with_torch=False)
    assert {"echo", "deep"} & set(classes) == {"echo"}


def test_a_module_reads_the_folder_of_an_installed_package(on_path: Path) -> None:
    install(on_path, "acme-echo", {"echo": "acme_echo:folder"}, MODULE)
    (on_path / "acme_echo.py").unlink()
    (on_path / "acme_echo").mkdir()
    (on_path / "acme_echo" / "__init__.py").write_text(MODULE)
    assert "acme-echo" in offered(NO_CHECKPOINTS, with_torch=True)[0]
    made: Any = load(spec("echo", source="acme-echo"))
    assert made.made_of == on_path / "acme_echo"
    with pytest.raises(ModuleFailedError, match="own has no folder: its source is 'none'"):
        load(spec("echo"))


def test_a_module_reads_a_checkpoint_of_the_agents(on_path: Path, written: Path) -> None:
    install(on_path, "acme-echo", {"echo": "acme_echo:folder"}, MODULE)
    asked = spec("echo", source="day-or-night")
    assert not can_load(asked)
    with pytest.raises(ModuleFailedError, match="the source day-or-night: neither a checkpoint of this agent nor"):
        load(asked)
    made: Any = load(asked, CheckpointSources((written,)))
    assert made.made_of == written / "day-or-night"


def test_a_writer_and_its_definition_have_to_agree(on_path: Path) -> None:
    functions = {"echo": "acme_echo:load", "writer": "acme_echo:write"}
    install(on_path, "acme-echo", functions, MODULE)
    assert load(spec("writer", generates="code")).nbytes == 0
    with pytest.raises(ModuleFailedError, match="Echo is no module: it lacks generates, usual_tokens, cache_bytes"):
        load(spec("echo", generates="code"))
    with pytest.raises(ModuleFailedError, match="Writer generates 'code'; its definition says None"):
        load(spec("writer"))
