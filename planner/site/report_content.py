"""The part of a node's report that plans and routes are made of: an equal part needs no new plan. Pure."""

from s2m3.schemas.messages import Reported

__all__ = ["content_of"]


def content_of(reported: Reported) -> tuple[object, ...]:
    """Returns the values of a report that plans and routes depend on, numbers with two digits."""
    modules = {
        module: (
            (report.state, report.runtime, report.mapped, report.fingerprint),
            (_digits(report.memory_mb), _digits(report.ms)),
        )
        for module, report in reported.modules.items()
    }
    return reported.boot, reported.epoch, _digits(reported.runtime_mb), _digits(reported.pressure_mb), modules


def _digits(value: float) -> float:
    """Returns a number rounded to two significant digits, as routes have it."""
    return float(f"{value:.2g}")
