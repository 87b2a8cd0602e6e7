"""Which torch is installed: none with CUDA where no NVIDIA device is, and that is known before anything is fetched."""

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from s2m3 import torch_build
from s2m3.schemas.errors import BadInputError
from s2m3.torch_build import Machine, choices, cuda_packages
from tests.packaging.conftest import base_requirements
from tests.packaging.environments import ROOT, Done, Environment, make_environment

MINI_PC = Machine("Linux", "x86_64", nvidia=False)
PI = Machine("Linux", "aarch64", nvidia=False)
GAMING_PC = Machine("Linux", "x86_64", nvidia=True)
MAC = Machine("Darwin", "arm64", nvidia=False)
#: The environment's pip is taken as it is: a newer one would be fetched from an index.
RUN = "from s2m3 import torch_build as t; t._PIP = (0,); t.main()"


def says(machine: Machine, build: str | None = None, index: str | None = None) -> list[str]:
    return [choice.says for choice in choices(machine, build, index)]


@pytest.mark.parametrize("machine", [MINI_PC, PI])
def test_without_a_device_each_way_is_for_the_cpu_and_pip_is_asked_first(machine: Machine) -> None:
    found = list(choices(machine, None, None))
    assert all(choice.says.startswith("for the CPU") for choice in found)
    assert all(choice.checked for choice in found if choice.tool == "pip")
    assert [choice.words for choice in found if choice.tool == "uv"] == [("--torch-backend", "cpu")]
    assert found[0].tested


def test_with_a_device_the_usual_build_is_taken_unless_the_cpu_is_asked_for() -> None:
    assert says(GAMING_PC) == ["for the NVIDIA device, with CUDA"]
    assert says(GAMING_PC, build="cpu") == says(MINI_PC)
    assert says(MINI_PC, build="cuda") == says(GAMING_PC)


def test_the_release_that_was_tested_has_no_cuda_on_aarch64_so_a_device_gets_the_newest() -> None:
    (choice,) = choices(Machine("Linux", "aarch64", nvidia=True), None, None)
    assert not choice.tested


def test_an_index_of_ones_own_is_the_only_one_asked() -> None:
    (choice,) = choices(MINI_PC, None, "file:///wheels")
    assert choice.words == ("--index-url", "file:///wheels")


def test_no_system_but_linux_has_cuda_in_the_usual_build() -> None:
    (choice,) = choices(MAC, None, None)
    assert (choice.tool, choice.words) == ("pip", ())


def test_a_build_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadInputError, match="TORCH_BUILD is cpu or cuda, not 'rocm'"):
        list(choices(MINI_PC, "rocm", None))


@pytest.mark.parametrize(
    ("machine", "system", "release"),
    [("aarch64", "Linux", "2.10.0"), ("x86_64", "Linux", "2.13.0"), ("arm64", "Darwin", "2.13.0")],
)
def test_the_constraints_name_one_release_for_each_kind_of_machine(machine: str, system: str, release: str) -> None:
    lines = [Requirement(line) for line in torch_build.tested_releases()]
    here = {"platform_machine": machine, "platform_system": system}
    fit = [line for line in lines if line.marker is None or line.marker.evaluate(here)]
    assert [str(line.specifier) for line in fit] == [f"=={release}"]
    assert torch_build.tested_releases() == [
        line for line in (ROOT / "deploy" / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    ]


def test_packages_of_cuda_are_told_from_others() -> None:
    names = ["torch", "nvidia-cublas", "nvidia_nccl_cu13", "cuda-toolkit", "triton", "sympy", "tritonclient"]
    report = {"install": [{"metadata": {"name": name}} for name in names]}
    assert cuda_packages(report) == ["cuda-toolkit", "nvidia-cublas", "nvidia-nccl-cu13", "triton"]


# ---- with real pip, on small wheels of the same names ------------------------------------------------------------


def release() -> str:
    """The one that was tested on this kind of machine."""
    (line,) = (r for r in map(Requirement, torch_build.tested_releases()) if r.marker is None or r.marker.evaluate())
    return str(line.specifier).removeprefix("==")


def make_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    info = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    content = {
        f"{name}/__init__.py": "",
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in content.items()]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    """What the usual index has for x86-64."""
    folder = tmp_path / "usual"
    folder.mkdir()
    make_wheel(folder, "torch", release(), "nvidia-cublas")
    make_wheel(folder, "torch", "99.0", "nvidia-cublas", "triton")
    make_wheel(folder, "nvidia_cublas", "13.0")
    make_wheel(folder, "triton", "3.0")
    return folder


@pytest.fixture(scope="module")
def kept(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = make_environment(tmp_path_factory.mktemp("torchless") / "venv", "pip", *base_requirements())
    made.install("--no-deps", "--ignore-installed", str(wheel))
    return made


@pytest.fixture
def environment(kept: Environment) -> Environment:
    """One without torch."""
    for name in ("torch", "nvidia_cublas", "triton"):
        for left in (*kept.packages.glob(name), *kept.packages.glob(f"{name}-*.dist-info")):
            shutil.rmtree(left)
    return kept


def build(environment: Environment, wheels: Path, **variables: str) -> Done:
    """Runs it where pip finds these wheels and nothing else, on a machine that is taken to have no device."""
    alone = {"PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1"}
    alone |= {"PATH": f"{environment.python.parent}:/usr/bin:/bin", "TORCH_BUILD": "cpu"}
    return environment.run("python", "-c", RUN, cwd=wheels, **{**alone, **variables})


def installed(environment: Environment) -> set[str]:
    return {path.name.split("-")[0] for path in environment.packages.glob("*.dist-info")} & {
        "torch",
        "nvidia_cublas",
        "triton",
    }


def test_gigabytes_of_cuda_are_refused_before_they_are_fetched(environment: Environment, usual: Path) -> None:
    done = build(environment, usual)
    assert done.returncode == 1
    assert "s2m3: not_installed: no torch for the CPU: pip would fetch CUDA (nvidia-cublas, triton)" in done.stderr
    assert "Set TORCH_INDEX to the CPU index" in done.stderr
    assert installed(environment) == set()


def test_a_build_for_the_cpu_is_taken_where_pip_finds_one(environment: Environment, usual: Path) -> None:
    make_wheel(usual, "torch", f"{release()}+cpu")
    done = build(environment, usual)
    assert done.returncode == 0, done.stderr
    assert "s2m3: installing torch for the CPU, in the release that was tested" in done.stderr
    assert f"s2m3: torch {release()}+cpu is installed" in done.stderr
    assert installed(environment) == {"torch"}
    again = build(environment, usual)
    assert (again.returncode, f"torch {release()}+cpu is there already" in again.stderr) == (0, True)


def test_a_newer_release_without_cuda_will_do(environment: Environment, usual: Path) -> None:
    make_wheel(usual, "torch", "99.0+cpu")
    done = build(environment, usual)
    assert done.returncode == 0, done.stderr
    assert "s2m3: torch 99.0+cpu is installed" in done.stderr


def test_cuda_is_taken_where_it_is_asked_for(environment: Environment, usual: Path) -> None:
    done = build(environment, usual, TORCH_BUILD="cuda")
    assert done.returncode == 0, done.stderr
    assert installed(environment) >= {"torch", "nvidia_cublas"}


def test_an_index_with_builds_for_the_cpu_is_believed(environment: Environment, usual: Path, tmp_path: Path) -> None:
    page = tmp_path / "index" / "torch"
    page.mkdir(parents=True)
    make_wheel(page, "torch", "2.99+cpu")
    page.joinpath("index.html").write_text(
        '<a href="torch-2.99+cpu-py3-none-any.whl">torch-2.99+cpu-py3-none-any.whl</a>'
    )
    index = page.parent.as_uri()
    done = build(environment, usual, TORCH_INDEX=index, PIP_NO_INDEX="0", PIP_FIND_LINKS="")
    assert done.returncode == 0, done.stderr
    assert "s2m3: torch 2.99+cpu is installed" in done.stderr
