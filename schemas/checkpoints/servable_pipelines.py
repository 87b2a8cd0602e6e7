"""Whether a pipeline in diffusers' format can be served: reads its configurations, no weights."""

from collections.abc import Mapping
from typing import Any

from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.checkpoints.headers import Checkpoint
from s2m3.schemas.checkpoints.pipelines import pipeline_of

__all__ = ["not_run", "why_no_pipeline"]

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
    return _why(components) if components else None


def _why(components: Mapping[str, Mapping[str, Any]]) -> str | None:
    for name, wanted in _CLASSES.items():
        if (found := components.get(name, {}).get("class")) != wanted:
            return f"has {f'the class {found[:60]}' if found else 'nothing'} as {name}; {wanted} is served"
        if components[name]["config"].get("quantization_config"):
            return f"has a quantised {name}, which is not read: take the original"
    settings = {name: component["config"] for name, component in components.items()}
    scheduler = components.get("scheduler", {}).get("class")
    if scheduler not in _SCHEDULERS or settings["scheduler"].get("use_beta_sigmas"):
        beta = " with use_beta_sigmas" if scheduler in _SCHEDULERS else ""
        return f"has the scheduler {str(scheduler)[:60]}{beta}, which is not served"
    unet, vae = settings["unet"], settings["vae"]
    if more := next((key for key in _MORE_INPUTS if unet.get(key) is not None), None):
        return f"has a denoiser that is told more than a text ({more}={str(unet[more])[:40]}), which is not served"
    if (takes := unet.get("in_channels", 4)) != (gives := vae.get("latent_channels", 4)):
        return f"has a denoiser of {takes} channels and latents of {gives}: it is no plain text to picture"
    if settings["text_encoder"].get("use_attention_mask"):
        return "masks the padding of its texts (use_attention_mask), which is not served"
    if not isinstance(vae.get("block_out_channels"), list):
        return "does not say how large its pictures are: no block_out_channels in the vae's config.json"
    return None


def not_run(checkpoint: Checkpoint) -> str | None:
    """Returns the component of a pipeline that is no part of what is served and that its pictures would pass."""
    return "safety_checker" if "safety_checker" in pipeline_of(checkpoint.config) else None
