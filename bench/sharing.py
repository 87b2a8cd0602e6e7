"""Memory saved by sharing: four tasks over one CLIP of ViT-B/16 size with shared modules, against a copy per task.

Runs broker, planner and agents as processes on checkpoints with random weights, twice: with shared checkpoints, and
with separate names of the checkpoints for each task, as in a system without sharing. Reports the bytes of tensors from
the agents' reports, and beside them the resident memory of the processes and the runtimes' part of it. The saving is
over all tasks and devices; the saving of splitting alone on one device is printed separately and never added.
Run: python bench/sharing.py [--json FILE]
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from safetensors.torch import save_file
from tables import measured_on, quiet_libraries
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from s2m3 import logs
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import Definition, ModelSpec, ModuleSpec, StepSpec
from s2m3.snapshot import Site

_NODES = {"one": 1800.0, "two": 1800.0, "three": 1800.0}
_READY_S = 300.0
_WIDTH, _LABELS, _ANSWERS = 512, 1000, 3129
_SAMPLES = Path(__file__).parents[1] / "s2m3" / "samples"
_WANTED = 0.62

#: Task -> (the inputs that its head joins, or none for CLIP's own similarity head; number of classes).
_TASKS: dict[str, tuple[tuple[str, ...], int]] = {
    "retrieval": ((), 0),
    "encoder-vqa": (("image", "text"), _ANSWERS),
    "alignment": (("audio", "image", "text"), 2),
    "classification": (("image",), _LABELS),
}
_KINDS = {"image": "image", "text": "text", "audio": "audio"}
_PARTS = {"image": ("clip", "vision"), "text": ("clip", "text"), "audio": ("clap", "audio")}


def make_checkpoints(folder: Path) -> None:
    """Writes a CLIP ViT-B/16 and a CLAP with random weights, and a linear head for each task that has one."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    clip = transformers.CLIPConfig(vision_config={"patch_size": 16}, projection_dim=_WIDTH)
    transformers.CLIPModel(clip).save_pretrained(folder / "clip", max_shard_size="200MB")
    short = {"num_hidden_layers": 1}  # CLAP's text tower is unused: CLIP's serves
    clap = transformers.ClapConfig(text_config=short, projection_dim=_WIDTH)
    transformers.ClapModel(clap).save_pretrained(folder / "clap")
    transformers.CLIPImageProcessorPil().save_pretrained(folder / "clip")
    transformers.ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder / "clap")
    _tokenizer().save_pretrained(folder / "clip")
    for task, (ports, classes) in _TASKS.items():
        if ports:
            (folder / f"head-{task}").mkdir()
            weights = {"classifier.weight": torch.randn(classes, _WIDTH * len(ports)) * 0.02}
            save_file(
                weights | {"classifier.bias": torch.zeros(classes)}, folder / f"head-{task}" / "model.safetensors"
            )
            (folder / f"head-{task}" / "config.json").write_text('{"architectures": ["FusionClassifier"]}')


def _tokenizer() -> Any:
    """Returns a tokenizer with a vocabulary of CLIP's size and the special tokens at CLIP's ids."""
    words = {f"w{number}": number for number in range(49_406)} | {"<start>": 49_406, "<end>": 49_407}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))  # noqa: S106 - no password
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("<start>", 49_406), ("<end>", 49_407)]
    made.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=marks)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=77)


def give_copies(folder: Path) -> None:
    """Makes a copy of the checkpoints for each task, of hard links, so that the data is on disk once."""
    for task in _TASKS:
        for name in ("clip", "clap"):
            copy = folder / f"{name}-of-{task}"
            copy.mkdir()
            for path in (folder / name).iterdir():
                os.link(path, copy / path.name)


def definition(folder: Path, task: str, own: str) -> Definition:
    """Returns a task's model definition; `own` is the suffix of its checkpoints' names."""
    ports, _ = _TASKS[task]
    clip = definition_of(read_checkpoint(folder / f"clip{own}"), f"clip{own}")
    if not ports:
        return clip.model_copy(update={"model": clip.model.model_copy(update={"id": task})})
    parts = {("clip", spec.prefix): spec for spec in clip.modules} | {
        ("clap", spec.prefix): spec
        for spec in definition_of(read_checkpoint(folder / f"clap{own}"), f"clap{own}").modules
    }
    encoders = {port: parts[_PARTS[port]] for port in ports}
    head = ModuleSpec.model_validate(
        {
            "id": f"head-{task}",
            "role": "head",
            "class": "classifier-head",
            "source": f"head-{task}",
            "prefix": "head",
            "inputs": dict.fromkeys(ports, "tensor"),
            "outputs": {"label": "text", "score": "number", "ranking": "data", "logits": "tensor"},
            "memory_mb": read_checkpoint(folder / f"head-{task}").tensors["classifier.weight"].nbytes / 1e6,
        }
    )
    steps = {port: StepSpec(module=spec.id, inputs={port: f"input.{port}"}) for port, spec in encoders.items()}
    steps["answer"] = StepSpec(module=head.id, inputs={port: f"{port}.embedding" for port in ports})
    model = ModelSpec.model_validate(
        {
            "id": task,
            "description": "",
            "inputs": {port: _KINDS[port] for port in ports},
            "steps": steps,
            "answer": ["label", "score"],
        }
    )
    return Definition(model=model, modules=[*encoders.values(), head])


def _resident_mb(cluster: Cluster) -> float:
    """Returns the resident memory of all agents and their supervisors, 10^6 bytes."""
    supervisors = [psutil.Process(cluster.processes[node].pid) for node in _NODES]
    return (
        sum(
            one.memory_info().rss
            for supervisor in supervisors
            for one in (supervisor, *supervisor.children(recursive=True))
        )
        / 1e6
    )


def measure(folder: Path, *, shared: bool) -> dict[str, Any]:
    """Serves the four tasks, sends one request to each, and returns the agents' memory by module, 10^6 bytes."""
    given: dict[str, Any] = {
        "image": _SAMPLES / "chelsea.jpg",
        "audio": _SAMPLES / "play-music.flac",
        "text": "w7 w8 w9",
    }
    with (
        Cluster(_NODES, threads=1, spare=False, checkpoints=dict.fromkeys(_NODES, folder)) as cluster,
        Site(cluster.settings) as site,
        Client(settings=cluster.settings) as client,
    ):
        if not site.wait(lambda s: s.nodes.ready == _NODES.keys(), _READY_S):
            raise TimeoutError(f"not all agents came up: {site.nodes.ready}")
        for task in _TASKS:
            found = definition(folder, task, "" if shared else f"-of-{task}")
            add_task(site, task, m.TaskSpec(model=task, definition=found, deadline_s=120))
        if not site.wait(lambda s: all(s.ready(task) for task in _TASKS), _READY_S):
            raise TimeoutError(f"not all tasks are ready: { {t: d.error for t, d in site.routes.items()} }")
        for task in _TASKS:
            client.ask(task, **{name: given[name] for name in site.routes[task].inputs})
        runtimes = sum(reported.runtime_mb for reported in site.reported.values())
        reports = {
            (node, module): report.bytes / 1e6
            for node, reported in site.reported.items()
            for module, report in reported.modules.items()
        }
        return {
            "modules": {f"{module} on {node}": round(size, 2) for (node, module), size in sorted(reports.items())},
            "tensors_mb": sum(reports.values()),
            "resident_mb": _resident_mb(cluster),
            "runtimes_mb": runtimes,
        }


def main() -> None:
    """Measures both cases and prints the saving; exits 1 if it is too small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench/results/sharing.json"))
    given = parser.parse_args()
    logs.configure(verbose=False, quiet=True)
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="s2m3-sharing-") as name:
        folder = Path(name)
        make_checkpoints(folder)
        give_copies(folder)
        found = {kind: measure(folder, shared=kind == "shared") for kind in ("shared", "a copy for each task")}
    one, many = found.values()
    saved = 1 - one["tensors_mb"] / many["tensors_mb"]
    whole = {task: _module_sizes(many, task) for task in _TASKS}
    print(f"{'held by all agents':<24} {'modules':>8} {'tensors MB':>11} {'resident MB':>12} {'of it runtimes':>15}")
    for kind, row in found.items():
        figures = f"{row['tensors_mb']:>11.1f} {row['resident_mb']:>12.0f} {row['runtimes_mb']:>15.0f}"
        print(f"{kind:<24} {len(row['modules']):>8} {figures}")
    print(f"all tasks, all devices: {saved:.1%} of the tensors saved by sharing (wanted: at least {_WANTED:.0%})")
    print("one device, one task, by splitting alone (largest part against the whole; never added to the figure above):")
    for task, sizes in whole.items():
        print(f"  {task:<16} {max(sizes):>7.1f} of {sum(sizes):>7.1f} MB: {1 - max(sizes) / sum(sizes):.1%}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({**found, "saved": saved, "measured": measured_on()}, indent=1) + "\n")
    if saved < _WANTED:
        raise SystemExit(1)


def _module_sizes(row: dict[str, Any], task: str) -> list[float]:
    return [size for name, size in row["modules"].items() if f"-of-{task}-" in name or name.startswith(f"head-{task} ")]


if __name__ == "__main__":
    main()
