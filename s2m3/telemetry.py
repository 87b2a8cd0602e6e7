"""Lets an operator look into a service: metrics over HTTP where a port is set, traces where an OTLP endpoint is."""

import os

import structlog

from s2m3.broker import metrics
from s2m3.schemas import extras
from s2m3.schemas.settings import ServiceSettings

__all__ = ["start"]

_log = structlog.get_logger(__name__)
#: OpenTelemetry's own variables: the exporter reads the rest of them itself.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def start(settings: ServiceSettings, service: str, instance: str) -> None:
    """Starts what the settings and the environment ask for.

    Args:
        settings: Of the service.
        service: Its name in traces, e.g. `s2m3-agent`.
        instance: Which one it is, e.g. the node.

    Raises:
        S2M3Error: The metrics' port is taken.
    """
    if settings.metrics_port is not None:
        port = metrics.serve(settings.metrics_host, settings.metrics_port)
        _log.info("metrics_served", url=f"http://{settings.metrics_host}:{port}/metrics")
    if any(os.environ.get(name) for name in _ENDPOINTS):
        _export_traces(service, instance)


def _export_traces(service: str, instance: str) -> None:
    try:
        from opentelemetry import trace  # noqa: PLC0415  # an extra, and 0.3 s that only who traces pays
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
