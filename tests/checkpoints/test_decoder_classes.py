"""VisionEncoderDecoder checkpoints with each kind of decoder: texts that overlap are those that `generate` writes."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as t
from PIL import Image

from s2m3.agents.checkpoints.generation.text_generator import TextGenerator
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.wire.generation import NO_OPTIONS
from tests.checkpoints import whole
from tests.checkpoints.inprocess import loaded, run_module
from tests.checkpoints.tiny import BOS, EOS, PAD, SIZE, pictures, save, tokenizer


def _picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(shade).integers(0, shade, (32, 32, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


PICTURES = [_picture(shade) for shade in (2, 60, 120, 250)]
LONG = 10
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_MARKS = {"vocab_size": SIZE, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_AS_DECODER = {"is_decoder": True, "add_cross_attention": True, "max_position_embeddings": 40}
_LAYERS = {"d_model": 48, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: t.GPT2Config(n_embd=48, n_layer=2, n_head=4, is_decoder=True, add_cross_attention=True, **_MARKS),
    "bert": lambda: t.BertConfig(**_TOWER, **_MARKS, **_AS_DECODER),
    "roberta": lambda: t.RobertaConfig(**_TOWER, **_MARKS, **_AS_DECODER),
    "xlm-roberta": lambda: t.XLMRobertaConfig(**_TOWER, **_MARKS, **_AS_DECODER),
    "trocr": lambda: t.TrOCRConfig(**_LAYERS, **_MARKS, **_AS_DECODER),
    "bart": lambda: t.BartConfig(**_LAYERS, **_MARKS, **_AS_DECODER),
    "mbart": lambda: t.MBartConfig(**_LAYERS, **_MARKS, **_AS_DECODER),
}


@cache
def _made(root: Path, kind: str) -> Path:
    tower = t.ViTConfig(**_TOWER, image_size=32, patch_size=8)
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(tower, CONFIGS[kind]())
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = BOS, PAD, EOS
    network = t.VisionEncoderDecoderModel(config)
    network.generation_config = t.GenerationConfig(
        decoder_start_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, max_new_tokens=LONG, min_new_tokens=6,
        repetition_penalty=2.0,
    )  # fmt: skip
    save(network, root / kind, writer=0.6)
    tokenizer(root / kind)
    pictures(root / kind, "ViTImageProcessorPil")
    return root / kind


@pytest.mark.parametrize("kind", CONFIGS)
def test_captions_that_overlap_are_those_of_the_whole_model(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    folder = _made(tmp_path_factory.mktemp("captioners"), kind)
    encoder, decoder = (loaded(folder.parent, spec) for spec in definition_of(read_checkpoint(folder), kind).modules)
    assert isinstance(decoder, TextGenerator)
    network, expected, rows = whole.network(folder), [], []
    for picture in PICTURES:  # each begins a step after the one before
        ids = network.generate(whole.pixels(folder, picture), do_sample=False, num_beams=1)[0]
        expected.append(whole.said(folder, ids))
        prepared = decoder.prepare(run_module(encoder, {"image": picture}, "hidden"))
        rows.append(decoder.begin(prepared, NO_OPTIONS))
        decoder.advance([row for row in rows if not row.ended])
    while going := [row for row in rows if not row.ended and len(row.tokens) < LONG]:
        decoder.drop([row for row in rows if row not in going])
        decoder.advance(going)
    assert [decoder.text(row.tokens[:LONG]) for row in rows] == expected
    assert len(set(expected)) > 1
