"""What the transfer of a part costs the requests of another task: their latency without and with it, in one run.

Three agents on one Mosquitto: one has a checkpoint of 350 MB, another fetches it, the third has none of it. The no-op
task has a step on each of them, and is asked 20 times a second. Prints p50 and p99 of both phases and writes JSON.
Run: python bench/parts.py [--seconds N] [--rate R] [--mb M] [--json FILE]
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from s2m3 import logs
from s2m3.client import Answer, Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import checkpoint_definition
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.snapshot import Site

if TYPE_CHECKING:
    from concurrent.futures import Future

_STEPS = {"left": "laptop", "right": "pi", "head": "hub"}
_READY_S, _WAIT_S = 60.0, 600.0
_POLL_S = 0.02
#: Width of the layers of the checkpoint, which is a ViT with as many layers as its size takes.
_WIDTH = 768
#: Standard deviation of its weights, as transformers starts them.
_STD = np.float32(0.02)
_LAYER_MB = 12 * _WIDTH * _WIDTH * 4 / 1e6


def checkpoint(folder: Path, megabytes: float) -> ModuleSpec:
    """Writes a ViT of random weights, and returns the module of its encoder."""
    layers = max(1, round(megabytes / _LAYER_MB))
    config = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": _WIDTH,
        "intermediate_size": 4 * _WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
        "id2label": {"0": "cat", "1": "dog"},
        "label2id": {"cat": 0, "dog": 1},
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, _WIDTH),
        "embeddings.position_embeddings": (1, 197, _WIDTH),
        "embeddings.patch_embeddings.projection.weight": (_WIDTH, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (_WIDTH,),
        "layernorm.weight": (_WIDTH,),
        "layernorm.bias": (_WIDTH,),
    }
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        for name in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
            shapes |= {f"{at}.{name}.weight": (_WIDTH, _WIDTH), f"{at}.{name}.bias": (_WIDTH,)}
        shapes |= {
            f"{at}.attention.output.dense.weight": (_WIDTH, _WIDTH),
            f"{at}.attention.output.dense.bias": (_WIDTH,),
        }
        shapes |= {
            f"{at}.intermediate.dense.weight": (4 * _WIDTH, _WIDTH),
            f"{at}.intermediate.dense.bias": (4 * _WIDTH,),
        }
        shapes |= {f"{at}.output.dense.weight": (_WIDTH, 4 * _WIDTH), f"{at}.output.dense.bias": (_WIDTH,)}
        shapes |= {
            f"{at}.layernorm_{side}.{key}": (_WIDTH,) for side in ("before", "after") for key in ("weight", "bias")
        }
    chance = np.random.default_rng(7)
    weights = {f"vit.{name}": _STD * chance.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    weights["classifier.weight"] = chance.standard_normal((2, _WIDTH), dtype=np.float32)
    weights["classifier.bias"] = np.zeros(2, np.float32)
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    size = {"height": 224, "width": 224}
    processor = {"image_processor_type": "ViTImageProcessor", "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    definition = checkpoint_definition(str(folder), folder.name)
    if definition is None:
        raise FileNotFoundError(folder)
    return max(definition.modules, key=lambda spec: spec.memory_mb)


class Load:
    """Asks the no-op task at a steady rate, and notes when each request was sent and what it took."""

    def __init__(self, client: Client, rate: float) -> None:
        self._client, self._rate = client, rate
        self.sent, self.lost = 0, 0
        #: (sent at, seconds)
        self.took: list[tuple[float, float]] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ends.wait(max(0.0, due - time.monotonic())):
            due += 1 / self._rate
            at = time.monotonic()
            self.sent += 1
            self._client.submit("noop", left=bytes(1000), right=bytes(1000)).add_done_callback(
                lambda reply, at=at: self._done(reply, at)  # type: ignore[misc]
            )

    def _done(self, reply: "Future[Answer]", at: float) -> None:
        if reply.exception() is None:
            self.took.append((at, time.monotonic() - at))
        else:
            self.lost += 1

    def stop(self) -> None:
        """Ends it after the last answer."""
        self._ends.set()
        self._thread.join()
        deadline = time.monotonic() + _READY_S
        while len(self.took) + self.lost < self.sent and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def figures(self, begin: float, end: float) -> dict[str, float]:
        """Returns the latency of the requests that were sent in a span of time, ms."""
        ms = sorted(1000 * seconds for at, seconds in self.took if begin <= at < end)
        cuts = statistics.quantiles(ms, n=100, method="inclusive")
        return {"requests": len(ms), "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": ms[-1]}


def place_noop(site: Site, nodes: Mapping[str, str]) -> dict[str, list[ModuleSpec]]:
    """Has nodes load the steps of the no-op task, without a planner.

    Args:
        site: The site.
        nodes: Step -> node.

    Returns:
        Node -> the modules that it holds.
    """
    catalogue = shipped_catalogue()
    model, held, steps = catalogue.models["noop"], dict[str, list[ModuleSpec]](), {}
    for name, node in nodes.items():
        spec = catalogue.modules[model.steps[name].module].model_copy(update={"id": f"noop-{name}"})
        held.setdefault(node, []).append(spec)
        outputs, replicas = list(model.wanted_outputs(name)), [m.Replica(node=node, ms=0.1)]
        steps[name] = m.RouteStep(module=spec.id, inputs=model.steps[name].inputs, outputs=outputs, replicas=replicas)
    for node, specs in held.items():
        site.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=specs).encode(), node=node)
    if not site.wait(lambda s: all(_is_ready(s, node, held[node]) for node in held), _READY_S):
        raise TimeoutError("the agents did not load the no-op modules")
    doc = m.RouteDoc(
        epoch=1, revision=1, model="noop", inputs=model.inputs, answer=model.answer, deadline_s=30.0, steps=steps
    )
    site.publish(topics.ROUTE, doc.encode(), task="noop")
    return held


def _is_ready(site: Site, node: str, specs: list[ModuleSpec]) -> bool:
    modules = site.reported[node].modules if node in site.reported else {}
    return all(spec.id in modules and modules[spec.id].state == "ready" for spec in specs)


def _when(cluster: Cluster, event: str) -> float:
    """Returns when the node that fetches has logged an event, monotonic seconds."""
    deadline = time.monotonic() + _WAIT_S
    while f"event={event}" not in (log := cluster.log("pi")):
        if "event=part_not_fetched" in log or time.monotonic() > deadline:
            raise SystemExit(f"no {event}: {log[-2000:]}")
        time.sleep(_POLL_S)
    return time.monotonic()


def measure(megabytes: float, rate: float, seconds: float) -> dict[str, Any]:
    """Returns the latencies without and with the transfer, and how long it took."""
    with tempfile.TemporaryDirectory(prefix="s2m3-") as made:
        spec = checkpoint(Path(made) / "shelf" / "vit", megabytes)
        size = (Path(made) / "shelf" / "vit" / "model.safetensors").stat().st_size / 1e6
        nodes = {"laptop": 2000.0, "pi": 2000.0, "hub": 250.0}  # of 250, `pi` would ask for an export instead
        shelf = {"laptop": Path(made) / "shelf"}
        with (
            Cluster(nodes, kind="mosquitto", threads=1, planner=False, checkpoints=shelf, verbose=True) as cluster,
            Site(cluster.settings) as site,
            Client(settings=cluster.settings) as client,
        ):
            held = place_noop(site, _STEPS)
            load = Load(client, rate)
            time.sleep(2.0)
            began = time.monotonic()
            time.sleep(seconds)
            asked = time.monotonic()
            plan = m.Plan(epoch=1, revision=2, modules=[*held["pi"], spec])
            site.publish(topics.PLAN, plan.encode(), node="pi")
            first, last = _when(cluster, "part_fetched"), _when(cluster, "part_here")
            load.stop()
            return {
                "broker": "mosquitto",
                "mb": size,
                "rate": rate,
                "hashing_s": first - asked,
                "transfer_s": last - first,
                "mb_s": size / (last - first),
                "without": load.figures(began, asked),
                "hashing": load.figures(asked, first),
                "with": load.figures(first, last),
                "sent": load.sent,
                "lost": load.sent - len(load.took),
            }


def main() -> None:
    """Measures once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the phase without the transfer")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--mb", type=float, default=350.0, help="of the part")
    parser.add_argument("--json", type=Path, default=Path("bench/results/parts.json"))
    given = parser.parse_args()
    logs.configure(verbose=False, quiet=True)
    found = measure(given.mb, given.rate, given.seconds)
    for phase in ("without", "hashing", "with"):
        p50, p99, requests = (found[phase][key] for key in ("p50_ms", "p99_ms", "requests"))
        print(f"{phase:<8} p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  ({requests} requests)")
    rise = found["with"]["p99_ms"] - found["without"]["p99_ms"]
    print(f"{found['mb']:.0f} MB in {found['transfer_s']:.1f} s; p99 rises by {rise:.1f} ms")
    print(f"{found['lost']} of {found['sent']} requests lost")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
