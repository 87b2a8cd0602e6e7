"""Texts written together say what each says alone: whenever they begin and end, whatever they start from."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as t
from hypothesis import given, settings
from hypothesis import strategies as st

from s2m3.agents.modules.decoding import DecodedSequence, Decoding, Start, Stop
from s2m3.agents.modules.kv_cache import kv_cache_size
from s2m3.schemas.wire.generation import NO_OPTIONS, Options

VOCABULARY, WIDTH = 60, 32


def _randomised(network: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim():
                weight.normal_(0, 0.2, generator=generator)
    return network.eval().requires_grad_(requires_grad=False)


def _llama() -> Any:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return _randomised(t.LlamaForCausalLM(t.LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **sizes)))


def _gpt2() -> Any:
    sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return _randomised(t.GPT2LMHeadModel(t.GPT2Config(vocab_size=VOCABULARY, add_cross_attention=True, **sizes)))


def _blip() -> Any:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = t.BlipTextConfig(vocab_size=VOCABULARY, encoder_hidden_size=WIDTH, is_decoder=True, **sizes)
    return _randomised(t.models.blip.modeling_blip_text.BlipTextLMHeadModel(config))


def _whisper() -> Any:
    sizes = {"d_model": WIDTH, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    config = t.WhisperConfig(vocab_size=VOCABULARY, pad_token_id=0, max_target_positions=64, **sizes)
    return _randomised(t.WhisperForCausalLM(config))


NETWORKS = {"llama": _llama(), "gpt2": _gpt2(), "blip": _blip(), "whisper": _whisper()}


def _forward(network: Any) -> Callable[..., torch.Tensor]:
    def forward(states: torch.Tensor | None = None, **given: Any) -> torch.Tensor:
        if states is not None and isinstance(network, t.WhisperForCausalLM):
            given["encoder_outputs"] = (states,)
        elif states is not None:
            given["encoder_hidden_states"] = states
        logits: torch.Tensor = network(**given, use_cache=True).logits[:, -1]
        return logits

    return forward


def decoding(name: str) -> Decoding:
    return Decoding(_forward(NETWORKS[name]), Stop(frozenset({1, 2})))


def start(name: str, seed: int) -> Start:
    """A prompt of 1 to 6 tokens, and for those that cross-attend 4 or 5 states."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (1, 1 + seed % 6), generator=generator)
    return Start(ids=ids, states=None if name == "llama" else torch.randn(1, 4 + seed % 2, WIDTH, generator=generator))


def alone(name: str, seed: int, limit: int, options: Options) -> list[int]:
    made = decoding(name)
    row = made.begin(start(name, seed), options)
    while not row.ended and len(row.tokens) < limit:
        made.advance([row])
    return row.tokens


@pytest.mark.parametrize("name", NETWORKS)
@given(plan=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 8), st.integers(1, 12)), min_size=1, max_size=6))
@settings(max_examples=12)
def test_texts_that_begin_and_end_at_different_times_say_what_each_says_alone(
    name: str, plan: list[tuple[int, int, int]]
) -> None:
    made = decoding(name)
    rows: dict[int, DecodedSequence] = {}
    going: list[int] = []
    for now in range(30):
        if going:
            made.advance([rows[i] for i in going])
        new = [i for i, (_, begins, _) in enumerate(plan) if begins == now]
        for i in new:
            rows[i] = made.begin(start(name, plan[i][0]), NO_OPTIONS)
        ended = [i for i in [*going, *new] if rows[i].ended or len(rows[i].tokens) >= plan[i][2]]
        made.drop([rows[i] for i in ended])
        going = [i for i in [*going, *new] if i not in ended]
    for i, (seed, _, limit) in enumerate(plan):
        assert rows[i].tokens == alone(name, seed, limit, NO_OPTIONS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_alone_is_what_transformers_generates(name: str) -> None:
    network = NETWORKS[name]
    for seed in range(4):
        begin = start(name, seed)
        given: dict[str, Any] = {}
        if begin.states is not None:
            whole = name == "whisper"
            given["encoder_outputs" if whole else "encoder_hidden_states"] = (begin.states,) if whole else begin.states
        ids, said = begin.ids, []
        assert ids is not None
        for _ in range(10):  # without a cache: the whole text through the network, each time
            token = int(network(input_ids=ids, use_cache=False, **given).logits[0, -1].argmax())
            if token in (1, 2):
                break
            said.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
        assert alone(name, seed, 10, NO_OPTIONS) == said


def test_the_same_seed_draws_the_same_whoever_is_beside_it_and_another_one_does_not() -> None:
    options = Options(temperature=1.0, seed=5)
    expected = alone("gpt2", 7, 8, options)
    made = decoding("gpt2")
    beside = [made.begin(start("gpt2", n), Options(temperature=1.5, seed=n)) for n in (1, 3, 9)]
    row = made.begin(start("gpt2", 7), options)
    while not row.ended and len(row.tokens) < 8:
        made.advance([*(other for other in beside if not other.ended), row])
    assert row.tokens[:8] == expected
    others = {tuple(alone("gpt2", 7, 8, Options(temperature=1.0, seed=seed))) for seed in range(6)}
    assert len(others) > 3


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cache_takes_what_was_reckoned_and_leaves_with_its_texts(name: str) -> None:
    made, network = decoding(name), NETWORKS[name]
    room = kv_cache_size(network.config, 4)
    begin = start(name, random.Random(1).randrange(50))  # noqa: S311
    row = made.begin(begin, NO_OPTIONS)
    for _ in range(5):
        made.advance([row])
    states = 0 if begin.states is None else begin.states.shape[1]
    assert begin.ids is not None
    assert held(made) == room.need_bytes(begin.ids.shape[1], states, 5)
    made.drop([row])
    assert held(made) == 0


def held(made: Decoding) -> int:
    """Bytes of keys, values and states."""
    found = 0
    for batch in made._batches:  # noqa: SLF001  # what it holds is what this is about
        found += sum(part.nbytes for layers in (batch.own, batch.crossing) for pair in layers for part in pair)
        found += 0 if batch.states is None else batch.states.nbytes
    return found
