"""How long a text becomes: what generation_config.json, the network's positions and the cache allow."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers as t

from s2m3.agents.modules.kv_cache import kv_cache_size
from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.sizes import cache_mb, sizes_of, text_length
from tests.checkpoints import whole
from tests.checkpoints.inprocess import loaded, run_module
from tests.zoo.samples import sample

CAT, SOUND = sample("chelsea.jpg"), sample("quick-brown-fox.flac")
#: Published sizes of Whisper: layers, heads, width.
WHISPERS = {"tiny": (4, 6, 384), "base": (6, 8, 512), "large-v3": (32, 20, 1280), "turbo": (4, 20, 1280)}


def copied(tiny: Path, root: Path, name: str, **generation: Any) -> Path:
    """A tiny checkpoint whose texts do not end by themselves, with further keys of generation_config.json."""
    shutil.copytree(tiny / name, root / name)
    file = root / name / "generation_config.json"
    document = json.loads(file.read_text())
    ends = {"eos_token_id": 25, "begin_suppress_tokens": None, "suppress_tokens": [25]}
    file.write_text(json.dumps(document | ends | generation))
    return root / name


def written(folder: Path, **inputs: Any) -> dict[str, Any]:
    encoder, decoder = definition_of(read_checkpoint(folder), folder.name).modules
    hidden = run_module(loaded(folder.parent, encoder), inputs, "hidden")["hidden"]
    return run_module(loaded(folder.parent, decoder), {"hidden": hidden}, "text", "finished")


@pytest.mark.parametrize(
    ("generation", "tokens"),
    [({"max_new_tokens": 7}, 7), ({"max_length": 9}, 8), ({"max_new_tokens": 5, "max_length": 30}, 5)],
)
def test_a_caption_becomes_as_long_as_generation_config_says(
    tiny: Path, tmp_path: Path, generation: dict[str, int], tokens: int
) -> None:
    folder = copied(tiny, tmp_path, "tiny-vit-gpt2", **generation)
    ids = whole.network(folder).generate(whole.pixels(folder, CAT))[0]
    assert len(ids) == 1 + tokens
    assert written(folder, image=CAT) == {"text": whole.said(folder, ids), "finished": "length"}


@pytest.mark.parametrize(("generation", "tokens"), [({"max_length": 14}, 14), ({"max_length": 448}, 39), ({}, 39)])
def test_a_transcript_becomes_as_long_as_generation_config_and_positions_allow(
    tiny: Path, tmp_path: Path, generation: dict[str, int], tokens: int
) -> None:
    folder = copied(tiny, tmp_path, "tiny-whisper", **generation)
    how = {} if generation else {"max_new_tokens": 39}
    ids = whole.network(folder).generate(whole.sound(folder, SOUND).input_features, **how)[0]
    found = written(folder, audio=SOUND)
    assert found == {"text": whole.said(folder, ids), "finished": "length"}
    assert len(found["text"].split()) == tokens


def test_a_length_that_nobody_says_is_512_tokens_or_what_positions_leave() -> None:
    assert text_length({}).after(20) == 512
    assert text_length({"max_length": 100}).after(20) == 80
    assert text_length({"max_length": 100}, whisper=True).after(4) == 100
    assert text_length({"max_length": 131_072}).after(20) == 4096
    assert text_length({"max_length": 10}).after(20) == 1
    assert text_length({"max_new_tokens": 30, "max_length": 100}).after(20) == 30


@pytest.mark.parametrize("name", WHISPERS)
def test_the_cache_of_every_whisper_size_takes_a_text_that_fills_its_positions(name: str) -> None:
    layers, heads, width = WHISPERS[name]
    config = t.WhisperConfig(
        d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
        decoder_attention_heads=heads, architectures=["WhisperForConditionalGeneration"],
    )  # fmt: skip
    size = sizes_of(architecture_of(config.to_dict()), config.to_dict(), {"max_length": 448})["decoder"]
    assert size is not None
    need = kv_cache_size(config, 4).need_bytes(4, 1500, 444)
    assert need <= cache_mb(size.text_bytes, size.count.parameters * 4 / 1e6) * 1e6 <= 8 * need


@pytest.mark.parametrize("name", ["tiny-vit-gpt2", "tiny-blip", "tiny-blip-vqa", "tiny-llava", "tiny-whisper"])
def test_the_answer_of_every_generator_says_why_its_text_ended(tiny: Path, name: str) -> None:
    definition = definition_of(read_checkpoint(tiny / name), name)
    decoder = next(spec for spec in definition.modules if spec.role == "decoder")
    assert (definition.model.answer[0], definition.model.answer[-1]) == ("text", "finished")
    assert (decoder.generates, decoder.outputs["finished"]) == ("text", "text")
