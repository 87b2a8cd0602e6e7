"""The optional parts of an installation: which packages each needs, whether they are there, and what brings them.

Packages are looked up, never imported.
"""

import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from s2m3.schemas.errors import NotInstalledError

__all__ = ["EXTRAS", "hint", "install_command", "missing", "own_command", "python_command", "require"]

#: Extra of pyproject.toml -> the names under which its packages are imported.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "agent": (
        "av",
        "cachetools",
        "google.protobuf",
        "jinja2",
        "llguidance",
        "PIL",
        "pillow_heif",
        "psutil",
        "safetensors",
        "sentencepiece",
        "soundfile",
        "soxr",
        "threadpoolctl",
        "tokenizers",
        "torch",
        "transformers",
    ),
    "bridge": ("jmespath",),
    "broker": ("iotcore",),
    "diffusion": ("diffusers",),
    "draw": ("PIL", "psutil"),
    "exact": ("highspy",),
    "int8": ("torchao",),
    "export": ("onnx", "onnxruntime"),
    "light": (
        "cachetools",
        "onnxruntime",
        "PIL",
        "psutil",
        "safetensors",
        "soundfile",
        "soxr",
        "threadpoolctl",
        "tokenizers",
    ),
    "owlv2": ("scipy",),
    "plot": ("matplotlib",),
    "secure": ("cryptography",),
    "serve": ("python_multipart", "starlette", "uvicorn"),
    "traces": ("opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk"),
    "wyoming": ("wyoming", "zeroconf"),
}


def missing(extra: str) -> list[str]:
    """Returns the packages of an extra that are not installed."""
    return [package for package in EXTRAS[extra] if not _is_there(package)]


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package that it is a part of is not there
        return False


def require(extra: str, purpose: str) -> None:
    """Checks that an extra is installed.

    Args:
        extra: Which one.
        purpose: What needs it; the subject of the error's sentence, in the singular.

    Raises:
        NotInstalledError: It is not; the text says what is missing and which command brings it.
    """
    if absent := missing(extra):
        raise NotInstalledError(f"{purpose} needs {', '.join(absent)}: {install_command([extra])}")


def hint(extra: str) -> str:
    """Returns the command that brings an extra, in words that hold on another machine too (what an agent reports)."""
    return f"pip install 's2m3[{extra}]'"


def install_command(extras: Iterable[str]) -> str:
    """Returns the command line that brings extras into the environment that this process runs in.

    torch comes first where it is missing: pip alone would take a build with CUDA on most Linux machines.
    """
    wanted = sorted(extras)
    commands = [f"{_pip_command()} install 's2m3[{','.join(wanted)}]'"]
    if "agent" in wanted and not _is_there("torch"):
        commands.insert(0, f"{python_command()} -m s2m3.torch_build")
    if not _is_there("pip"):
        commands.insert(0, f"{python_command()} -m ensurepip")
    return " && ".join(commands)


def python_command() -> str:
    """Returns how this environment's Python is called from the shell that PATH describes."""
    return "python" if _is_ours(shutil.which("python")) else _from_here(Path(sys.executable).absolute())


def _pip_command() -> str:
    return "pip" if _is_ours(shutil.which("pip")) else f"{python_command()} -m pip"


def own_command() -> str:
    """Returns how this environment's `s2m3` is called from the shell that PATH describes."""
    if _is_ours(shutil.which("s2m3")):
        return "s2m3"
    beside = Path(sys.executable).absolute().with_name("s2m3")
    return _from_here(beside) if beside.exists() else f"{python_command()} -m s2m3"


def _from_here(path: Path) -> str:
    """A path below the working directory is shorter said from there."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _is_ours(found: str | None) -> bool:
    """Whether a program lies beside this environment's Python. No link is followed: each environment's are links."""
    return found is not None and Path(found).absolute().parent == Path(sys.executable).absolute().parent
