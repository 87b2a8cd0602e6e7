"""The log of a process: one logfmt line per event on stderr, with time, level, event, and fields (node, task, …)."""

import logging
import sys

import structlog

__all__ = ["configure", "quiet_by_default"]


def configure(*, verbose: bool, quiet: bool = False) -> None:
    """Configures the log of this process.

    No logger is cached: a later configuration, of a test or of a program that embeds this package, holds for all.

    Args:
        verbose: Whether to log everything, from level debug.
        quiet: Whether to log only warnings and errors, for commands whose output is their result.
    """
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def quiet_by_default() -> None:
    """Logs only warnings and errors, unless the log is configured: structlog's default prints a line per request."""
    if not structlog.is_configured():
        configure(verbose=False, quiet=True)
