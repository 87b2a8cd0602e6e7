"""The paper's claims on memory with parameters counted from configurations: splitting alone, and sharing.

Two metrics that are never on one axis: what splitting saves on one device, and what sharing saves over all tasks.
"""

import tomllib
from importlib.resources import files
from typing import Any

import paper_models as paper

from s2m3.planner.solving.solve import solve
from s2m3.schemas.sizes.audio import clap_audio

__all__ = ["FOUR_TASKS", "counted_mb", "home_against_cloud", "shared_millions", "sharing_mb", "split_savings"]

#: Tasks over one CLIP of ViT-B/16 size, as in `bench/sharing.py`: the modules of each.
FOUR_TASKS: dict[str, tuple[str, ...]] = {
    "retrieval": ("image", "text"),
    "encoder-vqa": ("image", "text", "head-encoder-vqa"),
    "alignment": ("audio", "image", "text", "head-alignment"),
    "classification": ("image", "head-classification"),
}
_WIDTH, _FLOAT32 = 512, 4
#: Classes and joined inputs of the linear heads in `bench/sharing.py`.
_HEADS = {"head-encoder-vqa": (3129, 2), "head-alignment": (2, 3), "head-classification": (1000, 1)}


def split_savings() -> dict[str, dict[str, float]]:
    """Returns 1 - largest module / whole model for the nine CLIPs, with and without the text token embedding."""
    found = {}
    for name, (vision, text) in paper.CLIPS.items():
        lookup = paper.TOKEN_EMBEDDING[name]
        full = 1 - max(vision.millions, text.millions) / (vision.millions + text.millions)
        without = 1 - max(vision.millions, text.millions - lookup) / (vision.millions + text.millions - lookup)
        found[name] = {"full towers": full, "without token embedding": without}
    return found


def shared_millions() -> dict[str, tuple[float, float]]:
    """Returns, by convention, the parameters of four tasks (retrieval, encoder VQA, alignment, classification).

    The millions with a copy for each task, then with one copy of each module.
    """
    vision_m, full_m = (tower.millions for tower in paper.CLIPS["b16"])
    audio_m = paper.MODULES["imagebind-audio"].millions
    conventions = {"full towers": full_m, "without token embedding": full_m - paper.TOKEN_EMBEDDING["b16"]}
    return {
        convention: (4 * vision_m + 3 * text_m + audio_m, vision_m + text_m + audio_m)
        for convention, text_m in conventions.items()
    }


def home_against_cloud() -> dict[str, tuple[float, float]]:
    """Returns, for each set of tasks, the objective at home without a server and in the cloud behind a WAN, seconds."""
    names, source = paper.TESTBEDS["no-server"]
    found = {}
    for suite, models in paper.SUITES.items():
        home = solve(paper.instance(models, {name: paper.DEVICES[name] for name in names}, source)).objective_s
        cloud = solve(paper.instance(models, {"cloud": paper.CLOUD}, None)).objective_s
        found[suite] = home, cloud
    return found


def counted_mb() -> dict[str, float]:
    """Returns the modules of `bench/sharing.py` with their parameters in float32, 10^6 bytes."""
    vision, text = paper.CLIPS["b16"]
    table: dict[str, Any] = tomllib.loads(files("s2m3.schemas").joinpath("sizes/defaults.toml").read_text("utf-8"))
    audio = clap_audio(table["clap_audio_model"]).count.parameters / 1e6
    heads = {name: classes * (inputs * _WIDTH + 1) / 1e6 for name, (classes, inputs) in _HEADS.items()}
    return {
        name: millions * _FLOAT32
        for name, millions in {"image": vision.millions, "text": text.millions, "audio": audio, **heads}.items()
    }


def sharing_mb() -> tuple[float, float]:
    """Returns what the four tasks of `bench/sharing.py` hold, 10^6 bytes: shared, and with a copy for each task."""
    sizes = counted_mb()
    shared = sum(sizes[module] for module in sizes)
    return shared, sum(sizes[module] for modules in FOUR_TASKS.values() for module in modules)
