"""Texts written together say what each says alone: whenever they begin and end, whatever they start from.

For every decoder: those that honour the positions of padded rows, and those that ignore or misread them.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers as t
from hypothesis import given, settings
from hypothesis import strategies as st

from s2m3.agents.modules.decoding import DecodedSequence, Decoding, Start, Stop
from s2m3.agents.modules.kv_cache import kv_cache_size
from s2m3.agents.modules.padding import HONOURING, honours_padding
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


_SIZES = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_DECODER = {"d_model": WIDTH, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}


def _mistral() -> Any:
    sizes = {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return _randomised(t.MistralForCausalLM(t.MistralConfig(vocab_size=VOCABULARY, **sizes)))


def _qwen2() -> Any:
    sizes = {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return _randomised(t.Qwen2ForCausalLM(t.Qwen2Config(vocab_size=VOCABULARY, **sizes)))


def _bert_like(kind: str) -> Any:
    config = getattr(t, f"{kind}Config")(
        vocab_size=VOCABULARY, max_position_embeddings=64, is_decoder=True, add_cross_attention=True, pad_token_id=1,
        **_SIZES,
    )  # fmt: skip
    return _randomised(getattr(t, f"{kind}LMHeadModel" if kind == "Bert" else f"{kind}ForCausalLM")(config))


def _bart_like(kind: str) -> Any:
    sizes = {**_DECODER, "max_position_embeddings": 64, "pad_token_id": 1, "is_decoder": True}
    config = getattr(t, f"{kind}Config")(vocab_size=VOCABULARY, add_cross_attention=True, **sizes)
    return _randomised(getattr(t, f"{kind}ForCausalLM")(config))


NETWORKS = {
    "llama": _llama(),
    "mistral": _mistral(),
    "qwen2": _qwen2(),
    "gpt2": _gpt2(),
    "blip": _blip(),
    "whisper": _whisper(),
    "bert": _bert_like("Bert"),
    "roberta": _bert_like("Roberta"),
    "xlm-roberta": _bert_like("XLMRoberta"),
    "trocr": _bart_like("TrOCR"),
    "bart": _bart_like("Bart"),
    "mbart": _bart_like("MBart"),
}
ALONE = ("llama", "mistral", "qwen2")
#: The decoders that read padded rows as they read each row alone.
HONOUR = {"llama", "mistral", "qwen2", "gpt2", "blip", "whisper", "bert"}


def _forward(network: Any) -> Callable[..., torch.Tensor]:
    def forward(states: torch.Tensor | None = None, **given: Any) -> torch.Tensor:
        if states is not None and isinstance(network, t.WhisperForCausalLM):
            given["encoder_outputs"] = (states,)
        elif states is not None:
            given["encoder_hidden_states"] = states
        logits: torch.Tensor = network(**given, use_cache=True).logits[:, -1]
        return logits

    return forward


class Recorded(Decoding):
    """A decoding that keeps the logits from which each token of each text was chosen."""

    def __init__(self, name: str, *, pads: bool | None = None) -> None:
        pads = honours_padding(NETWORKS[name]) if pads is None else pads
        super().__init__(_forward(NETWORKS[name]), Stop(frozenset({1, 2})), pads=pads)
        self.logits: dict[DecodedSequence, list[torch.Tensor]] = {}

    def _say(self, rows: Sequence[DecodedSequence], logits: torch.Tensor, *, first: bool = False) -> None:
        for row, line in zip(rows, logits, strict=True):
            self.logits.setdefault(row, []).append(line)
        super()._say(rows, logits, first=first)

    @property
    def batches(self) -> int:
        return len(self._batches)


def decoding(name: str) -> Recorded:
    return Recorded(name)


def start(name: str, seed: int) -> Start:
    """A prompt of 1 to 6 tokens, and for those that cross-attend 4 or 5 states."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (1, 1 + seed % 6), generator=generator)
    return Start(ids=ids, states=None if name in ALONE else torch.randn(1, 4 + seed % 2, WIDTH, generator=generator))


def written(name: str, seed: int, limit: int, options: Options) -> tuple[list[int], torch.Tensor]:
    """What a text says alone, and the logits of each token (tokens, vocabulary)."""
    made = decoding(name)
    row = made.begin(start(name, seed), options)
    while not row.ended and len(row.tokens) < limit:
        made.advance([row])
    return row.tokens, torch.stack(made.logits[row])


def alone(name: str, seed: int, limit: int, options: Options) -> list[int]:
    return written(name, seed, limit, options)[0]


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
        tokens, logits = written(name, seed, limit, NO_OPTIONS)
        assert rows[i].tokens == tokens
        assert torch.allclose(torch.stack(made.logits[rows[i]]), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_shares_padded_batches_exactly_if_it_reads_them_as_each_text_alone(name: str) -> None:
    known, measured = decoding(name), Decoding(_forward(NETWORKS[name]), Stop(frozenset({1, 2})))
    for made in (known, measured):
        rows = [made.begin(start(name, seed), NO_OPTIONS) for seed in (0, 2, 4)]  # 1, 3 and 5 tokens, 4 states
        assert not any(row.ended for row in rows)
        made.advance(rows)
        assert len(made._batches) == (1 if name in HONOUR else 3)  # noqa: SLF001  # who shares is what this is about


def test_the_classes_that_share_unmeasured_are_those_tested_here() -> None:
    classes = {type(NETWORKS[name]).__name__ for name in HONOUR}
    assert classes | {"WhisperDecoder"} == HONOURING  # the network inside WhisperForCausalLM


def test_texts_of_equal_length_share_a_batch_whatever_the_network() -> None:
    made = decoding("trocr")
    rows = [made.begin(start("trocr", seed), NO_OPTIONS) for seed in (6, 12, 18)]
    made.advance(rows)
    assert made.batches == 1


def test_rotary_positions_that_depend_on_the_longest_text_share_no_padded_batch() -> None:
    network = NETWORKS["llama"]
    before = network.config.rope_parameters
    try:
        network.config.rope_parameters = {**before, "rope_type": "dynamic", "factor": 2.0}
        assert honours_padding(network) is False
    finally:
        network.config.rope_parameters = before


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
