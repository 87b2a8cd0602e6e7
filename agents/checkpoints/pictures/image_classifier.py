"""Class `image-classifier`: a picture to the checkpoint's labels, by a whole network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from s2m3.agents.checkpoints.fusion_heads import labels_of
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.scores import scoring
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_image_processor
from s2m3.agents.media.pictures import check_ratio, decode_picture, without_alpha
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.serving.module import MANY
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["ImageClassifier", "load_image_classifier"]

_TOP = 5
#: Pixels per side up to which a picture is decoded at its full size, as in vision_encoder.py.
_FULL = 2_048


class ImageClassifier:
    """`image` to `label`, `score` (see scores.py), `ranking` (the best five) and `logits` (1, classes)."""

    light = False
    max_batch = 1  # processors give pictures of several sizes, and masks with them
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Any, processor: Any, labels: list[str], scores: Callable[[Floats], Floats]) -> None:
        self._network = network
        self._processor = processor
        self._labels, self._scores = labels, scores
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
        """Returns the item's pixels, and whatever else the processor says of them."""
        picture = decode_picture(port(inputs, "image", "image"), _FULL, without_alpha)
        check_ratio(picture)
        try:
            return dict(self._processor(images=picture, return_tensors="pt"))
        except (ValueError, ZeroDivisionError) as error:  # e.g. one pixel wide: nothing is left of that side
            raise BadInputError(f"the picture cannot be prepared: {error}"[:200]) from error

    @torch.inference_mode()
    def run(self, batch: Sequence[dict[str, torch.Tensor]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        results = []
        for given in batch:
            between_slices()
            logits: Floats = self._network(**given).logits.float().numpy()
            answer = answer_of(ranked("label", self._labels, self._scores(logits[0]), _TOP), wanted)
            results.append(answer | ({"logits": logits} if "logits" in wanted else {}))
        return results


def load_image_classifier(opened: CheckpointPart) -> ImageClassifier:
    """Builds class `image-classifier`.

    Raises:
        ModuleFailedError: Weights, preprocessing or labels do not fit; the text names them.
    """
    network = build_network(opened)
    labels = labels_of(opened, network.config.num_labels)
    return ImageClassifier(network, read_image_processor(opened), labels, scoring(opened, len(labels)))
