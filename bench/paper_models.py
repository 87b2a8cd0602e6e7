"""The paper's models (arXiv 2508.04271) as instances: sizes and FLOPs counted from configurations, devices assumed.

The paper's own device table and instances are not in the text we have: this is an independent construction, and every
assumption is in this file and printed by `assumptions()`.
"""

from dataclasses import dataclass
from typing import Any

from schemas.instance import Instance, parse_instance

__all__ = [
    "CLOUD",
    "DEVICES",
    "MODELS",
    "SUITES",
    "TESTBEDS",
    "Device",
    "Part",
    "assumptions",
    "instance",
    "paper_like",
]


@dataclass(frozen=True, slots=True)
class Device:
    """What a device is assumed to do with batches of one.

    Args:
        gflops: Sustained GFLOP/s on an encoder.
        gb_s: Memory bandwidth in use while a language model generates, 10^9 bytes a second.
        memory_mb: For modules.
        latency_ms: One way to the broker.
        mbps: Of the link.
    """

    gflops: float
    gb_s: float
    memory_mb: float
    latency_ms: float
    mbps: float


DEVICES = {
    "server": Device(8000, 400, 24_000, 5.0, 300),
    "desktop": Device(2000, 200, 12_000, 1.0, 900),
    "laptop": Device(300, 40, 8_000, 3.0, 200),
    "board-1": Device(60, 12, 4_000, 3.0, 80),
    "board-2": Device(25, 8, 4_000, 3.0, 80),
}
#: The cloud of the comparison: a faster server behind a home's WAN link (the slower direction).
CLOUD = Device(20_000, 1000, 80_000, 40.0, 20)

#: Bytes a parameter: encoders in 16 bits, language models in 4 bits and their scales.
_ENCODER_BYTES, _LANGUAGE_BYTES = 2.0, 0.56
_PROMPT_TOKENS, _ANSWER_TOKENS = 640, 16
_IMAGE_KB, _TEXT_KB, _SOUND_KB, _EMBEDDING_KB, _PATCHES_KB = 120.0, 0.3, 320.0, 4.0, 1200.0


@dataclass(frozen=True, slots=True)
class Part:
    """A module: millions of parameters, GFLOPs an item, kB in and out, and whether it generates text."""

    millions: float
    gflops: float
    input_kb: float
    output_kb: float = _EMBEDDING_KB
    generates: bool = False

    @property
    def memory_mb(self) -> float:
        """10^6 bytes of weights."""
        return self.millions * (_LANGUAGE_BYTES if self.generates else _ENCODER_BYTES)

    def seconds(self, device: Device) -> float:
        """Seconds per item: compute, and for a language model every weight read once for each token of the answer."""
        if not self.generates:
            return self.gflops / device.gflops
        prompt = 2 * self.millions / 1000 * _PROMPT_TOKENS / device.gflops
        return prompt + _ANSWER_TOKENS * self.memory_mb / 1000 / device.gb_s


def _clip(vision: float, text: float, vision_gflops: float, text_gflops: float) -> tuple[Part, Part]:
    return Part(vision, vision_gflops, _IMAGE_KB), Part(text, text_gflops, _TEXT_KB)


#: Millions of parameters of each CLIP text tower that are its token embedding (a lookup, no compute).
TOKEN_EMBEDDING = {
    "rn50": 25.30,
    "rn101": 25.30,
    "rn50x4": 31.62,
    "rn50x16": 37.95,
    "rn50x64": 50.59,
    "b32": 25.30,
    "b16": 25.30,
    "l14": 37.95,
    "l14-336": 37.95,
}
#: The table of facts-paper.md: parameters (millions) of vision and text tower, GFLOPs of image and text.
CLIPS = {
    "rn50": _clip(38.32, 63.69, 12.2, 6.0),
    "rn101": _clip(56.26, 63.43, 19.5, 6.0),
    "rn50x4": _clip(87.14, 91.16, 42.6, 9.3),
    "rn50x16": _clip(167.33, 123.65, 149, 13.3),
    "rn50x64": _clip(420.38, 202.88, 529, 23.6),
    "b32": _clip(87.85, 63.43, 8.8, 6.0),
    "b16": _clip(86.19, 63.43, 35.1, 6.0),
    "l14": _clip(303.97, 123.65, 162, 13.3),
    "l14-336": _clip(304.29, 123.65, 382, 13.3),
}
MODULES: dict[str, Part] = {
    **{f"clip-{name}-vision": vision for name, (vision, _) in CLIPS.items()},
    **{f"clip-{name}-text": text for name, (_, text) in CLIPS.items()},
    "cosine": Part(0.0, 0.001, 0.0, 0.2),
    "vqa-classifier": Part(4.0, 0.01, 0.0, 0.2),
    "labels-classifier": Part(1.0, 0.002, 0.0, 0.2),
    "imagebind-vision": Part(632.83, 335, _IMAGE_KB),
    "imagebind-text": Part(354.03, 47, _TEXT_KB),
    "imagebind-audio": Part(86.24, 70, _SOUND_KB),
    "vit-b16": Part(86.4, 35.1, _IMAGE_KB, 600.0),
    "gpt2-decoder": Part(152.8, 0.0, 0.0, 0.2, generates=True),
    "llava-vision": Part(303.5 + 21.0, 382, _IMAGE_KB, _PATCHES_KB),
    "vicuna-7b": Part(6738.4, 0.0, 0.0, 0.5, generates=True),
    "phi-3-mini": Part(3821.0, 0.0, 0.0, 0.5, generates=True),
    "phi-3-vision": Part(303.5 + 12.0, 382, _IMAGE_KB, _PATCHES_KB),
    "tinyllama": Part(1100.0, 0.0, 0.0, 0.5, generates=True),
    "tinyllama-vision": Part(303.5 + 6.0, 382, _IMAGE_KB, _PATCHES_KB),
}

#: Model -> step -> (module, steps before it).
MODELS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    **{
        f"retrieval-{name}": {
            "image": (f"clip-{name}-vision", ()),
            "text": (f"clip-{name}-text", ()),
            "head": ("cosine", ("image", "text")),
        }
        for name in CLIPS
    },
    "vqa-encoder-b16": {
        "image": ("clip-b16-vision", ()),
        "text": ("clip-b16-text", ()),
        "head": ("vqa-classifier", ("image", "text")),
    },
    "classify-b16": {"image": ("clip-b16-vision", ()), "head": ("labels-classifier", ("image",))},
    "align": {
        "audio": ("imagebind-audio", ()),
        "image": ("imagebind-vision", ()),
        "text": ("imagebind-text", ()),
        "head": ("cosine", ("audio", "image", "text")),
    },
    "caption": {"image": ("vit-b16", ()), "head": ("gpt2-decoder", ("image",))},
    "vqa-llava-7b": {"image": ("llava-vision", ()), "head": ("vicuna-7b", ("image",))},
    "vqa-phi-3": {"image": ("phi-3-vision", ()), "head": ("phi-3-mini", ("image",))},
    "vqa-tinyllama": {"image": ("tinyllama-vision", ()), "head": ("tinyllama", ("image",))},
}

#: Nineteen sets of tasks: fourteen models alone (the paper's testbed has fourteen) and five mixes that share modules.
SUITES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in MODELS if name not in {"vqa-encoder-b16", "classify-b16"}},
    "mix-b16": ("retrieval-b16", "vqa-encoder-b16", "classify-b16"),
    "mix-four": ("retrieval-b16", "vqa-encoder-b16", "align", "classify-b16"),
    "mix-caption": ("retrieval-l14", "caption", "classify-b16"),
    "mix-language": ("vqa-tinyllama", "caption", "retrieval-b32"),
    "mix-all": ("retrieval-l14", "vqa-encoder-b16", "align", "caption", "vqa-phi-3", "classify-b16"),
}

#: Five testbeds: the devices, and where requests come from.
TESTBEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "all-five": (("server", "desktop", "laptop", "board-1", "board-2"), "board-2"),
    "no-server": (("desktop", "laptop", "board-1", "board-2"), "board-2"),
    "no-desktop": (("server", "laptop", "board-1", "board-2"), "board-1"),
    "laptop-home": (("laptop", "board-1", "board-2"), "laptop"),
    "desk": (("desktop", "laptop", "board-1"), "laptop"),
}


def instance(models: tuple[str, ...], devices: dict[str, Device], source: str | None) -> Instance:
    """Returns the instance of some models on some devices, asked from one of them."""
    used = sorted({module for model in models for module, _ in MODELS[model].values()})
    document: dict[str, Any] = {
        "devices": [
            {"id": name, "memory_mb": d.memory_mb, "latency_ms": d.latency_ms, "mbps": d.mbps}
            for name, d in devices.items()
        ],
        "modules": [
            {
                "id": name,
                "memory_mb": MODULES[name].memory_mb,
                "input_kb": MODULES[name].input_kb,
                "output_kb": MODULES[name].output_kb,
                "seconds": {device: MODULES[name].seconds(d) for device, d in devices.items()},
            }
            for name in used
        ],
        "tasks": [
            {
                "id": model,
                "source": source,
                "steps": [
                    {"id": step, "module": module, "after": list(after)}
                    for step, (module, after) in MODELS[model].items()
                ],
            }
            for model in models
        ],
    }
    return parse_instance(document, "paper_models")


def paper_like() -> list[tuple[str, Instance]]:
    """Returns the 95 instances: 19 sets of tasks on 5 testbeds."""
    return [
        (f"{suite} on {bed}", instance(models, {name: DEVICES[name] for name in names}, source))
        for bed, (names, source) in TESTBEDS.items()
        for suite, models in SUITES.items()
    ]


def assumptions() -> list[str]:
    """Returns what is assumed, a line each."""
    lines = [
        f"encoders {_ENCODER_BYTES:g} bytes a parameter, language models {_LANGUAGE_BYTES:g}",
        f"a language model reads {_PROMPT_TOKENS} tokens and writes {_ANSWER_TOKENS}",
        f"image {_IMAGE_KB:g} kB, text {_TEXT_KB:g} kB, sound {_SOUND_KB:g} kB",
        f"embedding {_EMBEDDING_KB:g} kB, patches for a language model {_PATCHES_KB:g} kB",
    ]
    for name, d in [*DEVICES.items(), ("cloud", CLOUD)]:
        lines.append(
            f"{name}: {d.gflops:g} GFLOP/s, {d.gb_s:g} GB/s, {d.memory_mb:g} MB, {d.latency_ms:g} ms, {d.mbps:g} Mbit/s"
        )
    return lines
