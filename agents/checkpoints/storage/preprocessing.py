"""A checkpoint's own preprocessing: image processor, feature extractor, tokenizer. Its code is not run."""

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import DEFAULT_TO_PIL_BACKEND_IMAGE_PROCESSORS
from transformers.utils import is_torchvision_available

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.kv_cache import positions_of
from s2m3.schemas.checkpoints.headers import read_json
from s2m3.schemas.checkpoints.pipelines import PIPELINE
from s2m3.schemas.checkpoints.processors import OVER_TORCH
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["extractor_settings", "read_extractor", "read_image_processor", "read_tokenizer", "token_limit"]

#: Pillow's number of that way of resizing: agents that read texts alone have no Pillow.
_BILINEAR = 2


def read_image_processor(opened: CheckpointPart, *, pillow: bool = False) -> Any:
    """Returns the checkpoint's image processor.

    Args:
        opened: The part.
        pillow: Whether it has to be the one that uses Pillow where there are two.

    Raises:
        ModuleFailedError: It has none that is known.
    """
    if "model_cfg" in opened.checkpoint.config:
        return _open_clip_processor(opened, pillow=pillow)
    settings = _settings(opened.checkpoint.folder, "image_processor")
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    name = kind.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    return _made(opened, name, _image_processor_class(name, pillow=pillow), settings)


def extractor_settings(opened: CheckpointPart) -> dict[str, Any]:
    """Returns the configuration of the checkpoint's feature extractor for sound.

    Raises:
        ModuleFailedError: It cannot be read.
    """
    return _settings(opened.checkpoint.folder, "feature_extractor")


def read_extractor(opened: CheckpointPart) -> Any:
    """Returns the checkpoint's feature extractor for sound.

    Raises:
        ModuleFailedError: It has none that is known.
    """
    settings = extractor_settings(opened)
    usual = FEATURE_EXTRACTOR_MAPPING_NAMES.get(str(opened.value("model_type")))
    name = str(settings.get("feature_extractor_type") or usual)
    return _made(opened, name, getattr(transformers, name, None), settings)


def _settings(folder: Path, what: str) -> dict[str, Any]:
    """Reads preprocessor_config.json, or where processor_config.json has it."""
    whole, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    try:
        inside = read_json(whole).get(what) if whole.is_file() else None
        return inside if isinstance(inside, dict) else read_json(own)
    except BadInputError as error:
        raise ModuleFailedError(f"{folder.name}: {error.detail}") from error


def _made(opened: CheckpointPart, name: str, kind: Any, settings: dict[str, Any]) -> Any:
    if kind is None:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} wants {name}, which transformers does not have")
    try:
        return kind.from_dict(settings)
    except (TypeError, ValueError, KeyError) as error:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name}: {name}: {error}"[:300]) from error


def _image_processor_class(name: str, *, pillow: bool) -> Any:
    """Returns the class of an image processor by its name (`CLIPImageProcessor`); None if there is none that runs here.

    Where torchvision is installed transformers prefers it for almost all families, and so the numbers are those of its
    own AutoImageProcessor; elsewhere they are Pillow's.
    """
    found = getattr(transformers, f"{name}Pil", None)
    if found is not None and pillow:
        return found
    if is_torchvision_available() and (found is None or name not in DEFAULT_TO_PIL_BACKEND_IMAGE_PROCESSORS):
        return getattr(transformers, name, None) or found
    if found is None and name in OVER_TORCH:
        from s2m3.agents.checkpoints.storage.torchvision_functions import class_over_torch  # noqa: PLC0415  # torch

        return class_over_torch(name)
    return found


def _open_clip_processor(opened: CheckpointPart, *, pillow: bool) -> Any:
    side = opened.value("model_cfg.vision_cfg.image_size")
    square = {"height": side, "width": side}
    settings: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": square}
    if opened.value("preprocess_cfg.resize_mode") == "squash":
        settings = {"size": square, "do_center_crop": False}
    if opened.value("preprocess_cfg.interpolation") == "bilinear":
        settings["resample"] = _BILINEAR
    given = {"image_mean": opened.value("preprocess_cfg.mean"), "image_std": opened.value("preprocess_cfg.std")}
    name, settings = "CLIPImageProcessor", settings | {k: v for k, v in given.items() if v is not None}
    return _made(opened, name, _image_processor_class(name, pillow=pillow), settings)


def read_tokenizer(opened: CheckpointPart) -> Any:
    """Returns the checkpoint's tokenizer.

    Raises:
        ModuleFailedError: It has none, or one that needs code of its own.
    """
    folder = opened.checkpoint.folder
    folder = folder / "tokenizer" if PIPELINE in opened.checkpoint.config else folder
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise ModuleFailedError(f"{folder.name} has no tokenizer that can be read: {error}"[:300]) from error


def token_limit(tokenizer: Any, config: Any) -> int:
    """Returns how many tokens of a text fit; of a dual encoder's configuration its text tower's counts."""
    config = getattr(config, "text_config", None) or config
    longest = int(tokenizer.model_max_length)
    has_limit = (getattr(config, "max_position_embeddings", None) or 0) > 0  # XLNet's is -1: none
    return min(longest, positions_of(config)) if has_limit else longest
