"""Which processor a checkpoint's folder names: of pictures and text together. Reads its JSON files alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.headers import read_json
from s2m3.schemas.errors import BadInputError

__all__ = ["NO_PILLOW", "has_chat_template", "json_object", "processor_class_name"]

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
#: Image processors that transformers 5.23 has without a variant that reads with Pillow.
NO_PILLOW = frozenset(
    {
        "CHMv2ImageProcessor",
        "Cohere2VisionImageProcessor",
        "DepthProImageProcessor",
        "DINOv3ViTImageProcessor",
        "Emu3ImageProcessor",
        "Gemma4UnifiedImageProcessor",
        "GlmImageProcessor",
        "InklingImageProcessor",
        "Inkling2ImageProcessor",
        "Kimi_K25ImageProcessor",
        "Lfm2VlImageProcessor",
        "Llama4ImageProcessor",
        "MiniCPMOcrImageProcessor",
        "MiniMaxM3VLImageProcessor",
        "Molmo2ImageProcessor",
        "MuseGlimmerImageProcessor",
        "NemotronH_Omni_Reasoning_V3ImageProcessor",
        "NeoMMEImageProcessor",
        "PerceptionLMImageProcessor",
        "Phi4MultimodalImageProcessor",
        "PI0ImageProcessor",
        "PPDocLayoutV2ImageProcessor",
        "PPDocLayoutV3ImageProcessor",
        "PPDocLayoutV4ImageProcessor",
        "PPFormulaNetImageProcessor",
        "PPLCNetImageProcessor",
        "PPOCRV5ServerDetImageProcessor",
        "PPOCRV5ServerRecImageProcessor",
        "PPOCRV6SmallRecImageProcessor",
        "RfDetrImageProcessor",
        "Sam2ImageProcessor",
        "Sam3ImageProcessor",
        "Sapiens2ImageProcessor",
        "SLANeXtImageProcessor",
        "Step3p7ImageProcessor",
        "TimmWrapperImageProcessor",
        "Tipsv2ImageProcessor",
        "Tipsv2DptImageProcessor",
        "UltraVBertImageProcessor",
        "UnlimitedOcrImageProcessor",
        "UVDocImageProcessor",
        "VideoLlavaImageProcessor",
        "VivitImageProcessor",
    }
)
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def json_object(path: Path) -> Mapping[str, Any]:
    """Returns a JSON file's object; an empty one if there is no such file, or none that can be read."""
    try:
        return read_json(path) if path.is_file() else {}
    except BadInputError:
        return {}


def processor_class_name(folder: Path) -> str | None:
    """Returns the class of the folder's processor, in the order in which transformers looks for it; None if unsaid."""
    names = (json_object(folder / file).get("processor_class") for file in _PROCESSOR_FILES)
    return next((str(name) for name in names if name), None)


def has_chat_template(folder: Path) -> bool:
    """Returns whether a folder has a chat template: a file of its own, or one in a configuration."""
    if any((folder / name).is_file() for name in _TEMPLATE_FILES):
        return True
    return any(json_object(folder / name).get("chat_template") for name in _PROCESSOR_FILES)
