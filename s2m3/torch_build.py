"""Installs the build of torch that suits this machine: `python -m s2m3.torch_build`.

The default index has torch for Linux with CUDA, gigabytes of it (x86-64 always, aarch64 from 2.11 on). On a machine
without an NVIDIA device this module installs a build for the CPU, and rather nothing than CUDA. It asks pip which
packages it would install (`--dry-run`), so an index or a folder of wheels in pip's configuration counts. Two variables
change the choice:

- TORCH_BUILD: cpu or cuda; without it, the machine's devices decide.
- TORCH_INDEX: an index with CPU builds, such as the one that PyTorch's installation page names.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError, NotInstalledError, S2M3Error

__all__ = ["Choice", "Machine", "choices", "cuda_packages", "install", "main", "tested_releases", "this_machine"]

#: The first pip whose dry run reads metadata alone; an older one downloads the wheels even in a dry run.
_PIP = (23, 3)
_CUDA = re.compile(r"nvidia-|cuda-|triton$")


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that the choice of a build depends on.

    Args:
        system: The value of `platform.system()`.
        machine: The value of `platform.machine()`.
        nvidia: Whether the machine has an NVIDIA device.
    """

    system: str
    machine: str
    nvidia: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to install torch.

    Args:
        says: A description for people.
        tool: The installer.
        words: Arguments of the installer besides the requirement and the constraints.
        tested: Whether to install the tested release (constraints.txt), or any that meets the requirement.
        checked: Whether a dry run of pip decides: a build with CUDA rules the choice out.
    """

    says: str
    tool: Literal["pip", "uv"]
    words: Sequence[str] = field(default=())
    tested: bool = True
    checked: bool = True


def choices(machine: Machine, build: str | None, index: str | None) -> Iterator[Choice]:
    """Yields the ways to install torch, best first.

    Args:
        machine: The machine.
        build: `cpu` or `cuda`; None: by the machine.
        index: An index with CPU builds.

    Raises:
        BadInputError: The build is neither of them.
    """
    if build not in (None, "cpu", "cuda"):
        raise BadInputError(f"TORCH_BUILD is cpu or cuda, not {build!r}")
    if build == "cuda" or (build is None and machine.nvidia):
        yield Choice("for the NVIDIA device, with CUDA", "pip", tested=machine.machine != "aarch64", checked=False)
        return
    if machine.system != "Linux":
        yield Choice("in the usual build, which has no CUDA on this system", "pip", checked=False)
        return
    if index is not None:
        yield Choice("for the CPU, from TORCH_INDEX", "pip", ("--index-url", index), tested=False, checked=False)
        return
    yield Choice("for the CPU, in the release that was tested", "pip")
    yield Choice("for the CPU, in the newest release", "pip", tested=False)
    yield Choice("for the CPU, which uv knows where to find", "uv", ("--torch-backend", "cpu"), checked=False)


def this_machine() -> Machine:
    """Returns the facts about this machine."""
    nvidia = Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()
    return Machine(platform.system(), platform.machine(), nvidia or shutil.which("nvidia-smi") is not None)


def cuda_packages(report: Mapping[str, Any]) -> list[str]:
    """Returns the packages of CUDA in pip's installation report (its `--report`), by name."""
    names = (str(item["metadata"]["name"]).lower().replace("_", "-") for item in report["install"])
    return sorted(name for name in names if _CUDA.match(name))


def install() -> None:
    """Installs torch, and prints its build on stderr.

    Raises:
        BadInputError: TORCH_BUILD is no build.
        NotInstalledError: No build without CUDA is available here; nothing was downloaded.
        S2M3Error: The installer failed, and has printed the reason.
    """
    if (there := _installed()) is not None:
        _say(f"torch {there} is there already")
        return
    why = "none was found"
    with tempfile.TemporaryDirectory(prefix="s2m3-torch-") as tools:
        for choice in choices(this_machine(), _variable("TORCH_BUILD"), _variable("TORCH_INDEX")):
            wanted = tested_releases() if choice.tested else [_requirement()]
            if choice.checked:
                cuda = _would_bring(choice, wanted, Path(tools))
                if cuda is None:
                    continue
                if cuda:
                    why = f"pip would fetch CUDA ({', '.join(cuda[:3])}{', …' if len(cuda) > 3 else ''})"  # noqa: PLR2004
                    continue
            _say(f"installing torch {choice.says}")
            if _run(choice, wanted, Path(tools)):
                _say(f"torch {_installed()} is installed")
                return
            if not choice.checked and choice.tool == "pip":
                raise S2M3Error("pip could not install torch; above is what it said")
    raise NotInstalledError(
        f"no torch for the CPU: {why}, which no device here has a use for. "
        "Set TORCH_INDEX to the CPU index that PyTorch's installation page names, or TORCH_BUILD=cuda to take CUDA"
    )


def _would_bring(choice: Choice, wanted: Sequence[str], tools: Path) -> list[str] | None:
    """Returns the packages of CUDA that pip would install, by a dry run; None if pip finds no torch."""
    report = tools / "report.json"
    words = ["install", "--dry-run", "--quiet", "--report", str(report), *choice.words, *wanted]
    command = [sys.executable, "-m", "pip", *words]
    done = subprocess.run(command, env=_recent_pip(tools), capture_output=True, text=True, check=False)  # noqa: S603
    return cuda_packages(json.loads(report.read_text(encoding="utf-8"))) if done.returncode == 0 else None


def _run(choice: Choice, wanted: Sequence[str], tools: Path) -> bool:
    """Installs a choice; returns whether that succeeded."""
    if choice.tool == "pip":
        command = [sys.executable, "-m", "pip", "install", *choice.words, *wanted]
    else:
        uv = shutil.which("uv") or _fetched("uv", tools)
        if uv is None:
            return False
        command = [str(uv), "pip", "install", "--python", sys.executable, *choice.words, *wanted]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0  # noqa: S603


def _recent_pip(tools: Path) -> dict[str, str]:
    """Returns environment variables with which `python -m pip` is a pip whose dry run downloads no wheels."""
    try:
        recent = tuple(int(part) for part in version("pip").split(".")[:2]) >= _PIP
    except PackageNotFoundError as error:
        raise NotInstalledError(f"this environment has no pip: {extras.python_command()} -m ensurepip") from error
    if recent:
        return dict(os.environ)
    found = _fetched("pip", tools, ">={}.{}".format(*_PIP))
    if found is None:
        raise S2M3Error("a pip that can say what it would fetch is not to be had: pip install --upgrade pip")
    return {**os.environ, "PYTHONPATH": str(found.parents[1])}


def _fetched(tool: str, tools: Path, release: str = "") -> Path | None:
    """Installs a tool into a folder that is removed afterwards; returns its program, or None after a failure."""
    folder = tools / tool
    if not folder.exists():
        words = ["install", "--quiet", "--disable-pip-version-check", "--target", str(folder), f"{tool}{release}"]
        if subprocess.run([sys.executable, "-m", "pip", *words], check=False).returncode != 0:  # noqa: S603
            return None
    return folder / "bin" / tool


def _variable(name: str) -> str | None:
    """Returns an environment variable; None if it is unset or empty, as a build argument that was not given."""
    return os.environ.get(name) or None


def _installed() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def _requirement() -> str:
    """Returns the requirement on torch of the extra `agent`."""
    return next(line.split(";")[0].strip() for line in requires("s2m3") or [] if re.match(r"torch\b", line))


def tested_releases() -> list[str]:
    """Returns the tested release of torch for each kind of machine, with an environment marker."""
    lines = files("s2m3").joinpath("constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.match(r"torch==", line)]


def _say(text: str) -> None:
    sys.stderr.write(f"s2m3: {text}\n")


def main() -> None:
    """Entry point of `python -m s2m3.torch_build`; exit codes as of `s2m3`."""
    try:
        install()
    except S2M3Error as error:
        sys.stderr.write(f"s2m3: {error}\n")
        sys.exit(2 if isinstance(error, BadInputError) else 1)


if __name__ == "__main__":
    main()
