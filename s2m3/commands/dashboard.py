"""The command `dashboard`: serves the page that shows the site, for a broker with a websocket listener."""

import signal
import threading
from typing import Annotated

import typer

from s2m3 import logs
from s2m3.commands import options
from s2m3.page_server import PageServer
from s2m3.schemas.settings import BrokerSettings

__all__ = ["dashboard"]


def dashboard(
    broker: Annotated[
        str, typer.Option(help="the broker's websocket listener, as the browser reaches it")
    ] = "ws://127.0.0.1:9001/",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="port of the page; 0 picks a free one")] = 8130,
    bind: Annotated[
        str, typer.Option(help="address to serve on; 0.0.0.0 lets phones on your network in")
    ] = "127.0.0.1",
    root: Annotated[str | None, typer.Option(help="first levels of every topic [S2M3_ROOT; s2m3/v1]")] = None,
    *,
    verbose: options.Verbose = False,
) -> None:
    """Serve the page: what runs where, live, and a form to try a task. `s2m3 dashboard --broker ws://hub:9001/`."""
    logs.configure(verbose=verbose, quiet=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with PageServer(broker, root=BrokerSettings.load(root=root).root, port=port, bind=bind) as page:
        typer.echo(f"the page is at {page.url} and reads {broker}; Ctrl-C ends it")
        stop.wait()
