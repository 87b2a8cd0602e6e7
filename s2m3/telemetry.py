"""Starts the telemetry of a service: Prometheus metrics if a port is set, traces if an OTLP endpoint is set."""

import os

import structlog

from s2m3.broker import metrics
from s2m3.schemas import extras
from s2m3.schemas.settings import ServiceSettings

__all__ = ["start"]

_log = structlog.get_logger(__name__)
#: Variables of OpenTelemetry; the exporter reads these and its other variables itself.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def start(settings: ServiceSettings, service: str, instance: str) -> None:
    """Starts the telemetry that settings and environment ask for.

    Args:
        settings: The service's settings.
        service: The service's name in traces, e.g. `s2m3-agent`.
        instance: The instance's name, e.g. the node.

    Raises:
        BadInputError: The metrics' port is in use.
    """
    if settings.metrics_port is not None:
        port = metrics.serve(settings.metrics_host, settings.metrics_port)
        _log.info("metrics_served", url=f"http://{settings.metrics_host}:{port}/metrics")
    if any(os.environ.get(name) for name in _ENDPOINTS):
        _export_traces(service, instance)


def _export_traces(service: str, instance: str) -> None:
    try:
        from opentelemetry import trace  # noqa: PLC0415  # optional dependency, and 0.3 s of import time
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        _log.warning("traces_not_exported", missing=error.name, install=extras.install_command(["traces"]))
        return
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.instance.id": instance}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _log.info("traces_exported", service=service, instance=instance)
