"""Instances of the paper's models (arXiv 2508.04271): sizes and FLOPs from configurations, devices assumed.

The paper's text does not contain its device table and instances: these are an independent construction, and every
assumption is in this file and printed by `assumptions()`.
"""

from dataclasses import dataclass
from typing import Any

from s2m3.schemas.checkpoints.published import known_parts
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.instance import Instance, parse_instance

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
    """A device's assumed performance with batches of one.

    Args:
        gflops: Sustained GFLOP/s on an encoder.
        gb_s: Memory bandwidth in use while a language model generates, 10^9 bytes a second.
        memory_mb: Memory for modules, 10^6 bytes.
        latency_ms: One-way latency to the broker.
        mbps: Bandwidth of the link, 10^6 bits a second.
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
#: The cloud for comparison: a faster server behind a home's WAN link (with the upload's bandwidth).
CLOUD = Device(20_000, 1000, 80_000, 40.0, 20)

#: Bytes per parameter: encoders in 16 bits, language models in 4 bits with scales.
_ENCODER_BYTES, _LANGUAGE_BYTES = 2.0, 0.56
_PROMPT_TOKENS, _ANSWER_TOKENS = 640, 16
_IMAGE_KB, _TEXT_KB, _SOUND_KB, _EMBEDDING_KB, _PATCHES_KB = 120.0, 0.3, 320.0, 4.0, 1200.0


@dataclass(frozen=True, slots=True)
class Part:
    """A module: millions of parameters, GFLOPs per item, kB in and out per item, and whether it generates text."""

    millions: float
    gflops: float
    input_kb: float
    output_kb: float = _EMBEDDING_KB
    generates: bool = False

    @property
    def memory_mb(self) -> float:
        """Memory of the weights, 10^6 bytes."""
        return self.millions * (_LANGUAGE_BYTES if self.generates else _ENCODER_BYTES)

    def seconds(self, device: Device) -> float:
        """Returns seconds per item: compute, and for a language model one read of all weights per answer token."""
        if not self.generates:
            return self.gflops / device.gflops
        prompt = 2 * self.millions / 1000 * _PROMPT_TOKENS / device.gflops
        return prompt + _ANSWER_TOKENS * self.memory_mb / 1000 / device.gb_s


_SIZES = known_parts(shipped_catalogue().checkpoints)


def _millions(*modules: str) -> float:
    return sum(_SIZES[module].parameters for module in modules) / 1e6


def _encoder(module: str, input_kb: float, output_kb: float = _EMBEDDING_KB) -> Part:
    """Returns an encoder with the parameters and operations of its configuration (schemas/models)."""
    return Part(_millions(module), _SIZES[module].gflops or 0.0, input_kb, output_kb)


_CLIP_IDS = {
    "rn50": "clip-rn50",
    "rn101": "clip-rn101",
    "rn50x4": "clip-rn50x4",
    "rn50x16": "clip-rn50x16",
    "rn50x64": "clip-rn50x64",
    "b32": "clip-vit-b32",
    "b16": "clip-vit-b16",
    "l14": "clip-vit-l14",
    "l14-336": "clip-vit-l14-336",
}
#: Millions of parameters in the token embedding of each CLIP text tower (a lookup without compute).
TOKEN_EMBEDDING = {name: _SIZES[f"{known}-text"].lookup / 1e6 for name, known in _CLIP_IDS.items()}
CLIPS = {
    name: (_encoder(f"{known}-vision", _IMAGE_KB), _encoder(f"{known}-text", _TEXT_KB))
    for name, known in _CLIP_IDS.items()
}
MODULES: dict[str, Part] = {
    **{f"clip-{name}-vision": vision for name, (vision, _) in CLIPS.items()},
    **{f"clip-{name}-text": text for name, (_, text) in CLIPS.items()},
    "cosine": Part(0.0, 0.001, 0.0, 0.2),
    "vqa-classifier": Part(4.0, 0.01, 0.0, 0.2),
    "labels-classifier": Part(1.0, 0.002, 0.0, 0.2),
    "imagebind-vision": _encoder("imagebind-vision", _IMAGE_KB),
    "imagebind-text": _encoder("imagebind-text", _TEXT_KB),
    # 70 GFLOPs is the first assumption of these instances. The configuration gives 41 for one clip of 2 s, 123 for the
    # three that ImageBind uses; with these, the greedy by compute is optimal in 91.6 or 97.9 % of the instances instead
    # of 94.7 %.
    "imagebind-audio": Part(_millions("imagebind-audio"), 70, _SOUND_KB),
    "vit-b16": _encoder("vit-gpt2-vision", _IMAGE_KB, 600.0),
    "gpt2-decoder": Part(_millions("vit-gpt2-decoder"), 0.0, 0.0, 0.2, generates=True),
    # projectors are counted with the towers (16 bits per parameter), not with the language models
    "llava-vision": Part(303.5 + 21.0, 382, _IMAGE_KB, _PATCHES_KB),
    "vicuna-7b": Part(6738.4, 0.0, 0.0, 0.5, generates=True),
    "phi-3-mini": Part(3821.0, 0.0, 0.0, 0.5, generates=True),
    "phi-3-vision": Part(303.5 + 12.0, 382, _IMAGE_KB, _PATCHES_KB),
    "tinyllama": Part(1100.0, 0.0, 0.0, 0.5, generates=True),
    "tinyllama-vision": Part(303.5 + 6.0, 382, _IMAGE_KB, _PATCHES_KB),
}

#: Model -> step -> (module, predecessors).
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

#: Nineteen sets of tasks: fourteen single models (as many as in the paper) and five mixes that share modules.
SUITES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in MODELS if name not in {"vqa-encoder-b16", "classify-b16"}},
    "mix-b16": ("retrieval-b16", "vqa-encoder-b16", "classify-b16"),
    "mix-four": ("retrieval-b16", "vqa-encoder-b16", "align", "classify-b16"),
    "mix-caption": ("retrieval-l14", "caption", "classify-b16"),
    "mix-language": ("vqa-tinyllama", "caption", "retrieval-b32"),
    "mix-all": ("retrieval-l14", "vqa-encoder-b16", "align", "caption", "vqa-phi-3", "classify-b16"),
}

#: Five testbeds: (devices, the device that sends requests).
TESTBEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "all-five": (("server", "desktop", "laptop", "board-1", "board-2"), "board-2"),
    "no-server": (("desktop", "laptop", "board-1", "board-2"), "board-2"),
    "no-desktop": (("server", "laptop", "board-1", "board-2"), "board-1"),
    "laptop-home": (("laptop", "board-1", "board-2"), "laptop"),
    "desk": (("desktop", "laptop", "board-1"), "laptop"),
}


def instance(models: tuple[str, ...], devices: dict[str, Device], source: str | None) -> Instance:
    """Returns the instance of some models on some devices, with requests from `source` (None: behind the broker)."""
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
    """Returns all assumptions, one per line."""
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
