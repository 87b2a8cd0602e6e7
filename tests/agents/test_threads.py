"""How many threads an agent computes with, in every library; and what pictures decoded at once take together."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from s2m3.agents import memory, threads
from tests.conftest import WAIT_S

_SHOWN = """
import sys
import numpy, torch
from s2m3.agents.threads import limit_threads
limit_threads(int(sys.argv[1]))
torch.set_num_threads(int(sys.argv[1]))
import threadpoolctl, os
found = threadpoolctl.threadpool_info()
used = {pool["num_threads"] for pool in found}
print(sorted({pool["user_api"] for pool in found}), used, os.environ["RAYON_NUM_THREADS"])
"""


def test_a_number_of_threads_holds_for_openblas_openmp_and_tokenizers() -> None:
    command = [sys.executable, "-c", _SHOWN, "1"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert shown.stdout.strip() == "['blas', 'openmp'] {1} 1"


def test_without_a_setting_the_cores_are_shared_by_the_agents_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    for agents, expected in ((1, 8), (3, 2), (20, 1)):
        monkeypatch.setattr(threads, "agents_here", lambda agents=agents: agents)
        assert threads.compute_threads(None) == expected
    assert threads.compute_threads(5) == 5


def test_an_agent_and_its_supervisor_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def __init__(self, pid: int, parent: int, *words: str) -> None:
            self.info = {"pid": pid, "ppid": parent, "cmdline": list(words) or None}

    running = [
        Process(1, 0),
        Process(10, 1, "python", "-m", "s2m3", "agent", "--node", "a"),
        Process(11, 10, "python", "-m", "s2m3", "agent", "--node", "a"),
        Process(20, 1, "/usr/bin/python3", "/usr/local/bin/s2m3", "agent"),
        Process(30, 1, "python", "-m", "s2m3", "planner"),
        Process(40, 1, "ssh-agent"),
    ]
    monkeypatch.setattr(psutil, "process_iter", lambda _: running)
    assert threads.agents_here() == 2


def test_a_containers_share_of_the_processors_is_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(threads, "_CPU_MAX", limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for text, expected in (("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9000000 100000", 8)):
        limit.write_text(text)
        assert threads.usable_cores() == expected


def test_threads_that_prepare_have_half_of_what_computes_or_all_beside_an_accelerator() -> None:
    assert [threads.preparing_threads(n) for n in (1, 2, 4, 64)] == [1, 1, 2, 16]
    assert [threads.preparing_threads(n, "cuda:0") for n in (1, 4, 64)] == [1, 4, 16]


def test_pictures_decoded_at_once_have_the_room_of_one_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "decoding_room_bytes", lambda: 100)
    inside = threading.Event()

    def decode(nbytes: int | None) -> threading.Thread:
        def run() -> None:
            with memory.reserved_for_decoding(nbytes) as room:
                assert room == 100
                inside.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    with memory.reserved_for_decoding(60):
        decode(40).join(WAIT_S)  # fits beside it
        assert inside.is_set()
        inside.clear()
        waiting = [decode(41), decode(None)]
        assert not inside.wait(0.05)
    for thread in waiting:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    with memory.reserved_for_decoding(1_000) as room:  # alone, what does not fit is refused by who decodes
        assert room == 100
