"""The requirements of an installed package, read from metadata alone: nothing is imported."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

__all__ = ["requires", "unmet_requirement"]


def unmet_requirement(package: Distribution, extras: Sequence[str] = ()) -> str | None:
    """Returns the first of a package's requirements that is not met here, or None.

    Args:
        package: The installed package.
        extras: Names of extras whose requirements count too.
    """
    try:
        for requirement in _requirements(package, extras):
            try:
                version = distribution(requirement.name).version
            except PackageNotFoundError:
                return f"the package {requirement.name}{requirement.specifier}"
            if not requirement.specifier.contains(version, prereleases=True):
                return f"the package {requirement.name}{requirement.specifier} ({version} is installed)"
    except InvalidRequirement as error:
        return f"a requirement that can be read: {error}"
    return None


@cache
def requires(name: str, wanted: str, extras: tuple[str, ...] = ()) -> bool:
    """Returns whether a package requires another one, directly or through other packages.

    Args:
        name: Name of the package.
        wanted: Canonical name of the other package.
        extras: Names of extras whose requirements count too.
    """
    open_, seen = [(canonicalize_name(name), extras)], set[tuple[str, tuple[str, ...]]]()
    while open_:
        package, chosen = open_.pop()
        if package == wanted:
            return True
        if (package, chosen) in seen:
            continue
        seen.add((package, chosen))
        try:
            needed = list(_requirements(distribution(package), chosen))
        except (PackageNotFoundError, InvalidRequirement):
            continue
        open_ += [(canonicalize_name(one.name), tuple(sorted(one.extras))) for one in needed]
    return False


def _requirements(package: Distribution, extras: Sequence[str]) -> Iterator[Requirement]:
    """Yields the requirements that count on this system, with those of the extras.

    A requirement of s2m3 itself is passed over: this release runs, perhaps from a checkout without metadata, and the
    extra `agent` of s2m3 does not mean that a class of the package runs torch.
    """
    for text in package.requires or []:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == "s2m3":
            continue
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement
