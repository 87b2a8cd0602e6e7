"""What of classes `image-encoder` and `image-classifier` is exported. Needs torch and transformers."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend

from s2m3.agents.checkpoints.exported.networks import output_network, samples
from s2m3.agents.checkpoints.exported.picture_steps import PictureSteps
from s2m3.agents.checkpoints.labels import read_labels
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.networks.outputs import Asked, asked_outputs
from s2m3.agents.checkpoints.pictures.image_classifier import ImageClassifier
from s2m3.agents.checkpoints.pictures.reading import prepared, read_pictures
from s2m3.agents.checkpoints.pictures.vision_encoder import ImageEncoder
from s2m3.agents.checkpoints.scores import scoring_name
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_image_processor
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["PICTURES", "export_classifier", "export_encoder", "preprocessing", "steps_of"]

#: Methods that a processor has to have from PilBackend itself, so that its numbers say all that it does.
_OWN = ("preprocess", "process_image", "_preprocess", "resize", "center_crop", "rescale", "normalize")
#: A processor that crops by a share, which its numbers say too; from this side on it does not crop.
_CONVNEXT, _NOT_CROPPED = "ConvNextImageProcessorPil", 384
#: Processors that also prepare what a detector is trained with; of one picture they pad nothing.
_DETECTORS = (
    "DetrImageProcessorPil",
    "RTDetrImageProcessorPil",
    "YolosImageProcessorPil",
    "ConditionalDetrImageProcessorPil",
)
#: The pictures with which exports are checked.
PICTURES = ("chelsea.jpg", "coffee.jpg", "rocket.jpg", "camera.jpg", "red-triangle.png")
#: (width, height) of pictures of strange shapes.
_SHAPES = ((37, 301), (301, 37), (9, 9), (640, 480), (1023, 767))


def export_encoder(opened: CheckpointPart) -> tuple[ImageEncoder, Export]:
    """Returns a part of class `image-encoder`, run by torch, and what goes into its exported part.

    Raises:
        ModuleFailedError: Weights or preprocessing do not fit, or are of a kind that is not exported.
    """
    network, asked = build_network(opened), asked_outputs(opened)
    processor, steps = preprocessing(opened)
    plan = _export(network, asked, steps, {}, frozenset(asked))
    return ImageEncoder(network, processor, asked), plan


def export_classifier(opened: CheckpointPart) -> tuple[ImageClassifier, Export]:
    """Returns a part of class `image-classifier`, run by torch, and what goes into its exported part.

    Raises:
        ModuleFailedError: Weights, preprocessing or labels do not fit, or are of a kind that is not exported.
    """
    network = build_network(opened)
    labels = read_labels(opened, network.config.num_labels)
    processor, steps = preprocessing(opened)
    notes = {"labels": labels.names, "scoring": scoring_name(opened, len(labels.names))}
    asked = {"logits": Asked("logits", None, 0)}
    return ImageClassifier(network, processor, labels), _export(network, asked, steps, notes, frozenset({"logits"}))


def _export(
    network: Any, asked: dict[str, Asked], steps: PictureSteps, notes: dict[str, Any], wanted: frozenset[str]
) -> Export:
    pictures = read_pictures(samples(*PICTURES), len(PICTURES))
    pixels = [steps(pictures[:count]) for count in (1, 3)]
    exported = ExportedNetwork(
        output_network(network, ["pixel_values"], asked),
        [{"pixel_values": one} for one in pixels],
        {"pixel_values": [0]},
    )
    notes = {**notes, "picture": steps.model_dump(mode="json")}
    items, ranked = ([{"image": data} for data in of] for of in (samples(*PICTURES), _quarters(pictures)))
    return Export({"model": exported}, notes=notes, items=items, wanted=wanted, ranked=ranked)


def _quarters(pictures: Sequence[Image.Image]) -> list[bytes]:
    """Returns the four quarters of each picture, as files."""
    found = []
    for picture in pictures:
        width, height = picture.width // 2, picture.height // 2
        for left, top in ((0, 0), (width, 0), (0, height), (width, height)):
            file = io.BytesIO()
            picture.crop((left, top, left + width, top + height)).save(file, "PNG")
            found.append(file.getvalue())
    return found


def preprocessing(opened: CheckpointPart, *, several_sizes: bool = False) -> tuple[Any, PictureSteps]:
    """Returns a checkpoint's image processor, and the steps that make the same pixels without transformers.

    Args:
        opened: The part.
        several_sizes: Whether the network takes pictures of several sizes.

    Raises:
        ModuleFailedError: It has none that is known, or it does what cannot be done without transformers.
    """
    processor = read_image_processor(opened, pillow=True)
    steps = steps_of(processor)
    if steps.size is None and not several_sizes:
        raise ModuleFailedError(f"its image processor, {type(processor).__name__}, makes pictures of several sizes")
    _compare(processor, steps)
    return processor, steps


def steps_of(processor: Any) -> PictureSteps:
    """Returns the steps of one of transformers' image processors.

    Raises:
        ModuleFailedError: It does something else than resize, crop, scale and normalise.
    """
    kind = type(processor)
    is_plain = all(_is_own(kind, name) for name in _OWN) and not processor.do_pad
    if not is_plain and kind.__name__ != _CONVNEXT and kind.__name__ not in _DETECTORS:
        raise ModuleFailedError(
            f"its image processor, {kind.__name__}, does more than resize, crop, scale and normalise"
        )
    found: dict[str, Any] = {"resample": int(processor.resample if processor.resample is not None else 2)}
    if processor.do_resize:
        found |= _resized(kind.__name__, processor)
    if getattr(processor, "do_center_crop", None):
        found["crop"] = (processor.crop_size.height, processor.crop_size.width)
    if processor.do_rescale:
        found["scale"] = processor.rescale_factor
    if processor.do_normalize:
        found |= {"mean": _three(processor.image_mean), "deviation": _three(processor.image_std)}
    return PictureSteps.model_validate(found)


def _resized(kind: str, processor: Any) -> dict[str, Any]:
    size = processor.size
    if size.max_height or size.max_width or (size.longest_edge and not size.shortest_edge):
        raise ModuleFailedError(f"its image processor, {kind}, resizes in a way that is not known")
    if kind == _CONVNEXT:
        side, share = size.shortest_edge, processor.crop_pct
        square = (side, side)
        return {"resized": square} if side >= _NOT_CROPPED else {"shortest": int(side / share), "crop": square}
    if size.shortest_edge:
        return {"shortest": size.shortest_edge, "longest": size.longest_edge}
    return {"resized": (size.height, size.width)}


def _is_own(kind: type, name: str) -> bool:
    return getattr(kind, name) is getattr(PilBackend, name)


def _three(given: float | Sequence[float]) -> tuple[float, ...]:
    return (given,) * 3 if isinstance(given, int | float) else tuple(given)


def _compare(processor: Any, steps: PictureSteps) -> None:
    """Refuses steps that do not give the processor's own pixels, bit for bit."""
    pictures = read_pictures(samples(*PICTURES), len(PICTURES))
    pictures += [pictures[0].resize(size, Image.Resampling.BOX) for size in _SHAPES]
    for picture in pictures:
        try:
            wanted = prepared(processor, picture, return_tensors="np")["pixel_values"]
        except BadInputError:
            continue
        found = steps([picture])
        if found.dtype != wanted.dtype or not np.array_equal(found, wanted):
            raise ModuleFailedError(f"the pixels of {type(processor).__name__} cannot be made without transformers")
