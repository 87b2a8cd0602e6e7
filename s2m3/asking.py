"""The command `ask`: one request, the answer first, then where it ran and how long each step took."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from s2m3 import options
from s2m3.client import Answer, Client
from schemas.plain import plain_value
from schemas.settings import BrokerSettings
from schemas.values import Value

__all__ = ["ask"]


@options.with_settings(BrokerSettings)
def ask(
    settings: BrokerSettings,
    task: Annotated[str, typer.Argument(help="name of the task")],
    *,
    image: Annotated[list[Path] | None, typer.Option("--image", help="picture file; repeat for several")] = None,
    audio: Annotated[Path | None, typer.Option("--audio", help="sound file")] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="text; repeat for several")] = None,
    deadline: Annotated[float | None, typer.Option(help="seconds to wait; default: the task's")] = None,
    as_json: options.Json = False,
) -> None:
    """Ask a task. `s2m3 ask retrieval --image cat.jpg --text "a cat" --text "a dog"`."""
    inputs: dict[str, Any] = {"text": text or None, "audio": _checked(audio)}
    inputs["image"] = [_checked(path) for path in image] if image else None
    with Client(settings=settings) as client:
        answer = client.ask(task, deadline_s=deadline, **inputs)
    typer.echo(json.dumps(_as_json(answer), ensure_ascii=False) if as_json else _as_text(answer))


def _checked(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise typer.BadParameter(f"there is no file {path}")
    return path


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "answer": plain_value(answer.value),
        "outputs": {name: plain_value(value) for name, value in answer.outputs.items()},
        "latency_ms": round(answer.latency_ms, 1),
        "route": dict(answer.route),
        "steps": {step: timing.as_dict() for step, timing in answer.steps.items()},
        "attempts": answer.attempts,
        "request": answer.request.hex(),
    }


def _as_text(answer: Answer) -> str:
    lines = [_shown(answer.value)]
    lines += [f"  {name}: {_shown(value)}" for name, value in list(answer.outputs.items())[1:]]
    again = f", {answer.attempts} attempts" if answer.attempts > 1 else ""
    lines.append(f"\n{answer.latency_ms:.0f} ms{again}")
    for step, node in answer.route.items():
        timing = answer.steps.get(step)
        took = f"{timing.run_ms:.1f} ms, queued {timing.queued_ms:.1f} ms" if timing else "?"
        lines.append(f"  {step:<10} {node:<12} {took}")
    return "\n".join(lines)


def _shown(value: Value) -> str:
    match value:
        case str():
            return value
        case float():
            return f"{value:.4f}"
        case [{"score": _, **_rest}, *_]:
            return ", ".join(f"{next(v for k, v in row.items() if k != 'score')} {row['score']:.3f}" for row in value)
        case _:
            return json.dumps(plain_value(value), ensure_ascii=False)
