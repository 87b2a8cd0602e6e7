"""`s2m3 agent`: the options of an agent. It imports nothing of the other services, as small devices lack memory."""

from pathlib import Path
from typing import Annotated

import typer

from s2m3 import telemetry
from s2m3.commands import options
from s2m3.schemas import extras
from s2m3.schemas.settings import AgentSettings

__all__ = ["agent"]


@options.with_settings(
    AgentSettings,
    quiet=False,
    node=Annotated[str | None, typer.Option(help="this device's name on the bus; default: its host name")],
    memory_mb=Annotated[
        float | None, typer.Option(help="memory budget of the process, or of the accelerator; default: by what is free")
    ],
    device=Annotated[str | None, typer.Option(help="where modules compute: cpu, cuda:N, mps, xpu:N, auto [cpu]")],
    host_memory_mb=Annotated[
        float | None, typer.Option(help="with an accelerator: memory budget of the process on the host")
    ],
    threads=Annotated[int | None, typer.Option(help="compute threads; default: the cores over the agents here")],
    dtype=Annotated[
        str | None, typer.Option(help="dtype of weights, where a definition names none: fp32, bf16, fp16, int8 [fp32]")
    ],
    checkpoints=Annotated[list[Path] | None, typer.Option(help="folder of checkpoints; repeat for several")],
    architectures=options.Architectures,
    parts=Annotated[Path | None, typer.Option(help="folder to keep the parts of checkpoints in that other nodes send")],
    parts_mb=Annotated[
        float | None,
        typer.Option(help="most megabytes in --parts [half of the free disk]; 0: no part is fetched or sent"),
    ],
    download=Annotated[bool | None, typer.Option(help="fetch checkpoints from the model hub [no]")],
    runtime=Annotated[str | None, typer.Option(help="run networks with onnx or torch alone [the faster one]")],
    exports=Annotated[Path | None, typer.Option(help="folder of exports that `s2m3 weights --light` made")],
    queue=Annotated[int | None, typer.Option(help="items that may wait per module; more are refused as `busy` [64]")],
    gateway=Annotated[
        bool | None,
        typer.Option(
            "--gateway/--no-gateway",
            "--front/--no-front",
            help="whether to take plain requests of tasks; not behind a bridge between brokers [yes]",
        ),
    ],
    sleep_command=Annotated[
        str | None, typer.Option(help="command that puts this machine to sleep when told or idle: 'systemctl suspend'")
    ],
    hang_s=Annotated[float | None, typer.Option(help="least seconds after which a batch counts as hung [10]")],
    metrics_port=options.MetricsPort,
)
def agent(settings: AgentSettings, command: typer.Context) -> None:
    """Run an agent: this device serves modules. `s2m3 agent --host hub --node pi5 --memory-mb 1500`."""
    try:
        from s2m3.commands.agent_process import run_agent  # noqa: PLC0415  # a device that only asks has none of what it imports
    except ModuleNotFoundError:
        extras.require("agent", "an agent")
        raise
    telemetry.start(settings, "s2m3-agent", settings.node)
    run_agent(settings, command.obj)
