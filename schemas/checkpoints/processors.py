"""Which processor a checkpoint's folder names: of pictures and text together. Reads its JSON files alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.headers import read_json
from s2m3.schemas.errors import BadInputError

__all__ = ["NO_PILLOW", "OVER_TORCH", "json_object", "processor_class_name", "read_chat_template"]

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
#: Of these, the ones that run over torch's own functions: agents/checkpoints/storage/torchvision_functions.py.
OVER_TORCH = frozenset(
    {
        "CHMv2ImageProcessor",
        "Cohere2VisionImageProcessor",
        "DepthProImageProcessor",
        "DINOv3ViTImageProcessor",
        "Emu3ImageProcessor",
        "Kimi_K25ImageProcessor",
        "Lfm2VlImageProcessor",
        "Llama4ImageProcessor",
        "MiniMaxM3VLImageProcessor",
        "Molmo2ImageProcessor",
        "NemotronH_Omni_Reasoning_V3ImageProcessor",
        "NeoMMEImageProcessor",
        "PerceptionLMImageProcessor",
        "Phi4MultimodalImageProcessor",
        "PI0ImageProcessor",
        "PPDocLayoutV2ImageProcessor",
        "PPOCRV5ServerRecImageProcessor",
        "PPOCRV6SmallRecImageProcessor",
        "RfDetrImageProcessor",
        "Sapiens2ImageProcessor",
        "SLANeXtImageProcessor",
        "Step3p7ImageProcessor",
        "Tipsv2ImageProcessor",
        "Tipsv2DptImageProcessor",
        "UnlimitedOcrImageProcessor",
        "UVDocImageProcessor",
        "VideoLlavaImageProcessor",
        "VivitImageProcessor",
    }
)


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


def read_chat_template(folder: Path) -> str | None:
    """Returns a folder's chat template, in the order in which transformers looks for it; None if there is none.

    Of several with names, the one named `default` is returned.
    """
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", *_PROCESSOR_FILES):
        found = json_object(folder / name).get("chat_template")
        if isinstance(found, list):  # as tokenizers save several
            found = {one.get("name"): one.get("template") for one in found if isinstance(one, Mapping)}
        template = found.get("default") if isinstance(found, Mapping) else found
        if isinstance(template, str):
            return template
    return None
