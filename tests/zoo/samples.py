"""The samples' bytes, and the cases of expected.toml with file names replaced by them."""

import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "s2m3" / "samples"


def sample(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def _filled(name: str, value: Any) -> Any:
    if name == "text":
        return value
    return [sample(one) for one in value] if isinstance(value, list) else sample(value)


def cases() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Returns (task, inputs, expected fields of the answer) of each case."""
    table = tomllib.loads((FOLDER / "expected.toml").read_text(encoding="utf-8"))
    return [
        (case["task"], {name: _filled(name, value) for name, value in case["inputs"].items()}, case["expect"])
        for case in table["case"]
    ]
