"""The benchmarks of README's figures in turn, and one page of what they found: build/bench.html, self-contained.

Each part says its command, the machine, the date and the seeds; a part that fails is said, and the others go on.

Run: python bench/report.py [--only bus,placement,paper] [--show]   (`make bench`)
"""

import argparse
import html
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import measured_on

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "build" / "bench.html"


@dataclass(frozen=True, slots=True)
class Part:
    """A benchmark: its title, the words after `python`, its JSON, and figures to show."""

    title: str
    words: tuple[str, ...]
    figures: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command as a person types it."""
        return " ".join(("python", *self.words))


#: In this order; `peers` needs bench/peers-requirements.txt, or skips what is not installed.
PARTS: dict[str, Part] = {
    "demo": Part("The demo: answers, memory, a node killed", ("-m", "s2m3", "demo", "--json")),
    "bus": Part("The bus: hops against bare paho", ("bench/bus.py",)),
    "placement": Part("Placement: quality, speed, scale", ("bench/placement.py",)),
    "planning": Part("The planner's own work as a site grows", ("bench/planning.py",)),
    "site": Part("The running planner on a simulated site", ("bench/site.py", "--sizes", "100x100x30,300x300x90")),
    "paper": Part(
        "The paper's evaluation",
        ("bench/paper.py",),
        tuple(f"docs/paper/{name}.svg" for name in ("latency", "split", "memory", "sensitivity", "load", "churn")),
    ),
    "split_memory": Part("Memory of one device, split", ("bench/split_memory.py",)),
    "sharing": Part("Memory of all devices, shared", ("bench/sharing.py",)),
    "generation": Part("Texts written together", ("bench/generation.py",)),
    "peers": Part("Beside what people would pick instead", ("bench/peers.py",)),
}

#: Longest time that a benchmark may take, seconds: the longest takes half an hour on two idle cores.
_MOST_S = 2 * 3600.0
#: The exit code of one that took longer, as of coreutils' timeout.
_LATE = 124

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
pre { overflow-x: auto; padding: .8rem; font-size: .8rem; }
pre { background: color-mix(in srgb, currentColor 7%, transparent); }
svg { max-width: 100%; height: auto; }
figure { display: inline-block; width: 25rem; max-width: 100%; margin: 0 1rem 1rem 0; vertical-align: top; }
.failed { color: #c33; }
small { opacity: .75; }
"""


def run(name: str, part: Part) -> dict[str, Any]:
    """Runs a benchmark; returns what it printed, its exit code, how long it took, and where and when that was."""
    began, since = time.monotonic(), time.time()
    words = [sys.executable, *part.words]
    try:
        done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, timeout=_MOST_S)
        code, printed, failed = done.returncode, done.stdout, done.stderr[-2000:] if done.returncode else b""
    except subprocess.TimeoutExpired as late:
        code, printed, failed = _LATE, late.stdout or b"", f"ended after {_MOST_S:g} s".encode()
    return {
        "command": part.command,
        "printed": printed.decode(errors="replace"),
        "failed": failed.decode(errors="replace"),
        "code": code,
        "seconds": time.monotonic() - began,
        "measured": _own_record(name, since) or measured_on(),
    }


def section(name: str, part: Part, found: dict[str, Any]) -> str:
    """Returns a part of the page."""
    measured = found["measured"]
    machine, seeds = measured["machine"], measured.get("seeds") or []
    where = f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}; {measured['date']}"
    seeded = f"; seeds {', '.join(map(str, seeds))}" if seeds else ""
    lines = [f'<h2 id="{name}">{html.escape(part.title)}</h2>', f"<p><code>{html.escape(part.command)}</code><br>"]
    lines.append(f"<small>{html.escape(where + seeded)}; {found['seconds']:.0f} s</small></p>")
    if found["code"]:
        lines.append(f'<p class="failed">ended with {found["code"]}</p><pre>{html.escape(found["failed"])}</pre>')
    for path in part.figures:
        if (ROOT / path).exists():
            drawn = (ROOT / path).read_text(encoding="utf-8")
            lines.append(f"<figure>{drawn[drawn.index('<svg') :]}</figure>")
    lines.append(f"<pre>{html.escape(found['printed'])}</pre>")
    return "\n".join(lines)


def _own_record(name: str, since: float) -> dict[str, Any] | None:
    """Returns what a benchmark's own JSON says of its machine, date and seeds; None if it is of an earlier run."""
    path = RESULTS / f"{name}.json"
    if not path.exists() or path.stat().st_mtime < since - 1:
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    record: dict[str, Any] | None = found.get("measured") if isinstance(found, dict) else None
    return record


def page(found: dict[str, dict[str, Any]]) -> str:
    """Returns the page of all parts that were run, at any time."""
    links = " · ".join(f'<a href="#{name}">{html.escape(PARTS[name].title)}</a>' for name in found)
    versions = next(iter(found.values()))["measured"]["versions"] if found else {}
    used = ", ".join(f"{package} {version}" for package, version in versions.items())
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>S2M3: benchmarks</title>'
    head += f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    sections = "\n".join(section(name, PARTS[name], result) for name, result in found.items())
    return f"{head}<h1>Benchmarks</h1><p>{links}</p><p><small>{html.escape(used)}</small></p>{sections}</body></html>\n"


def main() -> None:
    """Runs the benchmarks, writes the page after each, and exits 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}, with commas between")
    parser.add_argument("--show", action="store_true", help="run nothing: the page of the last runs")
    given = parser.parse_args()
    names = [name.strip() for name in given.only.split(",")]
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(PARTS)}")
    kept = RESULTS / "report.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    failed = []
    for name in [] if given.show else names:
        print(f"{PARTS[name].command} …", flush=True)
        found[name] = run(name, PARTS[name])
        failed += [name] if found[name]["code"] else []
        print(f"  {found[name]['seconds']:.0f} s, exit code {found[name]['code']}", flush=True)
        _write(kept, found)
    _write(kept, found)
    print(f"written to {PAGE.relative_to(ROOT)}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _write(kept: Path, found: dict[str, dict[str, Any]]) -> None:
    for path in (kept, PAGE):
        path.parent.mkdir(parents=True, exist_ok=True)
    ordered = {name: found[name] for name in PARTS if name in found}
    kept.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(ordered), encoding="utf-8")


if __name__ == "__main__":
    main()
