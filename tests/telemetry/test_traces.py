"""One request is one trace across agents, whoever asks; without anybody who traces, a trace context is passed on."""

from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from s2m3.agents.service import Agent
from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.planner.service import Planner
from s2m3.planner.site.placer import placer
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.settings import AgentSettings, BrokerSettings, PlannerSettings
from s2m3.snapshot import Site
from tests.broker.test_link import reached
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller, reply_to

NAMES = {"request noop", "step left", "step right", "step head"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    """The SDK's own, set up once: OpenTelemetry allows one provider for a process."""
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    trace.set_tracer_provider(provider)
    return made


@pytest.fixture
def site_settings(settings: BrokerSettings) -> Iterator[BrokerSettings]:
    """A planner and two agents in this process, so that one exporter sees them all; noop's modules on both."""
    port, root = settings.port, settings.root
    planner = Planner(PlannerSettings(port=port, root=root), shipped_catalogue(), placer=placer(0.1))
    agents = [Agent(AgentSettings(port=port, root=root, node=node, memory_mb=5000.0)) for node in ("a", "b")]
    planner.start()
    for agent in agents:
        agent.start()
    with Site(settings) as site:
        add_task(site, "noop", TaskSpec(model="noop", max_replicas=2))
        both = {"a", "b"}
        assert site.wait(lambda s: s.ready("noop") and s.nodes.ready == both and _on_both(s), WAIT_S)
    yield settings
    for agent in agents:
        agent.stop()
    planner.stop()


def _on_both(site: Site) -> bool:
    return all(len(step.replicas) == 2 for step in site.routes["noop"].steps.values())


def spans_of(exporter: InMemorySpanExporter, request: bytes) -> dict[str, ReadableSpan]:
    found = (s for s in exporter.get_finished_spans() if (s.attributes or {}).get("s2m3.request") == request.hex())
    return {span.name: span for span in found}


def test_one_request_is_one_trace_across_agents(exporter: InMemorySpanExporter, site_settings: BrokerSettings) -> None:
    with Client(settings=site_settings) as client, trace.get_tracer("test").start_as_current_span("doorbell") as root:
        replies = [client.submit("noop", left=i, right=i) for i in range(20)]
        answers = [reply.result(WAIT_S) for reply in replies]
    crossing = next(answer for answer in answers if len(set(answer.route.values())) == 2)
    assert reached(lambda: set(spans_of(exporter, crossing.request)) == NAMES)  # a step may end after its answer came
    spans = spans_of(exporter, crossing.request)
    assert {span.context.trace_id for span in spans.values() if span.context} == {root.get_span_context().trace_id}
    request = spans["request noop"]
    assert request.context is not None
    for step, node in crossing.route.items():
        span = spans[f"step {step}"]
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert (span.attributes or {})["s2m3.node"] == node
        assert (span.attributes or {})["s2m3.module"] == f"noop-{step}"
        assert (request.start_time or 0) <= (span.end_time or 0) <= (request.end_time or 0) + 1e9


def test_a_failed_request_is_seen_as_such(exporter: InMemorySpanExporter, site_settings: BrokerSettings) -> None:
    exporter.clear()
    with Client(settings=site_settings) as client, pytest.raises(BadInputError):
        client.ask("noop", left=1)
    assert reached(lambda: len(exporter.get_finished_spans()) > 0)
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert (span.attributes or {})["s2m3.code"] == "bad_input"


def test_a_plain_callers_trace_goes_on_through_the_gateway(
    exporter: InMemorySpanExporter, site_settings: BrokerSettings
) -> None:
    exporter.clear()
    properties = reply_to("test/reply", b"1")
    properties.UserProperty = ("traceparent", PARENT)
    with PlainCaller(site_settings.port, paho.MQTTv5, ("test/reply",)) as caller:
        caller.send(f"{site_settings.root}/request/noop", b'{"inputs": {"left": 1, "right": 2}}', properties)
        assert caller.answer()["answer"] == [1, 2]
    assert reached(lambda: {span.name for span in exporter.get_finished_spans()} == NAMES)
    spans = exporter.get_finished_spans()
    assert {span.context.trace_id for span in spans if span.context} == {int(PARENT.split("-")[1], 16)}
