"""What pyproject.toml cannot say: a wheel and a source archive hold the built page, or are not made.

`make wheel` builds the page first. S2M3_WITHOUT_PAGE=1 makes a wheel without it, for machines that never show it.
"""

import os
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import SetupError

_PAGE = Path("s2m3", "page", "index.html")


def _require_page() -> None:
    if not _PAGE.is_file() and not os.environ.get("S2M3_WITHOUT_PAGE"):
        raise SetupError(
            "the page is not built: `make wheel` builds it and then the wheel (npm; Debian: apt install npm); "
            "S2M3_WITHOUT_PAGE=1 does without"
        )


class _BuildPy(build_py):
    """Of a wheel; an editable installation reads the checkout, where the page may be built later."""

    def run(self) -> None:
        if not self.editable_mode:
            _require_page()
        super().run()


class _Sdist(sdist):
    """Of the source archive, from which wheels are made without npm. Links are followed: it holds files alone."""

    def run(self) -> None:
        _require_page()
        super().run()

    def copy_file(self, infile: str, *args: object, **options: object) -> tuple[str, bool]:
        """Copies what a link points at."""
        return super().copy_file(os.path.realpath(infile), *args, **options)


setup(cmdclass={"build_py": _BuildPy, "sdist": _Sdist})
