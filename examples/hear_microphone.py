"""A microphone: records some seconds (ALSA's arecord) and says the words, or what a spoken command means.

Needs `s2m3 up` beside it.

Run: python examples/hear_microphone.py --seconds 4
     python examples/hear_microphone.py --intent "turn on the light" --intent "play music" --file command.flac
"""

import argparse
import subprocess
from pathlib import Path

from s2m3 import Client


def record(seconds: float) -> bytes:
    """Returns sound from the default microphone: WAV, one channel, 16 kHz."""
    command = ["arecord", "-q", "-d", str(round(seconds)), "-f", "S16_LE", "-r", "16000", "-c", "1", "-t", "wav"]
    return subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603  # our own words


def main() -> None:
    """Records, or reads a file, and asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--file", type=Path, help="a sound in place of the microphone")
    parser.add_argument("--intent", action="append", help="what a command may mean; again for each")
    given = parser.parse_args()
    sound = given.file.read_bytes() if given.file else record(given.seconds)
    with Client() as client:
        if given.intent:
            answer = client.ask("spoken-intent", audio=sound, text=given.intent)
            print(f"{answer.value} ({answer.outputs['said']!r} was said)")
        else:
            print(client.ask("transcription", audio=sound).value)


if __name__ == "__main__":
    main()
