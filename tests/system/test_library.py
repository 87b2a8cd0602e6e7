"""The Python door as a user's own program has it: a fresh process that sets nothing up but the Client."""

import subprocess
import sys

from s2m3.cluster import Cluster
from tests.conftest import WAIT_S

_PROGRAM = """
import sys
from s2m3 import Client
with Client(port=int(sys.argv[1])) as client:
    print(client.ask("noop", left="a", right="b").value)
"""


def test_a_program_prints_what_it_prints_and_nothing_of_ours(noop_cluster: Cluster) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(noop_cluster.settings.port)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert (ran.stdout.count("\n"), ran.stderr) == (1, ""), ran.stdout
