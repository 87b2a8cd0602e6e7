"""Modules in another dtype: smaller, near the float32 ones, and the same to whoever gives and takes."""

import numpy as np
import pytest

from s2m3.agents.checkpoints.distance import Distance, distance
from s2m3.agents.registry import load
from s2m3.agents.serving.rounding import rounded
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.specs import ModuleSpec
from tests.zoo.inprocess import loaded, run_module
from tests.zoo.samples import sample

HALVES: tuple[Dtype, ...] = ("bfloat16", "float16")
FOX = "The quick brown fox jumps over the lazy dog."


def spec_in(module_id: str, dtype: Dtype) -> ModuleSpec:
    return shipped_catalogue().modules[module_id].model_copy(update={"dtype": dtype})


@pytest.mark.parametrize("dtype", [*HALVES, "int8"])
def test_a_text_encoder_in_another_dtype_is_smaller_and_near(dtype: Dtype) -> None:
    reference, other = loaded("minilm"), load(spec_in("minilm", dtype))
    found = distance(reference, other, [{"text": ["a cat", "a dog on a mat"]}], ["embedding", "text"])
    assert other.nbytes / 1e6 == pytest.approx(spec_in("minilm", dtype).weights_mb(dtype), rel=0.03)
    assert found["embedding"].cosine is not None
    assert 0.999 < found["embedding"].cosine < 1.0
    assert found["text"] == Distance(None, None, 1.0)
    given = other.run([other.prepare({"text": "a cat"})], frozenset({"embedding"}))[0]["embedding"]
    assert given.dtype == np.float32


def test_half_precision_takes_half_the_bytes() -> None:
    assert load(spec_in("efficientnet-lite0", "bfloat16")).nbytes * 2 == loaded("efficientnet-lite0").nbytes


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_decoder_in_another_dtype_writes_the_same_words(dtype: Dtype) -> None:
    item = run_module("whisper-tiny-en-encoder", {"audio": sample("quick-brown-fox.flac")}, "hidden")
    decoder = load(spec_in("whisper-tiny-en-decoder", dtype))
    assert decoder.run([decoder.prepare(item)], frozenset({"text"}))[0]["text"] == FOX
    assert decoder.nbytes / 1e6 == pytest.approx(spec_in("whisper-tiny-en-decoder", dtype).weights_mb(dtype), rel=0.03)


def test_hidden_states_that_are_rounded_for_a_slow_link_give_the_same_words() -> None:
    item = run_module("whisper-tiny-en-encoder", {"audio": sample("quick-brown-fox.flac")}, "hidden")
    sent = rounded(item, 0.0005)["hidden"]
    distance_of_largest = np.abs(sent - item["hidden"]).max() / np.abs(item["hidden"]).max()
    assert (sent.nbytes * 2, distance_of_largest < 0.0005) == (item["hidden"].nbytes, True)
    assert run_module("whisper-tiny-en-decoder", {"hidden": sent.astype(np.float32)}, "text")["text"] == FOX


def test_a_dtype_in_the_definition_makes_another_module_and_the_agents_choice_does_not() -> None:
    plain = shipped_catalogue().modules["minilm"]
    assert plain.dtype is None
    assert len({plain.identity, spec_in("minilm", "int8").identity, spec_in("minilm", "bfloat16").identity}) == 3


def test_a_dtype_is_written_long_or_short() -> None:
    table = shipped_catalogue().modules["minilm"].model_dump(by_alias=True)
    assert ModuleSpec.model_validate({**table, "dtype": "bf16"}).dtype == "bfloat16"
    with pytest.raises(ValueError, match="int8"):
        ModuleSpec.model_validate({**table, "dtype": "int4"})


def test_a_distance_needs_something_to_compare() -> None:
    with pytest.raises(BadInputError):
        distance(loaded("minilm"), loaded("minilm"), [], ["embedding"])
