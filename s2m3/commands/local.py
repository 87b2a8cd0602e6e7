"""The commands `up` and `demo`: run a local cluster, or demonstrate one with a node that is killed."""

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from s2m3 import demo as demonstration
from s2m3 import logs
from s2m3.broker.servers.launch import default_kind, free_port, port_is_free
from s2m3.cluster import Cluster, require_installed
from s2m3.commands import options
from s2m3.commands.tasks import add_task
from s2m3.demo import HOUSE_NODES, HOUSEHOLD, TASKS, sample
from s2m3.page_server import HOW_TO_BUILD, PageServer, page_is_built
from s2m3.schemas import extras
from s2m3.schemas import messages as m
from s2m3.schemas.errors import BadInputError
from s2m3.snapshot import Site

__all__ = ["demo", "up"]

_Kind = Annotated[str | None, typer.Option("--broker", help="mosquitto | embedded [the one that is installed]")]
_PORT, _PAGE_PORT = 1883, 8130


def demo(
    kind: _Kind = None,
    *,
    light: Annotated[bool, typer.Option("--light", help="six tasks over two agents without torch")] = False,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Show nine tasks on real inputs over three nodes, kill one, and ask again. Exit 0 only if all answers are right.

    `s2m3 demo`, or on your Mosquitto's program `s2m3 demo --broker mosquitto`, or without torch `s2m3 demo --light`.
    """
    logs.configure(verbose=verbose, quiet=True)
    chosen = options.broker_kind(kind, "--broker") or demonstration.default_broker()
    if not demonstration.run(chosen, as_json=as_json, verbose=verbose, light=light):
        raise typer.Exit(1)


def up(
    kind: _Kind = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="port of the broker; 0 picks a free one [1883, or a free one where that is taken]"
        ),
    ] = None,
    page_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="port of the page; 0 picks a free one [8130, or a free one where that is taken]"
        ),
    ] = None,
    *,
    verbose: options.Verbose = False,
) -> None:
    """Run a local cluster (broker, planner, bridge, three agents, nine tasks) until Ctrl-C. `s2m3 up`."""
    logs.configure(verbose=verbose, quiet=True)
    chosen = options.broker_kind(kind, "--broker") or default_kind()
    require_installed("a cluster", ["agent", "bridge"], chosen)
    broker_port = _port(port, _PORT, "--port", "the broker")
    port_of_page = _port(page_port, _PAGE_PORT, "--page-port", "the page") if page_is_built() else 0
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with (
        Cluster(
            HOUSE_NODES, kind=chosen, port=broker_port, page=True, bridge=True, threads=1, verbose=verbose
        ) as cluster,
        Site(cluster.settings) as site,
        _page(cluster, port_of_page) as page,
    ):
        for task in TASKS + HOUSEHOLD:
            add_task(site, task, m.TaskSpec(model=task))
        typer.echo(_how(cluster, page))
        waiting = {*TASKS, *HOUSEHOLD}
        while not stop.wait(0.5):
            cluster.check()
            ready = {task for task in waiting if site.answers(task)}
            waiting -= ready
            if ready:
                typer.echo(f"ready: {', '.join(sorted(ready))}" + ("" if waiting else ". All are."))


def _port(given: int | None, usual: int, flag: str, who: str) -> int:
    """Returns the port to listen on: the given one, the usual one, or a free one if the usual one is taken.

    Raises:
        BadInputError: The given port is taken.
    """
    if given is not None:
        if given and not port_is_free(given):
            raise BadInputError(f"{flag} {given}: something listens there already; {flag} 0 picks a free one")
        return given
    if port_is_free(usual):
        return usual
    chosen = free_port()
    typer.echo(f"port {usual} is taken, so {who} listens on {chosen}; {flag} chooses another", err=True)
    return chosen


@contextmanager
def _page(cluster: Cluster, port: int) -> Iterator[str]:
    """Serves the page if it is built; yields the line to print about it."""
    door = cluster.broker.page
    if door is None or not page_is_built():
        yield f"is not there: {HOW_TO_BUILD}"
        return
    with PageServer(door.url, root=door.root, port=port, door=door) as server:
        yield f"is at {server.url}"


def _how(cluster: Cluster, page: str) -> str:
    """Returns commands for the cluster that can be copied: their paths exist."""
    chelsea, visitor = (shlex.quote(str(sample(name))) for name in ("chelsea.jpg", "astronaut.jpg"))
    broker, s2m3, port = cluster.broker, extras.own_command(), cluster.broker.port
    return f"""\
{broker.kind} broker on 127.0.0.1:{port} (MQTT 3.1.1: {broker.port_v3}); logs in {cluster.folder}
the page {page}

  {s2m3} status --port {port}
  {s2m3} ask retrieval --image {chelsea} --text "a cat" --text "a rocket" --port {port}
  {s2m3} ask doorbell --image {visitor} --draw seen.jpg --port {port}
  mosquitto_sub -p {broker.port_v3} -t s2m3/v1/response/doorbell &
  mosquitto_pub -p {broker.port_v3} -t s2m3/v1/request/doorbell/image -f {chelsea}
  {s2m3} bind 'cam/+/snapshot' --task doorbell --input image --publish 'cam/{{1}}/shows' --value --port {port}

Ctrl-C ends it. The tasks come up now."""
