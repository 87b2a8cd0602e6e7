"""A sound file of a request to the features that a checkpoint's own feature extractor makes of it."""

from collections.abc import Mapping
from typing import Any

import torch

from s2m3.agents.media.sounds import decode_sound
from s2m3.agents.modules.ports import port
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["heard"]

#: The method of wav2vec 2.0 and its like that says how many frames come of so many samples.
_FRAMES = "_get_feat_extract_output_lengths"


def heard(network: Any, extractor: Any, inputs: Mapping[str, Value], **how: Any) -> dict[str, torch.Tensor]:
    """Returns what a feature extractor makes of the sound of an item, (1, …) each.

    Args:
        network: The network that will read the features.
        extractor: The checkpoint's feature extractor.
        inputs: The item.
        how: Further arguments of the extractor.

    Raises:
        BadInputError: No sound, or one that is too short for the extractor or the network's convolutions.
    """
    rate = extractor.sampling_rate
    samples = decode_sound(port(inputs, "audio", "audio"), rate)
    too_short = f"{len(samples) / rate:.4f} s of sound are too short for this network"
    frames = getattr(network, _FRAMES, None) if network.main_input_name == "input_values" else None
    if frames is not None and int(frames(torch.tensor(len(samples)))) < 1:
        raise BadInputError(too_short)
    try:
        return dict(extractor(samples, sampling_rate=rate, return_tensors="pt", **how))
    except (ValueError, RuntimeError, AssertionError) as error:
        raise BadInputError(f"{too_short}: {error}"[:300]) from error
