"""A camera: looks at a snapshot every few seconds and says what it shows. Needs `s2m3 up` beside it.

Run: python examples/watch_camera.py http://camera.local/snapshot.jpg --every 5
     python examples/watch_camera.py pictures/ --task retrieval --text "a cat" --text "a cup of coffee"
"""

import argparse
import itertools
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from s2m3 import Client

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def snapshots(source: str) -> Iterator[bytes]:
    """Yields pictures: those of a folder once each, a file or an address again and again."""
    path = Path(source)
    if path.is_dir():
        yield from (file.read_bytes() for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES)
    elif source.startswith(("http://", "https://")):
        while True:
            with urllib.request.urlopen(source, timeout=10) as answer:  # noqa: S310  # http alone, checked above
                yield answer.read()
    else:
        yield from itertools.repeat(path.read_bytes())


def main() -> None:
    """Asks about one picture after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="address of a snapshot, picture, or folder of pictures")
    parser.add_argument("--task", default="classification")
    parser.add_argument("--text", action="append", help="a label, for tasks that take texts; again for each")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two pictures")
    parser.add_argument("--times", type=int, help="pictures, then it ends")
    given = parser.parse_args()
    with Client() as client:
        for number, picture in enumerate(itertools.islice(snapshots(given.source), given.times)):
            if number:
                time.sleep(given.every)
            answer = client.ask(given.task, image=picture, text=given.text)
            print(f"{answer.value} ({answer.outputs['score']:.2f}), {answer.latency_ms:.0f} ms", flush=True)


if __name__ == "__main__":
    main()
