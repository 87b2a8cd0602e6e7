"""A million broken messages on everything that reads messages: `python -m tests.chaos.fuzz_codec --count 1000000`.

Prints the seed, so that a run can be repeated; ends with 1 and the payload at the first crash, and with a traceback of
where it hangs if one payload takes longer than ten seconds.
"""

import argparse
import faulthandler
import random
import secrets
import sys
import time
from dataclasses import dataclass, field

from tests.chaos.fuzzing import SURFACES, Surface, broken

_HANG_S = 10.0
_BLOCK = 1000


@dataclass(slots=True)
class Fuzzed:
    """What became of a run."""

    accepted: int = 0
    refused: int = 0
    slowest_ms: float = 0.0
    crashes: list[tuple[str, bytes, Exception]] = field(default_factory=list)


def fuzz(count: int, seed: int) -> Fuzzed:
    """Gives each surface its share of broken messages; one that crashes is kept, not raised."""
    rng = random.Random(seed)  # noqa: S311  # seeded: to be repeated
    found = Fuzzed()
    for n in range(count):
        if n % _BLOCK == 0:
            faulthandler.dump_traceback_later(_HANG_S, exit=True)
        surface = SURFACES[n % len(SURFACES)]
        _one(surface, broken(rng.choice(surface.valid), rng), found)
    faulthandler.cancel_dump_traceback_later()
    return found


def _one(surface: Surface, payload: bytes, found: Fuzzed) -> None:
    began = time.perf_counter()
    try:
        accepted = surface.take(payload)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
        found.crashes.append((surface.name, payload, error))
        return
    found.slowest_ms = max(found.slowest_ms, (time.perf_counter() - began) * 1000)
    if accepted:
        found.accepted += 1
    else:
        found.refused += 1


def main() -> None:
    """Runs it and prints what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    given = parser.parse_args()
    sys.stdout.write(f"{given.count} payloads on {len(SURFACES)} kinds of message, seed {given.seed}\n")
    began = time.monotonic()
    found = fuzz(given.count, given.seed)
    took = time.monotonic() - began
    sys.stdout.write(
        f"{found.refused} refused, {found.accepted} still valid, {len(found.crashes)} crashes, "
        f"slowest {found.slowest_ms:.1f} ms, {took:.0f} s\n"
    )
    for name, payload, error in found.crashes[:10]:
        sys.stdout.write(f"{name}: {type(error).__name__}: {error}\n  {payload!r}\n")
    sys.exit(1 if found.crashes else 0)


if __name__ == "__main__":
    main()
