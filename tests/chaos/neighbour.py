"""A requester in a process of its own, which is not held up by the hundreds of connections of a test's process.

`python -m tests.chaos.neighbour SETTINGS COUNT` asks the task `ours` one request after another, and prints for each the
seconds until its answer and the longest time, milliseconds, that one of its steps waited in a queue.
"""

import sys
import time

from s2m3.client import Client
from s2m3.schemas.settings import BrokerSettings
from tests.chaos import WAIT_S


def main(settings: str, count: str) -> None:
    with Client(settings=BrokerSettings.model_validate_json(settings)) as client:
        assert client.ask("ours", left=1, right=2).value == [1, 2]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for _ in range(int(count)):
            began = time.monotonic()
            answer = client.ask("ours", left=3, right=4, deadline_s=WAIT_S)
            assert answer.value == [3, 4]
            took = time.monotonic() - began
            sys.stdout.write(f"{took:.3f} {max(timing.queued_ms for timing in answer.steps.values()):.0f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
