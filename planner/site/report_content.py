"""The part of a node's report that plans and routes are made of: an equal part needs no new plan. Pure."""

from s2m3.schemas.messages import Reported

__all__ = ["content_of", "module_contents"]


def content_of(reported: Reported) -> tuple[object, ...]:
    """Returns the values of a report that plans and routes depend on, numbers with two digits."""
    numbers = _digits(reported.runtime_mb), _digits(reported.pressure_mb)
    return reported.boot, reported.epoch, *numbers, module_contents(reported)


def module_contents(reported: Reported | None) -> dict[str, tuple[object, ...]]:
    """Returns these values of each module of a report; none without a report."""
    if reported is None:
        return {}
    return {
        module: (
            reported.boot,
            (report.state, report.runtime, report.mapped, report.fingerprint),
            (_digits(report.memory_mb), _digits(report.ms)),
        )
        for module, report in reported.modules.items()
    }


def _digits(value: float) -> float:
    """Returns a number rounded to two significant digits, as routes have it."""
    return float(f"{value:.2g}")
