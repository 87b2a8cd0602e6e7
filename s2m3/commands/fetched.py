"""Texts of `status` and `task add` about parts that are fetched from other nodes: progress and sender."""

from collections.abc import Collection

from s2m3.schemas.parts import PartProgress
from s2m3.snapshot import Site

__all__ = ["fetched_text", "fetches_of", "refused_texts"]


def fetched_text(progress: PartProgress) -> str:
    """Returns the progress of a part as text: `fetching 120 of 346 MB from laptop`."""
    if not progress.of and progress.nodes:
        return f"{', '.join(progress.nodes)} makes its part ready"
    if not progress.of:
        return "looking for a node that has its part"
    senders = ", ".join(progress.nodes) or "nobody at the moment"
    return f"fetching {progress.bytes / 1e6:.0f} of {progress.of / 1e6:.0f} MB from {senders}"


def _fetches(site: Site, *states: str) -> list[tuple[str, str, PartProgress]]:
    """Returns node, module and progress of each part that came from other nodes, of modules in some states."""
    present = [(node, site.reported[node]) for node in sorted(site.nodes.present) if node in site.reported]
    return [
        (node, module, report.fetched)
        for node, reported in present
        for module, report in sorted(reported.modules.items())
        if report.state in states and report.fetched is not None
    ]


def fetches_of(site: Site, modules: Collection[str]) -> list[str]:
    """Returns a text for each of some modules whose part is fetched now."""
    coming = _fetches(site, "loading")
    return [f"{module} on {node}: {fetched_text(progress)}" for node, module, progress in coming if module in modules]


def refused_texts(site: Site) -> list[str]:
    """Returns a text for each sender whose pieces are refused, because it sent wrong ones."""
    return [
        f"{node} takes nothing more of {module} from {sender}: {why}"
        for node, module, progress in _fetches(site, "loading", "ready")
        for sender, why in sorted(progress.refused.items())
    ]
