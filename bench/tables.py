"""Tables of benchmarks as Markdown and CSV, and the machine and versions that a result was measured with."""

import csv
import io
import logging
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Table", "measured_on", "quiet_libraries"]

_PACKAGES = ("s2m3", "numpy", "torch", "transformers", "highspy", "paho-mqtt", "iotcore", "matplotlib")


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        name: The stem of its CSV file.
        columns: Names with units. The first is the row's.
        rows: Values; floats have four significant digits in Markdown and six in CSV; None is a dash.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def markdown(self) -> str:
        """Returns the table in Markdown; all columns but the first are right-aligned."""
        lines = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1), *self.rows]
        return "\n".join("| " + " | ".join(map(_shown, line)) + " |" for line in lines) + "\n"

    def csv(self) -> str:
        """Returns the table as CSV."""
        out = io.StringIO()
        rows = [[f"{_rounded(value):.6g}" if isinstance(value, float) else value for value in row] for row in self.rows]
        csv.writer(out, lineterminator="\n").writerows([self.columns, *rows])
        return out.getvalue()

    def column(self, name: str) -> list[Any]:
        """Returns the values of a column."""
        at = list(self.columns).index(name)
        return [row[at] for row in self.rows]


def _rounded(value: float) -> float:
    """Returns the value, or 0 for a difference that is zero but for the last bits of its terms."""
    return 0.0 if abs(value) < 1e-9 else value  # noqa: PLR2004


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{_rounded(value):.4g}"  # noqa: PLR2004


def measured_on(seeds: Iterable[int] = ()) -> dict[str, Any]:
    """Returns what a result's JSON says of itself: command, date, machine, versions, seeds."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    script = os.path.relpath(sys.argv[0])
    return {
        "command": " ".join(["python", script, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
        },
        "python": platform.python_version(),
        "versions": found,
        "seeds": list(seeds),
    }


def quiet_libraries() -> None:
    """Silences what imported libraries log below errors: torchao and torch warn of parts that no benchmark uses."""
    logging.disable(logging.WARNING)


def _cpu() -> str:
    """Returns the processor's name where the system tells."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
