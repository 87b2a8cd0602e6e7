"""Peak memory of an agent with one part of a CLIP of ViT-B/16 size (random weights), against the whole model.

Each agent is a process with a real broker; it loads its parts and answers one request. The peak is the kernel's
high-water mark of resident memory (VmHWM). The floor is the same agent with the same part of a tiny checkpoint:
interpreter and imports with negligible weights. For comparison, one process loads the whole model by `from_pretrained`.

The limit is peak <= floor + 1.25 x the part's bytes + CONSTANT_MB. Prints a table, writes
bench/results/split_memory.json, and exits 1 if an agent exceeds the limit.
Run: python bench/split_memory.py
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from tables import measured_on

from s2m3 import logs
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import Definition
from s2m3.snapshot import Site

PICTURE = Path(__file__).parents[1] / "s2m3" / "samples" / "chelsea.jpg"
RESULTS = Path(__file__).parent / "results" / "split_memory.json"
#: Factor on the part's bytes, and the allowance for one request (activations, message buffers).
_FACTOR, CONSTANT_MB = 1.25, 50.0
_READY_S = 300.0
#: node -> (checkpoint, the parts that the node loads)
HELD = {
    "tiny-vision": ("tiny", ("vision",)),
    "tiny-text": ("tiny", ("text",)),
    "tiny-whole": ("tiny", ("vision", "text", "head")),
    "vision": ("b16", ("vision",)),
    "text": ("b16", ("text",)),
    "whole": ("b16", ("vision", "text", "head")),
}

MAKE = """
import sys, torch, transformers as t
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers
t.logging.set_verbosity_error(); t.logging.disable_progress_bar()
small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
sizes = {"b16": ({"patch_size": 16}, {}, 512), "tiny": ({**small, "patch_size": 56}, {**small, "vocab_size": 100}, 16)}
for name, (vision, text, out) in sizes.items():
    folder = Path(sys.argv[1]) / name
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = t.CLIPConfig(vision_config=vision, text_config={**text, **ids}, projection_dim=out)
    t.CLIPModel(config).save_pretrained(folder)
    words = {word: number for number, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", "a", "cat", "cup"])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    t.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=77, **marks).save_pretrained(folder)
    t.CLIPImageProcessorPil().save_pretrained(folder)
"""
_WHOLE = """
import sys, torch, transformers as t
torch.set_num_threads(1)
network = t.CLIPModel.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    network(input_ids=torch.ones(2, 3, dtype=torch.long), pixel_values=torch.zeros(1, 3, 224, 224))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def _peak_mb(supervisor: int) -> float:
    """Returns the peak memory of an agent, 10^6 bytes; the agent is the child of its supervisor."""
    (agent,) = psutil.Process(supervisor).children()
    return peak_mb(agent.pid)


def peak_mb(pid: int) -> float:
    """Returns the peak of a process's resident memory, 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def _definition(folder: Path, checkpoint: str) -> Definition:
    return definition_of(read_checkpoint(folder / checkpoint), checkpoint)


def _route(definition: Definition, nodes: dict[str, str]) -> m.RouteDoc:
    """Returns a route document with each step on the node of its part, part -> node."""
    model = definition.model
    part_of = {spec.id: spec.prefix for spec in definition.modules}
    steps = {
        name: m.RouteStep(
            module=step.module,
            inputs=step.inputs,
            outputs=list(model.wanted_outputs(name)),
            replicas=[m.Replica(node=nodes[part_of[step.module]], ms=1.0)],
        )
        for name, step in model.steps.items()
    }
    return m.RouteDoc(
        epoch=1, revision=1, model=model.id, inputs=model.inputs, answer=model.answer, deadline_s=120, steps=steps
    )


def _tasks(definitions: dict[str, Definition]) -> dict[str, m.RouteDoc]:
    """Returns task -> route: each checkpoint split over nodes, and whole on one node."""
    apart = {"b16": {"vision": "vision", "text": "text", "head": "whole"}}
    apart["tiny"] = {"vision": "tiny-vision", "text": "tiny-text", "head": "tiny-whole"}
    routes = {f"{name}-apart": _route(definitions[name], nodes) for name, nodes in apart.items()}
    for name, node in (("b16", "whole"), ("tiny", "tiny-whole")):
        routes[f"{name}-whole"] = _route(definitions[name], dict.fromkeys(("vision", "text", "head"), node))
    return routes


def _ready(site: Site) -> bool:
    states = {node: {r.state for r in reported.modules.values()} for node, reported in site.reported.items()}
    return all(states.get(node) == {"ready"} for node in HELD)


def peaks(folder: Path) -> dict[str, tuple[float, float]]:
    """Returns node -> peak memory, 10^6 bytes, (after loading, after one answered request)."""
    definitions = {name: _definition(folder, name) for name in ("tiny", "b16")}
    nodes = dict.fromkeys(HELD, 3000.0)
    with Cluster(nodes, planner=False, threads=1, checkpoints=dict.fromkeys(HELD, folder)) as cluster:
        with Site(cluster.settings) as site:
            for node, (name, parts) in HELD.items():
                modules = [spec for spec in definitions[name].modules if spec.prefix in parts]
                site.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=modules).encode(), node=node)
            routes = _tasks(definitions)
            for task, document in routes.items():
                site.publish(topics.ROUTE, document.encode(), task=task)
            if not site.wait(_ready, _READY_S):
                raise SystemExit("\n".join(cluster.log(node)[-1500:] for node in HELD))
        loaded = {node: _peak_mb(cluster.processes[node].pid) for node in HELD}
        with Client(settings=cluster.settings) as client:
            for task in routes:
                client.ask(task, image=PICTURE, text=["a cat", "a cup"], deadline_s=120)
        return {node: (loaded[node], _peak_mb(cluster.processes[node].pid)) for node in HELD}


def rows(folder: Path) -> list[dict[str, Any]]:
    """Returns a row for each agent that holds a part of the large checkpoint."""
    measured = peaks(folder)
    sizes = {spec.prefix: spec.memory_mb for spec in _definition(folder, "b16").modules}
    found = []
    for node, (name, parts) in HELD.items():
        if name == "b16":
            part_mb = sum(sizes[part] for part in parts)
            (floor, _), (loaded, asked) = measured[f"tiny-{node}"], measured[node]
            bar = floor + _FACTOR * part_mb + CONSTANT_MB
            row = {"agent": node, "part_mb": part_mb, "floor_mb": floor, "loaded_mb": loaded, "asked_mb": asked}
            found.append({**row, "times": (asked - floor) / part_mb, "bar_mb": bar, "kept": max(loaded, asked) <= bar})
    return found


def main() -> None:
    """Makes the checkpoints, measures, prints and writes the table."""
    logs.configure(verbose=False, quiet=True)
    with tempfile.TemporaryDirectory(prefix="s2m3-bench-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", MAKE, name], check=True, stderr=subprocess.DEVNULL)
        table = rows(folder)
        command = [sys.executable, "-c", _WHOLE, str(folder / "b16")]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"}
        )
    peer = int(done.stdout.split()[-1]) * 1024 / 1e6
    print("10^6 bytes   weights   floor  loaded   asked     bar  (asked - floor) / weights")
    for row in table:
        figures = " ".join(f"{row[key]:7.0f}" for key in ("part_mb", "floor_mb", "loaded_mb", "asked_mb", "bar_mb"))
        print(f"{row['agent']:<12} {figures}  {row['times']:.2f}{'' if row['kept'] else '  MISSED'}")
    print(f"transformers' whole model in one process, one request: {peer:.0f}; the bar's constant: {CONSTANT_MB:.0f}")
    for row in table[:2]:
        print(
            f"an agent with {row['agent']} alone peaks at {row['asked_mb'] / table[-1]['asked_mb']:.2f} of the whole's"
        )
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps({"agents": table, "transformers_mb": peer, "measured": measured_on()}, indent=1) + "\n",
        encoding="utf-8",
    )
    if not all(row["kept"] for row in table):
        sys.exit(1)


if __name__ == "__main__":
    main()
