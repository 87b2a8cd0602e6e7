"""Optional OpenTelemetry traces: one trace per request, one span per step; messages carry the `traceparent`.

Only the API is used here: without an SDK, no spans are made and a caller's traceparent is passed on. A program that
configures an SDK has imported the API, so it is taken from the imported modules: other processes never import it.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.wire.work import Timing, Work

__all__ = ["RequestSpan", "begin_request", "record_step"]


@dataclass(frozen=True, slots=True)
class RequestSpan:
    """A request's span, and the `traceparent` of its messages."""

    traceparent: str | None
    span: Any = None

    def end(self, *, attempts: int, route: Mapping[str, str], error: S2M3Error | None) -> None:
        """Ends the span with the request's attempts, nodes and error."""
        if self.span is None or not self.span.is_recording():
            return
        self.span.set_attributes({"s2m3.attempts": attempts, "s2m3.nodes": sorted(set(route.values()))})
        _set_error(self.span, error)
        self.span.end()


def begin_request(task: str, request: bytes, parent: str | None) -> RequestSpan:
    """Starts a request's span as a child of `parent`, a traceparent, or if that is None of the current context."""
    if (trace := _traced()) is None:
        return RequestSpan(parent)
    from opentelemetry import propagate  # noqa: PLC0415  # there, as the API is

    context = propagate.extract({"traceparent": parent}) if parent else None
    attributes = {"s2m3.task": task, "s2m3.request": request.hex()}
    span = trace.get_tracer("s2m3").start_span(
        f"request {task}", context, kind=trace.SpanKind.CLIENT, attributes=attributes
    )
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    return RequestSpan(carrier.get("traceparent", parent), span)


def record_step(work: Work, node: str, timing: Timing | None, error: S2M3Error | None) -> None:
    """Records the span of a step that has just ended, as a child of its request's span."""
    if work.traceparent is None or (trace := _traced()) is None:
        return
    from opentelemetry import propagate  # noqa: PLC0415  # there, as the API is

    duration_ms = timing.queued_ms + timing.run_ms if timing else 0.0
    ended = time.time_ns()
    span = trace.get_tracer("s2m3").start_span(
        f"step {work.step}",
        propagate.extract({"traceparent": work.traceparent}),
        kind=trace.SpanKind.CONSUMER,
        start_time=ended - int(duration_ms * 1e6),
    )
    if span.is_recording():
        span.set_attributes(_attributes(work, node, timing))
        _set_error(span, error)
        span.end(ended)


def _traced() -> Any:
    """Returns the API's `trace` if an SDK is configured, else None: the API's no-op spans only cost time."""
    trace = sys.modules.get("opentelemetry.trace")
    return None if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) else trace


def _attributes(work: Work, node: str, timing: Timing | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "s2m3.task": work.task,
        "s2m3.request": work.request.hex(),
        "s2m3.attempt": work.attempt,
        "s2m3.step": work.step,
        "s2m3.module": work.hop.module,
        "s2m3.node": node,
    }
    if timing is not None:
        attributes |= {
            "s2m3.queued_ms": timing.queued_ms,
            "s2m3.run_ms": timing.run_ms,
            "s2m3.batch": timing.batch,
        }
    return attributes


def _set_error(span: Any, error: S2M3Error | None) -> None:
    if error is not None:
        from opentelemetry import trace  # noqa: PLC0415  # there, as the API is

        span.set_attribute("s2m3.code", error.code)
        span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
