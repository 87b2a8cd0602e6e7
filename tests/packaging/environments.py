"""Fresh virtual environments that see some of the packages of the one that the tests run in, and a wheel of ours."""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["ROOT", "Done", "Environment", "make_environment"]

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Environment:
    """One virtual environment."""

    folder: Path

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (found,) = (self.folder / "lib").glob("python3.*/site-packages")
        return found

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def run(self, *words: str, cwd: Path, **variables: str) -> Done:
        """Runs a program of it, as after `activate`."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        program = str(self.folder / "bin" / words[0])
        return subprocess.run(
            [program, *words[1:]],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**_neutral(), "PATH": path, "VIRTUAL_ENV": str(self.folder), **variables},
        )

    def install(self, *words: str) -> None:
        """Installs with the pip of the tests' own environment: this one may have none."""
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            str(self.python),
            "install",
            "-q",
        ]
        done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False, env=_neutral())
        assert done.returncode == 0, done.stderr


def _neutral() -> dict[str, str]:
    """The variables, but for those that choose packages, settings or builds."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "S2M3_", "TORCH_"))}


def make_environment(folder: Path, *names: str, everything: bool = False) -> Environment:
    """Makes one without pip.

    Args:
        folder: Where.
        names: Distributions of the tests' environment that it sees, with all that they require.
        everything: It sees all of them.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    made = Environment(folder)
    if everything:  # a folder named in a .pth file is searched, but its own .pth files, our editable one, are not read
        (made.packages / "shared.pth").write_text(f"{SITE}\n")
    for found in _required(names):
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (made.packages / top).exists():
                (made.packages / top).symlink_to(Path(str(found.locate_file(top))))
    return made


def _required(names: Iterable[str]) -> Iterator[Distribution]:
    """The distributions of these names and all that they require without extras, each once."""
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system or another Python
            continue
        yield found
        lines = [line for line in found.requires or [] if "extra ==" not in line]
        waiting += [re.split(r"[\s;<>=!~\[(]", line, maxsplit=1)[0] for line in lines]
