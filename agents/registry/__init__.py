"""Which module classes there are (shipped ones, those of installed packages), and modules built by the class's name.

The code of a class, and with it torch or transformers, is imported when the first module of that class is loaded.
"""

from s2m3.agents.registry.entry_points import installed_classes
from s2m3.agents.registry.loading import (
    can_load,
    checkpoint_classes,
    identify,
    import_code,
    load,
    needs_torch,
    offered,
    origin_of,
    runtime_of,
)

__all__ = [
    "can_load",
    "checkpoint_classes",
    "identify",
    "import_code",
    "installed_classes",
    "load",
    "needs_torch",
    "offered",
    "origin_of",
    "runtime_of",
]
