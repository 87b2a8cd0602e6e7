"""Module classes of other packages: the entry points `s2m3.modules` of what is installed, read from its metadata.

The code of a class is imported when the first module of the class is loaded. A message or a checkpoint names a class;
only an installed package says which code runs the class.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, entry_points

import structlog

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.registry.classes import SHIPPED
from s2m3.agents.registry.source import ModuleSource
from s2m3.agents.serving.module import GENERATOR_NAMES, MODULE_NAMES, Module
from s2m3.agents.zoo.wheels import wheel_folder
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.ids import check_id

__all__ = ["GROUP", "InstalledClass", "installed_classes"]

_log = structlog.get_logger(__name__)
GROUP = "s2m3.modules"

#: The function that an entry point names.
Load = Callable[[ModuleSpec, ModuleSource], Module]


@dataclass(frozen=True)
class InstalledClass:
    """A class of an installed package: `function(spec, source) -> Module` in the Python module `python`.

    Args:
        name: Name of the class.
        python: Name of the Python module.
        function: Name of the function in the Python module; dots lead into attributes.
        extras: Extras of the package whose requirements must be met too (`my_package.module:load [gpu]`).
        package: The package that declares the class.
    """

    name: str
    python: str
    function: str
    extras: tuple[str, ...]
    package: Distribution

    @property
    def origin(self) -> str:
        """The package's name and version."""
        return f"{self.package.name} {self.package.version}"

    @property
    def uses_torch(self) -> bool:
        """Whether the package requires torch, directly or through other packages."""
        from s2m3.agents.registry.requirements import requires  # noqa: PLC0415  # most devices declare no classes

        return requires(self.package.name, "torch", self.extras)

    @property
    def source(self) -> str | None:
        """The `source` of a module that reads the package's own folder; None for a package that is a single file."""
        name = self.python.partition(".")[0].replace("_", "-")
        return name if wheel_folder(name) else None

    def missing_package(self) -> str | None:
        """Returns a requirement of the package that is not met, or None."""
        from s2m3.agents.registry.requirements import unmet_requirement  # noqa: PLC0415  # most devices declare no classes

        missing = unmet_requirement(self.package, self.extras)
        return f"{missing} (required by {self.origin})" if missing else None

    def missing_source(self, spec: ModuleSpec, sources: CheckpointSources) -> str | None:
        """Returns the checkpoint or package folder that is not on this device, or None."""
        return ModuleSource(spec, sources).missing

    def import_code(self) -> None:
        """Imports the Python module."""
        import_module(self.python)

    def build(self, spec: ModuleSpec, sources: CheckpointSources) -> Module:
        """Calls the function and checks the returned object.

        Raises:
            ModuleFailedError: The returned object is no module.
        """
        load: Load = EntryPoint(self.name, f"{self.python}:{self.function}", GROUP).load()
        made = load(spec, ModuleSource(spec, sources))
        _check(made, spec)
        return made

    def part(self, spec: ModuleSpec, sources: CheckpointSources) -> CheckpointPart | None:
        """Returns the part of a checkpoint if the module has a prefix and its source is a checkpoint, else None."""
        source = ModuleSource(spec, sources)
        return source.part() if spec.prefix and source.is_checkpoint else None


def _check(made: object, spec: ModuleSpec) -> None:
    """Raises ModuleFailedError for an object that lacks what the runner calls."""
    wanted = (*MODULE_NAMES, *(GENERATOR_NAMES if spec.writes else ()))
    if lacking := [name for name in wanted if not hasattr(made, name)]:
        raise ModuleFailedError(f"{type(made).__name__} is no module: it lacks {', '.join(lacking)}")
    if (writes := getattr(made, "generates", None)) != spec.generates:
        raise ModuleFailedError(f"{type(made).__name__} generates {writes!r}; its definition says {spec.generates!r}")


@cache
def installed_classes() -> Mapping[str, InstalledClass]:
    """Returns the classes that installed packages declare; entry points that are refused are logged and left out."""
    declared: dict[str, list[InstalledClass]] = {}
    for point in entry_points(group=GROUP):
        try:
            found = _declared(point)
        except BadInputError as error:
            _log.error("module_class_refused", module_class=point.name, value=point.value, why=error.detail)
            continue
        declared.setdefault(found.name, []).append(found)
    for name, several in declared.items():
        if len(several) > 1:
            origins = ", ".join(sorted(one.origin for one in several))
            why = "several packages declare it: remove all but one"
            _log.error("module_class_refused", module_class=name, packages=origins, why=why)
    return {name: several[0] for name, several in sorted(declared.items()) if len(several) == 1}


def _declared(point: EntryPoint) -> InstalledClass:
    """Returns the class that an entry point declares.

    Raises:
        BadInputError: The entry point is refused; the text says why.
    """
    package = point.dist
    if package is None:
        raise BadInputError("it is of no package")
    origin = f"{package.name} {package.version}"
    if point.name in SHIPPED:
        raise BadInputError(f"{origin} declares it, and a shipped class has this name: give yours another one")
    check_id(point.name, "module class")
    match = EntryPoint.pattern.match(point.value)
    if match is None or not match["attr"]:
        raise BadInputError(f"{origin} declares {point.value!r}: what is wanted is `package.module:function`")
    return InstalledClass(point.name, match["module"], match["attr"], tuple(point.extras), package)
