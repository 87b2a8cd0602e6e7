"""`make mutation`: changes the pure modules, one expression at a time, and counts what the fast tests notice (mutmut).

Of 18,000 mutants it draws a tenth (`--share`): 40 minutes on two cores, seven of them until it begins; all take hours.
Prints the share of mutants killed per module, and for all with the margin (95 %) of the draw; writes
bench/results/mutation.json, and fails below the least share.
What is mutated, and by which tests, is in pyproject.toml ([tool.mutmut]).
Mutants that no test can tell apart are listed with their reasons in bench/mutation_equivalents.toml.
"""

import argparse
import fnmatch
import json
import math
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import get_mutant_name

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "mutation.json"
EQUIVALENTS = ROOT / "bench" / "mutation_equivalents.toml"
#: A mutant that never ends is noticed as well as one that fails.
KILLED = {"killed", "timeout", "segfault"}
#: Mutants are drawn by a hash of their names, so that a larger share contains the smaller one.
DRAWS = 10_000


def drawn(patterns: Sequence[str], share: float) -> list[str]:
    """Returns the names of the mutants that match a pattern, or the given share of them."""
    names: list[str] = []
    for path in walk_mutatable_files():
        module = get_mutant_name(path, "")
        if not any(fnmatch.fnmatch(module, pattern) or pattern.startswith(module) for pattern in patterns):
            continue
        made = mutate_file_contents(str(path), path.read_text("utf-8")).mutant_names
        names += [get_mutant_name(path, name) for name in made]
    matching = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    return [name for name in matching if zlib.crc32(name.encode()) % DRAWS < share * DRAWS]


def run(names: Sequence[str], jobs: int) -> None:
    """Runs the tests against these mutants, or against all that have no result yet."""
    subprocess.run([sys.executable, "-m", "mutmut", "run", "--max-children", str(jobs), *names], cwd=ROOT, check=True)


def results(names: Iterable[str]) -> dict[str, str]:
    """Returns mutant -> status of those that have one (of the given ones alone, if any are given)."""
    wanted = set(names)
    found: dict[str, str] = {}
    for path in walk_mutatable_files():
        meta = ROOT / "mutants" / f"{path}.meta"
        if not meta.exists():
            continue
        for name, code in json.loads(meta.read_text("utf-8"))["exit_code_by_key"].items():
            if code is not None and (not wanted or name in wanted):
                found[name] = status_by_exit_code[code]
    return found


def changed_lines(name: str) -> tuple[str, str]:
    """Returns what a mutant takes away and what it puts there, lines joined."""
    lines = get_diff_for_mutant(name).splitlines()[2:]
    taken, put = ([line[1:].strip() for line in lines if line.startswith(sign)] for sign in "-+")
    return " ".join(taken), " ".join(put)


def equivalent(names: Iterable[str]) -> dict[str, str]:
    """Returns mutant -> reason of those that are listed as equivalent."""
    listed = tomllib.loads(EQUIVALENTS.read_text("utf-8"))["mutant"]
    found: dict[str, str] = {}
    for name in names:
        put = changed_lines(name)[1]
        for entry in listed:
            if fnmatch.fnmatch(name, entry["of"]) and re.search(entry["becomes"], put):
                found[name] = entry["why"]
    return found


def module_of(name: str) -> str:
    """Returns the module of a mutant."""
    return name.rpartition(".")[0]


def main() -> None:
    """Runs, prints, writes and judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of mutants or modules, * stands for anything")
    parser.add_argument("--share", type=float, default=0.1, help="the part of the mutants to run, drawn by name")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--least", type=float, default=0.9, help="the share of mutants to be killed")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was ended")
    parser.add_argument("--show", action="store_true", help="print what survived, as diffs")
    options = parser.parse_args()
    began = time.monotonic()
    everything = options.patterns == ["*"] and options.share >= 1
    if everything and not options.resume:
        shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    names = [] if everything else drawn(options.patterns, options.share)
    known = results(names) if options.resume else {}
    left = [name for name in names if name not in known]
    if left or everything:
        run(left, options.jobs)
    status = results(names)
    survivors = sorted(name for name, how in status.items() if how not in KILLED)
    excluded = equivalent(survivors)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, how in status.items():
        counts[module_of(name)]["excluded" if name in excluded else "killed" if how in KILLED else how] += 1
    for name in survivors:
        if options.show and name not in excluded:
            print(f"{name}: {status[name]}\n{get_diff_for_mutant(name)}")
    total = sum(counts.values(), Counter[str]())
    for module, count in sorted([*counts.items(), ("all", total)]):
        print(f"{module:50} {_share(count):7.1%}  {dict(count)}")
    print(f"of {total.total()} mutants drawn; of all, {_share(total):.1%} ± {_margin(total, options.share):.1%}")
    RESULTS.parent.mkdir(exist_ok=True)
    document = {
        "seconds": round(time.monotonic() - began),
        "share": options.share,
        "killed": _share(total),
        "modules": {module: {"share": _share(count), **count} for module, count in counts.items()},
        "excluded": excluded,
        "survived": [name for name in survivors if name not in excluded],
    }
    RESULTS.write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
    if _share(total) < options.least:
        sys.exit(f"{_share(total):.1%} of the mutants were killed; at least {options.least:.0%} are to be")


def _share(count: Counter[str]) -> float:
    judged = sum(count.values()) - count["excluded"]
    return count["killed"] / judged if judged else 1.0


def _margin(count: Counter[str], share: float) -> float:
    """Returns how far the share of all may lie from the share of those drawn, in 95 of 100 draws."""
    judged = max(count.total() - count["excluded"], 1)
    return 1.96 * math.sqrt(max(0.0, 1 - share) * _share(count) * (1 - _share(count)) / judged)


if __name__ == "__main__":
    config()
    main()
