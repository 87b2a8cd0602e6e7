"""The two halves of a checkpoint's processor: pictures beside the vision part, texts beside the language model.

The processor's own class runs on either side, so that no family's prompt, tiles or picture tokens are written here. The
picture half has no tokenizer. The text half has no pictures: in the place of the image processor there is what the
picture half's gave, small numbers whole, pixels by their shape alone.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
import torch
import transformers
from jinja2 import TemplateError
from PIL import Image
from transformers import AutoTokenizer, BatchFeature
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.processing_utils import ProcessorMixin

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_image_processor, read_tokenizer
from s2m3.schemas.checkpoints.processors import processor_class_name
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["PictureHalf", "TextHalf", "build_processor"]

#: Numbers up to which a tensor of the image processor travels whole; larger ones are pixels.
_SMALL = 4_096
#: Largest number that describes a picture: pixels of a side, rows of patches, pictures.
_LARGEST = 100_000
#: Inputs of a network that are made of pixels, whatever their size.
_PIXELS = ("pixel_values", "pixel_attention_mask", "image_patches")
#: What constructors and calls of transformers raise for settings and inputs that do not fit.
_UNFIT = (TemplateError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, ImportError)


class _NoTokenizer:
    """What a processor's constructor asks of a tokenizer, where no text is ever tokenized."""

    def __init__(self) -> None:
        self.init_kwargs: dict[str, Any] = {}
        self.all_special_tokens: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.endswith("token"):
            return f"<{name}>"
        if name.endswith("token_id"):
            return 0
        raise AttributeError(name)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return [0] * len(tokens) if isinstance(tokens, list) else 0

    def encode(self, _text: str, **_how: Any) -> list[int]:
        return [0]

    def add_special_tokens(self, _tokens: Any) -> int:
        return 0

    def add_tokens(self, _tokens: Any) -> int:
        return 0


class _NoMedia(dict[str, Any]):
    """The place of a half that is never called, of videos or of sound: its settings, of which there are none."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _Recorder:
    """An image processor that keeps what its last call returned."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.result: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __call__(self, images: Any, **how: Any) -> Any:
        self.result = self._real(images, **how)
        return self.result


class _Replayed:
    """In the place of an image processor: what another node's gave."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.result: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def fetch_images(self, images: Any) -> Any:
        return images

    def __call__(self, _images: Any, **_how: Any) -> Any:
        return BatchFeature(dict(self.result))


class PictureHalf:
    """The processor without a tokenizer: pictures to what the vision part takes, and what the text half must know.

    Raises:
        ModuleFailedError: The folder has no processor that can be built.
    """

    def __init__(self, opened: CheckpointPart) -> None:
        self._processor = build_processor(opened, _NoTokenizer())
        self._recorder = _Recorder(self._processor.image_processor)
        self._processor.image_processor = self._recorder

    def __call__(self, pictures: Sequence[Image.Image]) -> tuple[Mapping[str, Any], dict[str, Value]]:
        """Returns the image processor's output, and its numbers for the text half as values that travel.

        Raises:
            BadInputError: The pictures cannot be prepared.
        """
        processor = self._processor
        try:
            given = processor._merge_kwargs(return_tensors="pt")  # noqa: SLF001  # no public way to them
            how = given["images_kwargs"]
            if type(processor)._process_images is ProcessorMixin._process_images:  # noqa: SLF001
                self._recorder([list(pictures)], **how)
            else:  # it has settings of its own for the image processor
                read = processor._process_images  # noqa: SLF001
                named = [name for name, asked in signature(read).parameters.items() if asked.kind != asked.VAR_KEYWORD]
                own = {name: given[name] for name in named if name in given}
                read([list(pictures)], **how, **own)
        except _UNFIT as error:
            raise BadInputError(f"the pictures cannot be prepared: {error}"[:200]) from error
        result = self._recorder.result
        return result, {name: _travelling(name, value) for name, value in result.items()}


class TextHalf:
    """The processor with its tokenizer: a question and what the picture half gave to what the language model takes.

    Args:
        opened: The part.
        prompt: How a question is put: `chat`, by the folder's chat template; `text`, the question itself, to which the
            processor adds what it needs; `picture`, no text at all; any other text: a template with `<image>` and
            `{text}`.

    Raises:
        ModuleFailedError: The folder has no processor that can be built, or no chat template where one is wanted.
    """

    def __init__(self, opened: CheckpointPart, prompt: str) -> None:
        self.tokenizer = read_tokenizer(opened)
        self._processor = build_processor(opened, self.tokenizer)
        self._replayed = _Replayed(self._processor.image_processor)
        self._processor.image_processor = self._replayed
        self._prompt = prompt
        if self._processor.chat_template is None:
            self._processor.chat_template = getattr(self.tokenizer, "chat_template", None)
        if prompt == "chat" and self._processor.chat_template is None:
            raise ModuleFailedError(f"{opened.checkpoint.folder.name} has no chat template")

    def __call__(self, messages: Sequence[Mapping[str, Any]], sizes: Mapping[str, Value]) -> dict[str, Any]:
        """Returns the language model's inputs, without anything that is made of pixels.

        Args:
            messages: The chat; a block of type `image` stands for each picture.
            sizes: What the picture half gave.

        Raises:
            BadInputError: The chat or the numbers do not fit the processor.
        """
        try:
            self._replayed.result = {str(name): _restored(value) for name, value in sizes.items()}
            found = self._processed(messages)
        except _UNFIT as error:
            raise BadInputError(f"the prompt cannot be made: {error}"[:300]) from error
        return {name: value for name, value in found.items() if not name.startswith(_PIXELS)}

    def _processed(self, messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        found: Mapping[str, Any]
        if self._prompt == "chat":
            found = self._processor.apply_chat_template(
                [{**message, "content": [_shown(block) for block in message["content"]]} for message in messages],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            return found
        blocks = [block for message in messages for block in message["content"]]
        pictures = [_shown(block)["image"] for block in blocks if block["type"] == "image"]
        if self._prompt == "picture":
            found = self._processor(images=pictures, return_tensors="pt")
            return found
        if len(messages) > 1:
            raise BadInputError("the model takes no chat: one text, without roles")
        question = "".join(block["text"] for block in blocks if block["type"] == "text")
        text = question if self._prompt == "text" else self._prompt.replace("{text}", question)
        found = self._processor(images=[pictures], text=[text], return_tensors="pt")
        return found


def _shown(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a block of a chat with something in the place of its picture, which is only counted."""
    return {**block, "image": Image.new("L", (1, 1))} if block["type"] == "image" else block


def build_processor(opened: CheckpointPart, tokenizer: Any) -> Any:
    """Returns the folder's processor, with the picture half of Pillow and nothing of videos or sound.

    Raises:
        ModuleFailedError: The folder has no processor that can be built.
    """
    folder = opened.checkpoint.folder
    name = processor_class_name(folder) or PROCESSOR_MAPPING_NAMES.get(str(opened.checkpoint.config.get("model_type")))
    found = _processor_class(str(name))
    if found is None:
        raise ModuleFailedError(f"{folder.name} does not say which processor it has")
    kind: Any = type(found.__name__, (found,), {"check_argument_for_proper_class": lambda *_: None})
    given = {"tokenizer": tokenizer, "image_processor": read_image_processor(opened)}
    try:
        settings, _ = kind.get_processor_dict(folder, local_files_only=True)
        halves = [given.get(half) or _further(opened, half, tokenizer) for half in kind.get_attributes()]
        return kind.from_args_and_dict(halves, settings)
    except (OSError, *_UNFIT) as error:
        raise ModuleFailedError(f"{folder.name}: {name} cannot be built: {error}"[:300]) from error


def _further(opened: CheckpointPart, half: str, tokenizer: Any) -> Any:
    """Returns a half that only some processors have: a second tokenizer, of its folder; nothing of videos or sound."""
    if "tokenizer" not in half or isinstance(tokenizer, _NoTokenizer):
        return tokenizer if "tokenizer" in half else _NoMedia()
    folder = opened.checkpoint.folder / half
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _processor_class(name: str) -> Any:
    """Returns a processor's class, None if transformers has none of that name.

    Some are hidden where torchvision is missing, for one function that Pillow's module of the same family has too.
    """
    found = getattr(transformers, name, None)
    if found is None or "torchvision" not in getattr(found, "_backends", ()):
        return _without_numerals(found)
    home = f"transformers.{transformers._class_to_module[name]}"  # noqa: SLF001  # where the hidden class is
    images = home.replace(".processing_", ".image_processing_")
    sys.modules[images] = import_module(home.replace(".processing_", ".image_processing_pil_"))
    try:
        return getattr(import_module(home), name)
    finally:
        del sys.modules[images]


def _without_numerals(processor_class: Any) -> Any:
    """Returns a processor's class, which is built without the package num2words where it is for videos alone."""
    home: Any = sys.modules.get(getattr(processor_class, "__module__", ""))
    if getattr(home, "num2words", str) is None:
        home.num2words = str  # its constructor only asks whether there is one
    return processor_class


def _travelling(name: str, value: Any) -> Value:
    """Returns a value of the image processor as it travels: a tensor of pixels is a map of its shape alone."""
    if isinstance(value, torch.Tensor):
        if name.startswith(_PIXELS) or value.numel() > _SMALL:
            return {"shape": list(value.shape)}
        return value.numpy()
    if isinstance(value, np.ndarray):
        return _travelling(name, torch.from_numpy(value))
    if isinstance(value, list | tuple):
        return [_travelling(name, item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Value) -> Any:
    """Returns what `_travelling` was given; pixels without memory, by their shape."""
    if isinstance(value, np.ndarray):
        if value.size > _SMALL or (np.abs(value) > _LARGEST).any():
            raise ValueError("numbers that no picture's sizes have")
        return torch.from_numpy(np.array(value))
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, dict) and value.keys() == {"shape"}:
        return torch.empty(()).expand([_bounded(length) for length in value["shape"]])
    return _bounded(value) if isinstance(value, int) else value


def _bounded(number: int) -> int:
    """Returns a size that a picture can have; numbers of another node decide how long a prompt becomes."""
    if not -_LARGEST <= number <= _LARGEST:
        raise ValueError(f"{number} is no size of a picture")
    return number
