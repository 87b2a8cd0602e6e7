"""Classes `image-denoiser` and `latent-decoder`: a text's hidden states to a picture, as diffusers' own pipeline does.

The denoiser is diffusers' StableDiffusionPipeline without the text encoder and the picture decoder: its scheduler,
steps and guidance are the pipeline's own code.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from pydantic import Field

from s2m3.agents.checkpoints.networks.diffusion import build_component, made_of
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.ports import Config, read_config, tensor_port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.checkpoints.pipelines import pipeline_of
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.generation import NO_OPTIONS, Options
from s2m3.schemas.wire.values import Tensor, Value

__all__ = ["DenoiserConfig", "ImageDenoiser", "LatentDecoder", "load_image_denoiser", "load_latent_decoder"]

_PROMPTS = 2


class DenoiserConfig(Config):
    """The steps of the scheduler, and how closely the picture follows the text: the pipeline's own defaults."""

    steps: int = Field(default=50, ge=1, le=1_000)
    guidance: float = Field(default=7.5, ge=0, le=100)


@dataclass(frozen=True)
class _Item:
    """Hidden states of the prompt and the negative prompt, (2, tokens, width), and the seed of the noise."""

    hidden: Tensor
    seed: int


class ImageDenoiser:
    """`hidden` to `latents`, (1, channels, height, width): what the decoder makes a picture of.

    Of a request's options the seed counts: the latents are those of the pipeline with
    `torch.Generator("cpu").manual_seed(seed)`. Between two steps the deadline is looked at.

    Args:
        pipeline: diffusers' pipeline, of a denoiser and a scheduler alone.
        config: Steps and guidance.
    """

    light = False
    #: A forward pass of a picture, twice with guidance, takes a processor as it is.
    max_batch = 1

    def __init__(self, pipeline: Any, config: DenoiserConfig) -> None:
        self._pipeline = pipeline
        self._config = config
        self.nbytes = nbytes_of(pipeline.unet)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item with the seed 0."""
        return self.prepare_with(inputs, NO_OPTIONS)

    def prepare_with(self, inputs: Mapping[str, Value], options: Options) -> _Item:
        """Returns the item with the seed of its request.

        Raises:
            BadInputError: The hidden states are of another width than the denoiser's.
        """
        width = self._pipeline.unet.config.cross_attention_dim
        return _Item(tensor_port(inputs, "hidden", (_PROMPTS, None, width)), options.seed or 0)

    @torch.inference_mode()
    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [{"latents": self._latents(item)} if "latents" in wanted else {} for item in batch]

    def _latents(self, item: _Item) -> Any:
        hidden = torch.from_numpy(np.array(item.hidden)).to(self._pipeline.unet.dtype)
        found = self._pipeline(
            prompt_embeds=hidden[:1],
            negative_prompt_embeds=hidden[1:],
            num_inference_steps=self._config.steps,
            guidance_scale=self._config.guidance,
            generator=torch.Generator("cpu").manual_seed(item.seed),
            output_type="latent",
            callback_on_step_end=_after_step,
        )
        return found.images.float().numpy()


def _after_step(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
    between_slices()
    return values


class LatentDecoder:
    """`latents` to `image`: a PNG.

    Args:
        network: diffusers' AutoencoderKL without its encoder.
    """

    light = False
    max_batch = 1

    def __init__(self, network: Any) -> None:
        self._network = network
        self._pictures = VaeImageProcessor()
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> torch.Tensor:
        """Returns the latents, (1, channels, height, width).

        Raises:
            BadInputError: They are of another shape, or not finite.
        """
        latents = tensor_port(inputs, "latents", (1, self._network.config.latent_channels, None, None))
        return torch.from_numpy(np.array(latents)).to(self._network.dtype)

    @torch.inference_mode()
    def run(self, batch: Sequence[torch.Tensor], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [{"image": self._picture(latents)} if "image" in wanted else {} for latents in batch]

    def _picture(self, latents: torch.Tensor) -> bytes:
        decoded = self._network.decode(latents / self._network.config.scaling_factor, return_dict=False)[0]
        file = io.BytesIO()
        self._pictures.postprocess(decoded, output_type="pil", do_denormalize=[True])[0].save(file, "PNG")
        return file.getvalue()


def load_image_denoiser(opened: CheckpointPart) -> ImageDenoiser:
    """Builds class `image-denoiser`.

    Raises:
        ModuleFailedError: Weights or scheduler do not fit, or the scheduler does not have so many steps.
    """
    config = read_config(opened.spec, DenoiserConfig)
    components = pipeline_of(opened.checkpoint.config)
    scheduler = made_of(opened, components["scheduler"]["class"], components["scheduler"]["config"])
    try:
        scheduler.set_timesteps(config.steps)
    except (ValueError, IndexError) as error:
        raise ModuleFailedError(f"module {opened.spec.id}: config.steps: {config.steps}: {error}"[:300]) from error
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=build_component(opened),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.vae_scale_factor = 2 ** (len(components["vae"]["config"]["block_out_channels"]) - 1)
    pipeline.set_progress_bar_config(disable=True)
    return ImageDenoiser(pipeline, config)


def load_latent_decoder(opened: CheckpointPart) -> LatentDecoder:
    """Builds class `latent-decoder`.

    Raises:
        ModuleFailedError: Weights do not fit; the text names them.
    """
    read_config(opened.spec, Config)
    return LatentDecoder(build_component(opened))
