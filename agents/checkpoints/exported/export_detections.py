"""What of class `object-detector` is exported. Needs torch and transformers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from s2m3.agents.checkpoints.exported.detections import BoxSettings
from s2m3.agents.checkpoints.exported.export_pictures import PICTURES, preprocessing
from s2m3.agents.checkpoints.exported.networks import output_network, samples
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.networks.outputs import Asked
from s2m3.agents.checkpoints.pictures.object_detector import ObjectDetector, detector_of, threshold_of
from s2m3.agents.checkpoints.pictures.reading import read_pictures
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["export_detector"]

#: transformers' detectors keep as many boxes as they have queries, or this many.
_TOP = 100
_NEAR = 1e-4


def export_detector(opened: CheckpointPart) -> tuple[ObjectDetector, Export]:
    """Returns a part of class `object-detector`, run by torch, and what goes into its exported part.

    Raises:
        ModuleFailedError: Weights, preprocessing or the threshold do not fit, or are of a kind that is not exported.
    """
    network, threshold = build_network(opened), threshold_of(opened)
    processor, steps = preprocessing(opened, several_sizes=True)
    names = network.config.id2label
    outputs = output_network(
        network, ["pixel_values"], {"logits": Asked("logits", None, 0), "boxes": Asked("pred_boxes", None, 0)}
    )
    pixels = [{"pixel_values": steps([picture])} for picture in read_pictures(samples(*PICTURES), len(PICTURES))]
    logits, boxes = (array[0] for array in outputs(**pixels[0]))
    labels = [str(names[number]) for number in sorted(names)]
    found = _way(processor, logits, boxes, labels)
    notes = {
        "picture": steps.model_dump(mode="json"),
        "boxes": found.model_copy(update={"threshold": threshold}).model_dump(mode="json"),
    }
    free = {"pixel_values": [] if steps.size else [2, 3]}
    items = [{"image": data} for data in samples(*PICTURES)]
    exported = {"model": ExportedNetwork(outputs, pixels, free)}
    return detector_of(network, processor, threshold), Export(exported, {}, notes, items, frozenset({"boxes"}))


def _way(processor: Any, logits: Floats, boxes: Floats, labels: list[str]) -> BoxSettings:
    """Returns the settings that find what transformers' own way finds."""
    size = (480, 640)
    result = SimpleNamespace(logits=torch.from_numpy(logits[None]), pred_boxes=torch.from_numpy(boxes[None]))
    (wanted,) = processor.post_process_object_detection(result, 0.0, torch.tensor([size]))
    scores, corners = wanted["scores"].numpy(), wanted["boxes"].numpy()
    order = np.argsort(-scores, kind="stable")
    for way in ("softmax", "sigmoid"):
        for most in dict.fromkeys([len(logits), min(_TOP, logits.size)]):
            tried = BoxSettings.model_validate({"way": way, "most": most, "threshold": 0.0, "labels": labels})
            found = tried.found(logits, boxes, size)
            if len(found[0]) == len(scores) and all(
                np.allclose(ours, theirs[order], atol=_NEAR, rtol=_NEAR)
                for ours, theirs in ((found[0], scores), (found[2], corners))
            ):
                return tried
    raise ModuleFailedError(f"what {type(processor).__name__} makes of boxes cannot be made without transformers")
