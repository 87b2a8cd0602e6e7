"""The command `ask`: sends one request, prints the answer or saves it, then prints the nodes and times of its steps."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from s2m3.client import Answer, Client, Stream
from s2m3.commands import options
from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError, UnknownTaskError
from s2m3.schemas.near_names import no_such
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.plain import NotAFileError, plain_value
from s2m3.schemas.wire.values import Value, boxes_in, is_boxes

__all__ = ["ask"]


@options.with_settings(BrokerSettings)
def ask(
    settings: BrokerSettings,
    task: Annotated[str, typer.Argument(help="name of the task")],
    *,
    image: Annotated[list[Path] | None, typer.Option("--image", help="picture file; repeat for several")] = None,
    audio: Annotated[Path | None, typer.Option("--audio", help="sound file")] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="text; repeat for several")] = None,
    other: Annotated[
        list[str] | None, typer.Option("--input", help="a text for another input, NAME=TEXT; repeat for several")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="seconds to wait; default: the task's")] = None,
    wait: Annotated[float | None, typer.Option(help="further seconds to wait for a machine that sleeps [0]")] = None,
    max_tokens: options.MaxTokens = None,
    stop: options.StopTexts = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    timestamps: options.Timestamps = False,
    stream: Annotated[bool, typer.Option("--stream", help="print the text as it is written")] = False,
    save: Annotated[
        Path | None, typer.Option("--save", help="file to write an answer to that is a sound or a picture")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", help="file to write the picture to, with the boxes of the answer")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Ask a task. `s2m3 ask retrieval --image cat.jpg --text "a cat" --text "a dog"`."""
    if save is not None and not save.parent.is_dir():
        raise BadInputError(f"there is no folder {save.parent}")
    drawn = _Drawing(draw, image or []) if draw else None
    how = options.how_to_write(max_tokens, stop, temperature, seed, timestamps=timestamps, wait=wait)
    inputs: dict[str, Any] = {"text": text or None, "audio": _checked(audio)}
    inputs["image"] = [_checked(path) for path in image] if image else None
    inputs |= options.named_texts(other or [], "--input")
    try:
        with Client(settings=settings) as client:
            if not client.knows(task):
                raise UnknownTaskError(no_such("task", task, client.tasks()))
            if stream:
                with client.stream(task, deadline_s=deadline, options=how, **inputs) as parts:
                    _print_parts(parts, as_json=as_json)
                    answer = parts.result()
            else:
                answer = client.ask(task, deadline_s=deadline, options=how, **inputs)
    except NotAFileError as error:
        raise BadInputError(f"{error.name} is no text: --image FILE or --audio FILE sends a file") from error
    if save is not None:
        _save(answer, save)
    if drawn is not None:
        drawn.write(answer)
    if as_json:
        typer.echo(json.dumps(_as_json(answer), ensure_ascii=False))
    else:
        typer.echo(_as_text(answer, shown=stream and isinstance(answer.value, str)))


class _Drawing:
    """The option `--draw`: draws the boxes of the answer on the picture that was sent, into a file.

    Raises:
        NotInstalledError: Pillow is not installed.
        BadInputError: Not exactly one picture is sent, or the file has no suffix of a picture.
    """

    def __init__(self, path: Path, sent: list[Path]) -> None:
        extras.require("draw", "--draw")
        from s2m3.agents.media.drawing import FORMATS, draw_boxes  # noqa: PLC0415  # Pillow, where it is wanted

        if len(sent) != 1:
            raise BadInputError(f"--draw takes one picture (--image), not {len(sent)}")
        if path.suffix.lower() not in FORMATS:
            raise BadInputError(f"--draw writes {', '.join(FORMATS)}, not {path.name}")
        self._path, self._sent, self._form, self._draw = path, sent[0], FORMATS[path.suffix.lower()], draw_boxes

    def write(self, answer: Answer) -> None:
        """Writes the file.

        Raises:
            BadInputError: The answer has no boxes, or the file cannot be written.
        """
        boxes = [] if answer.value is None else boxes_in(answer.outputs)  # None: none of these
        if boxes is None:
            raise BadInputError(f"the answer has no boxes to draw, only {', '.join(answer.outputs)}")
        try:
            self._path.write_bytes(self._draw(self._sent.read_bytes(), boxes, self._form))
        except OSError as error:
            raise BadInputError(f"{self._path} cannot be written: {error}") from error


def _print_parts(parts: Stream, *, as_json: bool) -> None:
    """Prints text as it is generated; with `as_json`, one line of JSON per delta."""
    text = ""
    for part in parts:
        if as_json:
            typer.echo(json.dumps({"at": part.at, "text": part.text}, ensure_ascii=False))
        elif part.at == len(text):
            typer.echo(part.text, nl=False)
        else:  # a correction: printed text cannot be removed, so all text so far is printed again on a new line
            typer.echo(f"\n{part.after(text)}", nl=False)
        text = part.after(text)
    if text and not as_json:
        typer.echo()


def _save(answer: Answer, file: Path) -> None:
    value = next((value for value in answer.outputs.values() if isinstance(value, bytes)), None)
    if value is None:
        raise BadInputError(f"--save: the answer is no file: {_as_line(answer.value)[:100]}")
    try:
        file.write_bytes(value)
    except OSError as error:
        raise BadInputError(f"--save: {file} cannot be written: {error.strerror}") from error


def _checked(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise BadInputError(f"there is no file {path}")
    return path


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "answer": plain_value(answer.value),
        "outputs": {name: plain_value(value) for name, value in answer.outputs.items()},
        "latency_ms": round(answer.latency_ms, 1),
        "route": dict(answer.route),
        "steps": {step: timing.as_dict() for step, timing in answer.steps.items()},
        "attempts": answer.attempts,
        "model": answer.model,
        "rank": answer.rank,
        "request": answer.request.hex(),
    }


def _as_text(answer: Answer, *, shown: bool) -> str:
    lines = [] if shown else [_as_line(answer.value)]
    lines += [f"  {name}: {_as_line(value)}" for name, value in list(answer.outputs.items())[1:]]
    again = f", {answer.attempts} attempts" if answer.attempts > 1 else ""
    stand_in = f", by {answer.model}, a stand-in (rank {answer.rank})" if answer.rank else ""
    lines.append(f"\n{answer.latency_ms:.0f} ms{again}{stand_in}")
    for step, node in answer.route.items():
        timing = answer.steps.get(step)
        took = f"{timing.run_ms:.1f} ms, queued {timing.queued_ms:.1f} ms" if timing else "?"
        lines.append(f"  {step:<10} {node:<12} {took}")
    return "\n".join(lines)


def _as_box(box: dict[str, Any]) -> str:
    return f"{box['label']} {box['score']:.3f} at {', '.join(f'{corner:.0f}' for corner in box['box'])}"


def _as_line(value: Value) -> str:
    match value:
        case str():
            return value
        case float():
            return f"{value:.4f}"
        case bytes():
            return f"a file of {len(value):,} bytes (--save FILE writes it)"
        case [_, *_] if is_boxes(value):
            return "\n  ".join(_as_box(box) for box in value)
        case [{"score": _, **_rest}, *_]:
            return ", ".join(f"{next(v for k, v in row.items() if k != 'score')} {row['score']:.3f}" for row in value)
        case _:
            return json.dumps(plain_value(value), ensure_ascii=False)
