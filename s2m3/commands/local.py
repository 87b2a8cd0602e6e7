"""The commands `up` and `demo`: a local cluster, kept running or taken through its paces."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from s2m3 import demo as demonstration
from s2m3 import logs
from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands import options
from s2m3.commands.tasks import add_task
from s2m3.demo import DEMO_NODES, TASKS
from s2m3.page_server import PageServer, page_is_built
from s2m3.schemas import messages as m
from s2m3.snapshot import Site

__all__ = ["demo", "up"]

_Kind = Annotated[str | None, typer.Option("--broker", help="mosquitto | embedded")]


def demo(kind: _Kind = "embedded", *, as_json: options.Json = False, verbose: options.Verbose = False) -> None:
    """Show six tasks on real inputs over three nodes, kill one, and ask again. Exit 0 only if all answers are right."""
    logs.configure(verbose=verbose, quiet=True)
    if not demonstration.run(_kind(kind) or "embedded", as_json=as_json, verbose=verbose):
        raise typer.Exit(1)


def up(
    kind: _Kind = None,
    port: Annotated[int, typer.Option(help="of the broker; 0 picks a free one")] = 1883,
    page_port: Annotated[int, typer.Option(help="of the page, where it is built; 0 picks a free one")] = 8130,
    *,
    verbose: options.Verbose = False,
) -> None:
    """Run a local cluster (broker, planner, bridge, three agents, six tasks) until Ctrl-C. `s2m3 up`."""
    logs.configure(verbose=verbose, quiet=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Cluster(
        DEMO_NODES, kind=_kind(kind), port=port, page=True, bridge=True, threads=1, verbose=verbose
    ) as cluster:
        where = cluster.settings.port
        with Site(cluster.settings) as site, _page(cluster, page_port) as page:
            for task in TASKS:
                add_task(site, task, m.TaskSpec(model=task))
            kind, port_v3 = cluster.broker.kind, cluster.broker.port_v3
            typer.echo(_HOW.format(kind=kind, port=where, port_v3=port_v3, folder=cluster.folder, page=page))
            waiting = set(TASKS)
            while not stop.wait(0.5):
                cluster.check()
                ready = {task for task in waiting if site.ready(task)}
                waiting -= ready
                if ready:
                    typer.echo(f"ready: {', '.join(sorted(ready))}" + ("" if waiting else ". All are."))


@contextmanager
def _page(cluster: Cluster, port: int) -> Iterator[str]:
    """Serves the page where it is built; yields what to tell about it."""
    door = cluster.broker.page
    if door is None or not page_is_built():
        yield "is not built: `make dashboard` builds it"
        return
    with PageServer(door.url, root=door.root, port=port, door=door) as server:
        yield f"is at {server.url}"


def _kind(name: str | None) -> BrokerKind | None:
    if name not in (None, "mosquitto", "embedded"):
        raise typer.BadParameter(f"--broker is mosquitto or embedded, not {name}")
    return None if name is None else "mosquitto" if name == "mosquitto" else "embedded"


_HOW = """\
{kind} broker on 127.0.0.1:{port} (MQTT 3.1.1: {port_v3}); logs in {folder}
the page {page}

  s2m3 status --port {port}
  s2m3 ask retrieval --image s2m3/samples/chelsea.jpg --text "a cat" --text "a rocket" --port {port}
  mosquitto_sub -p {port_v3} -t s2m3/v1/response/classification &
  mosquitto_pub -p {port_v3} -t s2m3/v1/request/classification/image -f s2m3/samples/coffee.jpg
  s2m3 bind 'cam/+/snapshot' --task classification --input image --publish 'cam/{{1}}/shows' --value --port {port}

Ctrl-C ends it. The tasks come up now."""
