"""Peak memory of an agent without torch and its supervisor: before any weight, with `retrieval`, with a part of CLIP.

Each agent is two processes on a real broker, with `--runtime onnx`; peaks are the kernel's high-water marks of resident
memory (VmHWM), and those of both processes are summed: pages that they share count twice. They start without what an
editable install adds to each Python process (1.3 MB), in an environment that has the packages of this one. The limits
are 80 MB before any weight, 260 MB serving `retrieval` (pictures, texts, classes, ranking), and with the picture
encoder or the text encoder of a CLIP of ViT-B/16 size (random weights) 1.5 times the part's bytes + 80 MB.

Needs torch, to export. Prints a table, writes bench/results/light_memory.json, and exits 1 if a limit is exceeded.
Run: python bench/light_memory.py [--dtype fp16]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from split_memory import MAKE, PICTURE, peak_mb
from tables import Table, measured_on, quiet_libraries

from s2m3 import logs
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.parts.exporting import exported_digest
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.dtypes import read_dtype
from s2m3.snapshot import Site

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "light_memory.json"
_READY_S, _BUDGET_MB = 120.0, 3000.0
_RETRIEVAL = ("efficientnet-lite0", "imagenet-linear", "minilm")
TEXTS = ["a cat looking at you", "a cup of coffee on a table", "a rocket taking off"]


@dataclass(frozen=True, slots=True)
class Peak:
    """One agent's peak memory, 10^6 bytes."""

    what: str
    supervisor_mb: float
    agent_mb: float
    limit_mb: float

    @property
    def sum_mb(self) -> float:
        """Both processes' peaks."""
        return self.supervisor_mb + self.agent_mb


def peak_of(what: str, cluster: Cluster, limit_mb: float) -> Peak:
    """Returns the peak memory of the agent `light` so far."""
    supervisor = cluster.processes["light"].pid
    (agent,) = psutil.Process(supervisor).children()
    return Peak(what, peak_mb(supervisor), peak_mb(agent.pid), limit_mb)


def exported(specs: list[ModuleSpec], folders: tuple[Path, ...], into: Path) -> dict[str, float]:
    """Exports modules into a folder, each in a process of its own; returns the megabytes of each, by its id."""
    cache, found = PartCache(into, 1 << 40), {}
    for spec in specs:
        digest = exported_digest(spec, CheckpointSources(folders, runtimes=(TORCH,)), cache)
        opened = cache.open(digest)
        if opened is None:
            raise SystemExit(f"the export of {spec.id} is gone")
        found[spec.id] = opened.manifest.nbytes / 1e6
        opened.close()
    return found


def retrieval(exports: Path) -> list[Peak]:
    """Returns the peaks before any weight, and after requests of retrieval."""
    with light(exports) as cluster, Site(cluster.settings) as site:
        if not site.wait(lambda s: "light" in s.profiles, _READY_S):
            raise SystemExit(cluster.log("light")[-1500:])
        found = [peak_of("before any weight", cluster, 80.0)]
        add_task(site, "retrieval", m.TaskSpec(model="retrieval", deadline_s=30))
        if not site.wait(lambda s: s.ready("retrieval"), _READY_S):
            raise SystemExit(cluster.log("light")[-1500:])
        with Client(settings=cluster.settings) as client:
            for number in range(20):
                client.ask("retrieval", image=PICTURE, text=[f"{text}, number {number}" for text in TEXTS])
        return [*found, peak_of("serving retrieval", cluster, 260.0)]


def part(spec: ModuleSpec, exports: Path, part_mb: float) -> Peak:
    """Returns the peak of an agent that holds one part and has answered requests."""
    output = next(name for name in ("embedding", "features") if name in spec.outputs)
    steps = {"part": m.RouteStep(
        module=spec.id, inputs={name: f"input.{name}" for name in spec.inputs}, outputs=[output],
        replicas=[m.Replica(node="light", ms=1.0)],
    )}  # fmt: skip
    route = m.RouteDoc(
        epoch=1, revision=1, model="part", inputs=spec.inputs, answer=[output], deadline_s=120, steps=steps
    )
    with light(exports, planner=False) as cluster, Site(cluster.settings) as site:
        site.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=[spec]).encode(), node="light")
        site.publish(topics.ROUTE, route.encode(), task="part")
        if not site.wait(lambda s: _states(s) == {"ready"}, _READY_S):
            raise SystemExit(cluster.log("light")[-1500:])
        inputs = {"image": PICTURE} if "image" in spec.inputs else {"text": TEXTS}
        with Client(settings=cluster.settings) as client:
            for _ in range(5):
                client.ask("part", deadline_s=120, **inputs)
        return peak_of(f"{spec.prefix} of ViT-B/16, {part_mb:.0f} MB", cluster, 1.5 * part_mb + 80.0)


def _states(site: Site) -> set[str]:
    return {one.state for one in site.reported["light"].modules.values()} if "light" in site.reported else set()


def device_python(folder: Path) -> str:
    """Makes an environment with this one's packages but not its .pth files, which a device does not have."""
    venv.create(folder, with_pip=False)
    for site_packages in folder.glob("lib/python*/site-packages"):
        path = [str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))]
        (site_packages / "packages.pth").write_text("\n".join(path), encoding="utf-8")
    return str(folder / "bin" / "python")


def light(exports: Path, *, planner: bool = True) -> Cluster:
    """Returns a site of one agent that uses ONNX Runtime alone."""
    cluster = Cluster({"light": _BUDGET_MB}, planner=planner, threads=1, runtime=ONNX)
    cluster.python = device_python(exports.parent / "device")
    cluster.environment["S2M3_EXPORTS"] = str(exports)
    return cluster


def main() -> None:
    """Exports, measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", type=read_dtype, default="float32", help="of CLIP's weights [fp32]")
    given = parser.parse_args()
    logs.configure(verbose=False, quiet=True)
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="s2m3-light-") as name:
        folder, exports = Path(name), Path(name) / "exports"
        subprocess.run([sys.executable, "-c", MAKE, name], check=True, stderr=subprocess.DEVNULL)
        definition = definition_of(read_checkpoint(folder / "b16"), "b16")
        parts = [
            spec.model_copy(update={"dtype": given.dtype})
            for spec in definition.modules
            if spec.prefix in ("vision", "text")
        ]
        specs = shipped_catalogue().modules
        exported([specs[one] for one in _RETRIEVAL], (), exports)
        sizes = exported(parts, (folder,), exports)
        peaks = [*retrieval(exports), *(part(spec, exports, sizes[spec.id]) for spec in parts)]
    columns = ["peak, 10^6 bytes", "supervisor", "agent", "both", "limit"]
    rows = [[one.what, one.supervisor_mb, one.agent_mb, one.sum_mb, one.limit_mb] for one in peaks]
    print(Table("light_memory", columns, rows).markdown())
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    result = {"peaks": [asdict(one) for one in peaks], "measured": measured_on()}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if missed := [one.what for one in peaks if one.sum_mb > one.limit_mb]:
        raise SystemExit(f"over the limit: {', '.join(missed)}")


if __name__ == "__main__":
    main()
