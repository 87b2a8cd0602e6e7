"""Whether a pipeline in diffusers' format can be served: reads its configurations, no weights."""

from collections.abc import Mapping
from typing import Any

from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.checkpoints.headers import Checkpoint
from s2m3.schemas.checkpoints.pipelines import pipeline_of

__all__ = ["not_run", "why_no_pipeline"]

Components = Mapping[str, Mapping[str, Any]]
#: Component -> the class that the pipeline's parts are built of.
_CLASSES = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
#: Schedulers that diffusers itself takes for this pipeline and that need no further package.
_SCHEDULERS = frozenset(
    {
        "DDIMScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    }
)
#: Settings of the denoiser with which it needs more than latents, time and text.
_MORE_INPUTS = ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim_type")


def why_no_pipeline(checkpoint: Checkpoint, _family: Architecture) -> str | None:
    """Returns why a pipeline cannot be served, as what follows its name in a sentence; None if it can, or is none."""
    components = pipeline_of(checkpoint.config)
    if not components:
        return None
    checks = (_classes, _scheduler, _denoiser, _texts, _decoder)
    return next((why for check in checks if (why := check(components)) is not None), None)


def _classes(components: Components) -> str | None:
    for name, wanted in _CLASSES.items():
        component = components.get(name, {"class": "nothing", "config": {}})
        if (found := component["class"]) != wanted:
            return f"has {found[:60]} as {name}; {wanted} is served"
        if component["config"].get("quantization_config"):
            return f"has a quantised {name}, which is not read: take the original"
    return None


def _scheduler(components: Components) -> str | None:
    found = components.get("scheduler", {"class": "nothing", "config": {}})
    if found["class"] not in _SCHEDULERS:
        return f"has {found['class'][:60]} as scheduler, which is not served"
    beta = found["config"].get("use_beta_sigmas")
    return "has a scheduler with use_beta_sigmas, which needs the package scipy: that is not served" if beta else None


def _denoiser(components: Components) -> str | None:
    unet, vae = components["unet"]["config"], components["vae"]["config"]
    if more := next((key for key in _MORE_INPUTS if unet.get(key) is not None), None):
        return f"has a denoiser that is told more than a text ({more}={str(unet[more])[:40]}), which is not served"
    takes, gives = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    more = f"has a denoiser of {takes} channels and latents of {gives}: it takes more than noise, which is not served"
    return more if takes != gives else None


def _texts(components: Components) -> str | None:
    masks = components["text_encoder"]["config"].get("use_attention_mask")
    return "masks the padding of its texts (use_attention_mask), which is not served" if masks else None


def _decoder(components: Components) -> str | None:
    is_said = isinstance(components["vae"]["config"].get("block_out_channels"), list)
    return None if is_said else "does not say how large its pictures are (block_out_channels of the vae)"


def not_run(checkpoint: Checkpoint) -> str | None:
    """Returns the component of a pipeline that is no part of what is served and that its pictures would pass."""
    return "safety_checker" if "safety_checker" in pipeline_of(checkpoint.config) else None
