"""The rows of text to picture: Stable Diffusion in diffusers' format."""

import io
from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers as d
import torch
import transformers as t

from tests.families.dual import clip_words
from tests.families.family import Family
from tests.families.speech import randomised

__all__ = ["PICTURE", "make_stable_diffusion"]

_STEPS = 4
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def make_stable_diffusion(folder: Path, scheduler: str = "PNDMScheduler", **how: Any) -> None:
    """Writes a tiny StableDiffusionPipeline; `how` is the scheduler's."""
    d.utils.logging.set_verbosity_error()
    words, begin, end = clip_words(folder / "tokenizer", 40)
    text = t.CLIPTextConfig(
        **_TOWER, vocab_size=words, max_position_embeddings=40, bos_token_id=begin, eos_token_id=end, pad_token_id=end
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        denoiser = d.UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=4,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        decoder = d.AutoencoderKL(
            block_out_channels=(16, 32), norm_num_groups=8, sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
    pipeline = d.StableDiffusionPipeline(
        vae=decoder, text_encoder=t.CLIPTextModel(text), unet=denoiser,
        tokenizer=t.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=getattr(d, scheduler)(**_SCHEDULE, **how),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    randomised(pipeline.text_encoder, folder / "text_encoder")
    for network, place in ((denoiser, "unet"), (decoder, "vae")):
        randomised(network, folder / place, deviation=0.1)


@cache
def _pipeline(folder: Path) -> Any:
    pipeline = d.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _painted(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """diffusers' pipeline on the whole folder, as its card uses it: a seed, a text, perhaps a negative one."""
    prompt, negative = (inputs["text"], None) if isinstance(inputs["text"], str) else inputs["text"]
    generator = torch.Generator("cpu").manual_seed(inputs["options"]["seed"])
    picture = _pipeline(folder)(
        prompt, negative_prompt=negative, generator=generator, num_inference_steps=_STEPS, guidance_scale=5.0
    ).images[0]
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"image": file.getvalue()}


_ASKS = [
    {"text": "a cat on the moon", "options": {"seed": 0}},
    {"text": "a cat on the moon", "options": {"seed": 8}},
    {"text": ["two dogs", "a very wide and quiet lake"], "options": {"seed": 8}},
    {"text": "a picture of " + "many " * 40 + "things", "options": {"seed": 8}},
]


def _row(name: str, scheduler: str, **how: Any) -> Family:
    make = partial(make_stable_diffusion, scheduler=scheduler, **how)
    return Family(name, "picture", make, _ASKS, _painted, (f"steps={_STEPS}", "guidance=5.0"))


PICTURE = [
    _row("stable-diffusion", "PNDMScheduler", skip_prk_steps=True, set_alpha_to_one=False),
    _row("stable-diffusion-v", "DDIMScheduler", prediction_type="v_prediction", clip_sample=False),
    _row("stable-diffusion-euler", "EulerAncestralDiscreteScheduler"),
]
