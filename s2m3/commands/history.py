"""The commands about the history: the amount that the bridge keeps, and its deletion."""

import json
import threading
from pathlib import Path
from typing import Annotated

import typer

from s2m3.broker.mqtt.documents import listen
from s2m3.commands import options
from s2m3.commands.orders import order
from s2m3.history.store import HistoryStore
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.history import HistoryState
from s2m3.schemas.settings import BridgeSettings, BrokerSettings
from s2m3.snapshot import Site

__all__ = ["app", "clear", "show"]

app = typer.Typer(help="The history: answers and pictures that the bridge keeps for the page.", no_args_is_help=True)
_ANSWER_S = 5.0


@app.command("show")
@options.with_settings(BrokerSettings)
def show(settings: BrokerSettings, *, as_json: options.Json = False) -> None:
    """Say how much the bridge keeps, and where. `s2m3 history show`."""
    with Site(settings) as site:
        found: list[HistoryState] = []
        heard = threading.Event()

        def hear(_: str, state: HistoryState | None) -> None:
            if state is not None:
                found.append(state)
                heard.set()

        listen(site.link, topics.HISTORY_STATE, hear)
        if not heard.wait(_ANSWER_S):
            raise S2M3Error("no bridge says that it keeps a history; see `s2m3 status`")
    state = found[-1]
    days = f"{state.limit_s / 86_400:g} days" if state.limit_s >= 86_400 else f"{state.limit_s / 60:g} minutes"  # noqa: PLR2004
    words = f"{state.answers} answers, {state.mb:g} MB, on {state.kept}; at most {state.limit_mb:g} MB and {days}"
    typer.echo(json.dumps(state.model_dump()) if as_json else words.replace("on memory", "in memory"))


@app.command("clear")
@options.with_settings(BrokerSettings)
def clear(
    settings: BrokerSettings,
    *,
    file: Annotated[
        Path | None, typer.Option(help="file of the history, where no bridge runs that has it open")
    ] = None,
) -> None:
    """Delete everything that the bridge keeps; the file holds nothing of it afterwards. `s2m3 history clear`."""
    if file is not None:
        if not file.is_file():
            raise BadInputError(f"there is no file {file}")
        limits = BridgeSettings()
        with HistoryStore(file, int(limits.history_mb * 1e6), limits.history_days * 86_400, clears=True) as store:
            deleted = store.count()
            store.clear()
    else:
        with Site(settings) as site:
            deleted = order(site, "clear-history", None, "bridge").data.get("deleted", 0)
    typer.echo(f"deleted: {deleted} answers, with their pictures")
