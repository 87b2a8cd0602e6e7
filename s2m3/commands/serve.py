"""`s2m3 serve`: HTTP servers with Ollama's and OpenAI's API, and Wyoming, for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from s2m3 import telemetry
from s2m3.commands import options
from s2m3.schemas import extras
from s2m3.schemas.settings import DoorSettings

__all__ = ["serve"]


@options.with_settings(
    DoorSettings,
    quiet=False,
    bind=Annotated[
        str | None, typer.Option(help="address to listen on; others than loopback need a token [127.0.0.1]")
    ],
    http_port=Annotated[int | None, typer.Option(help="port of Ollama's and OpenAI's API; 0: any [11434]")],
    token_file=Annotated[
        Path | None,
        typer.Option(help="file of the token that callers send as `Authorization: Bearer …` [or S2M3_TOKEN]"),
    ],
    allow_hosts=Annotated[
        str | None, typer.Option(help="further host names by which callers reach it, separated by commas")
    ],
    allow_origins=Annotated[str | None, typer.Option(help="web pages that may call it: https://chat.example, …")],
    max_body_mb=Annotated[float | None, typer.Option(help="most megabytes of a request [48]")],
    max_connections=Annotated[int | None, typer.Option(help="most connections at once [128]")],
    max_requests=Annotated[int | None, typer.Option(help="most requests at once [32]")],
    partial_s=Annotated[
        float | None,
        typer.Option(help="seconds of sound from one partial transcript to the next; 0: only at its end [1]"),
    ],
    wyoming_bind=Annotated[
        str | None, typer.Option(help="address of the Wyoming door, which asks for no token [127.0.0.1]")
    ],
    wyoming_port=Annotated[int | None, typer.Option(help="port of the Wyoming door; 0: any [10300]")],
    wyoming_languages=Annotated[
        str | None, typer.Option(help="languages of tasks: 'speech=en,de say=en' [the model's]")
    ],
    wyoming_announce=Annotated[
        bool | None,
        typer.Option(
            "--wyoming-announce/--no-wyoming-announce", help="announce the Wyoming door on the network (mDNS) [yes]"
        ),
    ],
    metrics_port=options.MetricsPort,
)
def serve(
    settings: DoorSettings,
    *,
    ollama: Annotated[bool, typer.Option("--ollama", help="Ollama's API only, unless others are named too")] = False,
    openai: Annotated[bool, typer.Option("--openai", help="OpenAI's API only, unless others are named too")] = False,
    wyoming: Annotated[bool, typer.Option("--wyoming", help="Wyoming only, unless others are named too")] = False,
) -> None:
    """Serve tasks as models, in Ollama's and OpenAI's words, on loopback. `s2m3 serve --host hub --http-port 11434`."""
    extras.require("serve", "the doors")
    if wyoming:
        extras.require("wyoming", "the Wyoming door")
    from s2m3.doors.service import Doors, run  # noqa: PLC0415  # a device that only asks has not all that it imports

    telemetry.start(settings, "s2m3-serve", "doors")
    unnamed = not (ollama or openai or wyoming)
    run(settings, Doors(ollama=ollama or unnamed, openai=openai or unnamed, wyoming=wyoming))
