"""What a node's report says that plans and routes are made of: a report that says the same makes no plan. Pure."""

from s2m3.schemas.messages import Reported

__all__ = ["said"]


def said(reported: Reported) -> tuple[object, ...]:
    """Returns what a report says that plans and routes are made of."""
    modules = {
        module: (report.state, report.runtime, report.fingerprint, _digits(report.memory_mb), _digits(report.ms))
        for module, report in reported.modules.items()
    }
    return reported.boot, reported.epoch, _digits(reported.runtime_mb), _digits(reported.pressure_mb), modules


def _digits(value: float) -> float:
    """Returns a number with two digits, as routes have it."""
    return float(f"{value:.2g}")
