"""Whisper's two classes on exported networks. Each text has its own keys and values, and none shares a batch."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from s2m3.agents.media.log_mel import LogMel
from s2m3.agents.modules.kv_cache import KVCacheSize
from s2m3.agents.modules.ports import read_config, tensor_port
from s2m3.agents.modules.ranking import Floats, softmax
from s2m3.agents.modules.sequences import DecodedSequence, Stop
from s2m3.agents.modules.text_writer import TextWriter
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Array, Network
from s2m3.agents.runtimes.onnx import exported_network
from s2m3.agents.serving.module import MANY
from s2m3.agents.zoo.speech import NO_SPEECH_ABOVE, STATES, Marks, SpeechDecoderConfig, SpeechEncoder
from s2m3.agents.zoo.voice_activity import VoiceActivity
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["ExportedSpeechDecoder", "load_exported_decoder", "load_exported_encoder"]


#: Options of a request that only torch's decoder follows: the requester then asks a node that has torch.
_ONLY_TORCH = ("format", "top_k", "top_p", "min_p")


@dataclass(slots=True)
class _Text:
    """Keys and values of one text: its own, and those of what was heard."""

    own: dict[str, Array]
    crossing: dict[str, Array]
    length: int = 0


class _Texts:
    """The texts that one decoder is saying.

    Args:
        network: One step of one text.
        stop: When texts end, and what is never in them.
        shape: `layers`, `heads` and `width` of the decoder.
    """

    def __init__(self, network: Network, stop: Stop, shape: Mapping[str, int]) -> None:
        self._network, self._stop = network, stop
        self._names = [f"{kind}_{number}" for number in range(shape["layers"]) for kind in ("key", "value")]
        self._empty = np.zeros((1, shape["heads"], 0, shape["width"] // shape["heads"]), np.float32)
        self._texts: dict[DecodedSequence, _Text] = {}

    def heard(self, crossing: Sequence[Array]) -> _Text:
        """Returns a text without a token, of what was heard."""
        crossed = {f"crossing_{name}": array for name, array in zip(self._names, crossing, strict=True)}
        return _Text(dict.fromkeys(self._names, self._empty), crossed)

    def read(self, text: _Text, token: int) -> Floats:
        """Reads one token; returns the logits behind it, (vocabulary)."""
        ids, at = np.array([[token]]), np.array([[text.length]])
        logits, *kept = self._network(input_ids=ids, position_ids=at, **text.own, **text.crossing)
        text.own, text.length = dict(zip(self._names, kept, strict=True)), text.length + 1
        found: Floats = logits[0]
        return found

    def begin(self, row: DecodedSequence, text: _Text, logits: Floats) -> None:
        """Says the first token of a text whose prompt was read."""
        self._texts[row] = text
        self._say(row, logits, first=True)

    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each."""
        for row in rows:
            self._say(row, self.read(self._texts[row], row.last))

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts."""
        for row in rows:
            self._texts.pop(row, None)

    def _say(self, row: DecodedSequence, logits: Floats, *, first: bool = False) -> None:
        scores = logits.copy()
        scores[self._stop.never] = -np.inf
        if first:
            scores[self._stop.never_first] = -np.inf
        row.last = _drawn(scores, row) if row.temperature > 0 else int(scores.argmax())
        row.ended = row.last in self._stop.ends
        if not row.ended:
            row.tokens.append(row.last)


def _drawn(scores: Floats, row: DecodedSequence) -> int:
    """Draws a token with the text's own random numbers."""
    scaled = scores.astype(np.float64) / row.temperature
    reached = np.exp(scaled - scaled.max()).cumsum()
    at = int(np.searchsorted(reached, row.draw.random() * reached[-1], side="right"))
    return min(at, len(scores) - 1)


class ExportedSpeechDecoder(TextWriter[Floats]):
    """Class `whisper-decoder` as whisper.py has it: `hidden` (1, 1500, width) to `text`, and `language` if several."""

    #: Texts are written one after another: a batch gains nothing but a fair share.
    max_batch = 8
    prepares_at_once = MANY

    def __init__(self, crossing: Network, texts: _Texts, marks: Marks, width: int, **given: Any) -> None:
        super().__init__(texts, **given)
        self._crossing, self._says, self._marks, self._width = crossing, texts, marks, width

    def prepare(self, inputs: Mapping[str, Value]) -> Floats:
        """Returns the item's hidden states."""
        return tensor_port(inputs, "hidden", (1, STATES, self._width))

    def _sizes(self, prepared: Floats) -> tuple[int, int]:
        return self._marks.prompt, prepared.shape[1]

    def begin(self, prepared: Floats, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token; where nobody speaks, the text ends before it."""
        if unread := [name for name in _ONLY_TORCH if getattr(options, name) is not None]:
            raise ModuleFailedError(f"the option {unread[0]} is read where torch runs the decoder")
        marks = self._marks
        row = DecodedSequence(options, random.Random(options.seed))  # noqa: S311  # keeps no secret
        row.temperature = options.temperature or 0.0
        row.outputs = {"language": ""} if marks.languages else {}
        if not prepared.any():
            row.ended = True
            return row
        text = self._says.heard(self._crossing(hidden=prepared))
        logits = self._says.read(text, marks.start)
        if float(softmax(logits)[marks.no_speech]) > NO_SPEECH_ABOVE:
            row.ended = True
            return row
        prompt = [*marks.behind]
        if marks.languages:
            language = max(marks.languages, key=lambda token: float(logits[token]))
            row.outputs = {"language": marks.languages[language]}
            prompt.insert(0, language)
        for token in prompt:
            logits = self._says.read(text, token)
        self._says.begin(row, text, logits)
        return row


def load_exported_encoder(part: ExportedPart) -> SpeechEncoder:
    """Builds class `whisper-encoder` on exported networks.

    Raises:
        ModuleFailedError: A file is missing or cannot be run.
    """
    path = part.file("filters.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            filters = file["filters"]
    except (OSError, ValueError, KeyError) as error:
        raise ModuleFailedError(f"{path.name} of {part.spec.id} cannot be read: {error}"[:300]) from error
    voice = VoiceActivity(exported_network(part, "voice.onnx")) if (part.folder / "voice.onnx").is_file() else None
    return SpeechEncoder(exported_network(part, "model.onnx"), LogMel(filters), part.note("width"), voice)


def load_exported_decoder(part: ExportedPart) -> ExportedSpeechDecoder:
    """Builds class `whisper-decoder` on exported networks.

    Raises:
        ModuleFailedError: A file is missing or cannot be run.
    """
    config = read_config(part.spec, SpeechDecoderConfig)
    said = part.note("marks")
    languages = {int(token): code for token, code in said["languages"].items()}
    marks = Marks(**{**said, "behind": tuple(said["behind"]), "languages": languages})
    stop = Stop(frozenset({marks.end}), part.note("never"), part.note("never_first"))
    step, crossing = exported_network(part, "model.onnx"), exported_network(part, "crossing.onnx")
    return ExportedSpeechDecoder(
        crossing,
        _Texts(step, stop, part.note("shape")),
        marks,
        part.note("shape")["width"],
        tokenizer=Tokenizer.from_file(str(part.file("tokenizer.json"))),
        cache_size=KVCacheSize(**part.note("cache")),
        usual_tokens=config.max_new_tokens,
        cache_bytes=int(part.spec.cache_mb * 1e6),
        nbytes=step.nbytes + crossing.nbytes,
    )
