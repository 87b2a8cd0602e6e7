"""What of class `speech-recognizer` is exported: networks over samples, with a CTC head. Needs torch."""

from typing import Any

import numpy as np

from s2m3.agents.checkpoints.exported.networks import output_network, samples
from s2m3.agents.checkpoints.exported.sound_modules import HearingSettings, SpellingSettings
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.networks.outputs import Asked
from s2m3.agents.checkpoints.sounds.features import heard
from s2m3.agents.checkpoints.sounds.speech_recognizer import SpeechRecognizer
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_extractor, read_tokenizer
from s2m3.agents.media.sounds import decode_sound
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["export_recognizer"]

_EXTRACTOR, _TOKENIZER = "Wav2Vec2FeatureExtractor", "Wav2Vec2CTCTokenizer"
_SOUNDS = ("quick-brown-fox.flac", "hello-world.flac", "guten-abend.flac")
#: Token ids, written by chance, on which both ways of spelling are compared.
_SPELLED, _LENGTH = 20, 60


def export_recognizer(opened: CheckpointPart) -> tuple[SpeechRecognizer, Export]:
    """Returns a part of class `speech-recognizer`, run by torch, and what goes into its exported part.

    Raises:
        ModuleFailedError: Weights, feature extractor or tokenizer do not fit, or are of a kind that is not exported.
    """
    network, extractor, tokenizer = build_network(opened), read_extractor(opened), read_tokenizer(opened)
    hearing, spelling = _hearing(network, extractor), _spelling(tokenizer)
    inputs = []
    for data in samples(*_SOUNDS):
        found = hearing(decode_sound(data, hearing.rate))
        if not np.array_equal(found, heard(network, extractor, {"audio": data})["input_values"].numpy()):
            raise ModuleFailedError(f"what {_EXTRACTOR} makes of a sound cannot be made without transformers")
        inputs.append({"input_values": found})
    logits = output_network(network, ["input_values"], {"logits": Asked("logits", None, 0)})
    notes = {"hearing": hearing.model_dump(mode="json"), "spelling": spelling.model_dump(mode="json")}
    items = [{"audio": data} for data in samples(*_SOUNDS)]
    exported = {"model": ExportedNetwork(logits, inputs, {"input_values": [1]})}
    return SpeechRecognizer(network, extractor, tokenizer), Export(exported, {}, notes, items, frozenset({"text"}))


def _hearing(network: Any, extractor: Any) -> HearingSettings:
    kind, config = type(extractor).__name__, network.config
    if kind != _EXTRACTOR or network.main_input_name != "input_values":
        raise ModuleFailedError(f"its feature extractor, {kind}, does more than normalise samples")
    layers = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
    return HearingSettings(rate=extractor.sampling_rate, normalised=bool(extractor.do_normalize), layers=layers)


def _spelling(tokenizer: Any) -> SpellingSettings:
    kind = type(tokenizer).__name__
    if kind != _TOKENIZER or tokenizer.clean_up_tokenization_spaces:
        raise ModuleFailedError(f"its tokenizer, {kind}, does more than join tokens")
    count = max(tokenizer.get_vocab().values()) + 1
    tokens = tokenizer.convert_ids_to_tokens(list(range(count)))
    found = SpellingSettings(
        tokens=tuple(tokens),
        blank=tokenizer.pad_token,
        delimiter=tokenizer.word_delimiter_token,
        delimiter_text=tokenizer.replace_word_delimiter_char,
        lowers=bool(tokenizer.do_lower_case),
    )
    chance = np.random.default_rng(0)
    for _ in range(_SPELLED):
        ids = np.repeat(chance.integers(0, count, _LENGTH), chance.integers(1, 3, _LENGTH)).tolist()
        if found(ids) != tokenizer.decode(ids, skip_special_tokens=False):
            raise ModuleFailedError(f"what {_TOKENIZER} writes cannot be written without transformers")
    return found
