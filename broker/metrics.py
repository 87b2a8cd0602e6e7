"""The Prometheus metrics of every process, each named here once; docs/metrics.md lists them.

They are in prometheus_client's default registry, so a program that embeds a Client and exports metrics exports these.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from s2m3.schemas.errors import BadInputError

__all__ = [
    "BATCH_ITEMS",
    "CONNECTED",
    "CONNECTIONS_LOST",
    "DEVICE",
    "HOST_MEMORY_BUDGET",
    "LOAD_SECONDS",
    "MEMORY_BUDGET",
    "MEMORY_FREE",
    "MESSAGES_DROPPED",
    "MODULE_FAILURES",
    "MODULE_MEMORY",
    "NODES",
    "NODES_LOST",
    "PLAIN_PASSED",
    "PLAN_CHANGES",
    "PLAN_SECONDS",
    "QUEUE_ITEMS",
    "QUEUE_SECONDS",
    "REQUESTS",
    "REQUEST_SECONDS",
    "RETRIES",
    "RUN_SECONDS",
    "STAND_INS",
    "TASKS",
    "TASKS_ON_STAND_IN",
    "UNDER_WAY",
    "count_batch",
    "count_request",
    "serve",
]

M = TypeVar("M", Counter, Histogram)

#: From a no-op on loopback to a language model on a small board.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32)

# Clients and gateways, which send requests
REQUESTS = Counter(
    "s2m3_requests", "Requests that got their terminal answer; code is ok or the error's", ["task", "code"]
)
REQUEST_SECONDS = Histogram("s2m3_request_seconds", "From a request to its answer", ["task"], buckets=_SECONDS)
RETRIES = Counter("s2m3_request_retries", "Attempts after the first", ["task"])
STAND_INS = Counter("s2m3_stand_in_answers", "Answers of a model that is not its task's best", ["task", "rank"])
PLAIN_PASSED = Counter("s2m3_plain_passed", "Messages on request topics that ask nothing: retained or empty", ["why"])
UNDER_WAY = Gauge("s2m3_requests_under_way", "Requests without an answer yet")

# agents
RUN_SECONDS = Histogram("s2m3_module_run_seconds", "Running one batch", ["module"], buckets=_SECONDS)
QUEUE_SECONDS = Histogram(
    "s2m3_module_queue_seconds", "From an item's coming to its batch", ["module"], buckets=_SECONDS
)
BATCH_ITEMS = Histogram("s2m3_module_batch_items", "Items run together", ["module"], buckets=_ITEMS)
QUEUE_ITEMS = Gauge("s2m3_module_queue_items", "Items waiting or running", ["module"])
MODULE_FAILURES = Counter("s2m3_module_failures", "Items that failed, and loads that did", ["module", "code"])
LOAD_SECONDS = Histogram("s2m3_module_load_seconds", "Loading a module", ["module"], buckets=_SECONDS)
MODULE_MEMORY = Gauge("s2m3_module_memory_bytes", "What loading a module added to the process", ["module"])
MEMORY_BUDGET = Gauge("s2m3_memory_budget_bytes", "What the process may take of its device's memory")
MEMORY_FREE = Gauge("s2m3_memory_free_bytes", "What is left of the budget")
DEVICE = Gauge("s2m3_device_info", "1: where the agent computes, and the dtype that it prefers", ["device", "dtype"])
HOST_MEMORY_BUDGET = Gauge("s2m3_host_memory_budget_bytes", "What the process may take of the host's memory")

# the planner
NODES = Gauge("s2m3_nodes", "Nodes known: ready, draining or lost", ["state"])
NODES_LOST = Counter("s2m3_nodes_lost", "Times a node was lost", ["node"])
TASKS = Gauge("s2m3_tasks", "Tasks wanted: ready, waiting for loads, or refused", ["state"])
TASKS_ON_STAND_IN = Gauge("s2m3_tasks_on_stand_in", "Tasks that are answered by a model that is not their best")
PLAN_CHANGES = Counter("s2m3_plan_changes", "Plans sent to nodes", ["node"])
PLAN_SECONDS = Histogram("s2m3_plan_seconds", "Deciding where modules live", buckets=_SECONDS)

# all processes
CONNECTED = Gauge("s2m3_broker_connected", "1 while the broker is there", ["client"])
CONNECTIONS_LOST = Counter("s2m3_broker_connections_lost", "Connections that ended unasked", ["client"])
MESSAGES_DROPPED = Counter("s2m3_messages_dropped", "Messages over which every connection was lost", ["client"])


def count_batch(module: str, waited_s: Sequence[float], run_s: float) -> None:
    """Counts a batch: the queueing time of each item and the run time of the batch, seconds."""
    _child(RUN_SECONDS, module).observe(run_s)
    _child(BATCH_ITEMS, module).observe(len(waited_s))
    queue = _child(QUEUE_SECONDS, module)
    for seconds in waited_s:
        queue.observe(seconds)


def count_request(task: str, code: str, retries: int, seconds: float) -> None:
    """Counts a request that got its terminal answer; `code` is `ok` or the error's."""
    _child(REQUESTS, task, code).inc()
    _child(REQUEST_SECONDS, task).observe(seconds)
    if retries:
        _child(RETRIES, task).inc(retries)


@lru_cache(maxsize=1024)
def _child(metric: M, *labels: str) -> M:
    """Returns a metric's child, cached because a lookup takes as long as an update. Not for children to be removed."""
    return metric.labels(*labels)


def serve(host: str, port: int) -> int:
    """Serves the metrics over HTTP from a new thread; returns the port (0 picks a free one).

    Raises:
        BadInputError: The port is in use, or the address is not one of this machine.
    """
    try:
        server, _ = start_http_server(port, addr=host)
    except OSError as error:
        raise BadInputError(f"metrics cannot be served on {host}:{port}: {error}") from error
    return int(server.server_port)
