"""The settings of generation_config.json are followed as `generate` of the whole model follows them."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

from s2m3.agents.checkpoints.generation.text_generator import TextGenerator
from s2m3.agents.modules.token_rules import TokenRules
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.generation import NO_OPTIONS, Options
from tests.checkpoints import whole
from tests.checkpoints.inprocess import loaded, run_module
from tests.checkpoints.tiny import EOS, SIZE, VOCABULARY
from tests.zoo.samples import sample

PICTURES = [sample("chelsea.jpg"), sample("rocket.jpg")]
SOUNDS = [sample("play-music.flac"), sample("quick-brown-fox.flac")]
QUESTIONS = ["what is this", "who sits on the red mat"]
LONG = 14
#: Settings, each of which changes some text of the checkpoints below.
SETTINGS: dict[str, dict[str, Any]] = {
    "repetition-penalty": {"repetition_penalty": 3.0},
    "no-repeated-pairs": {"no_repeat_ngram_size": 2},
    "bad-words": {"bad_words_ids": [[VOCABULARY[word]] for word in ("a", "photo", "of", "mat", "is", "yes", "no")]},
    "min-new-tokens": {"min_new_tokens": 10},
    "min-length": {"min_length": 40},
    "forced-first": {"forced_bos_token_id": VOCABULARY["dog"]},
    "forced-first-and-suppressed": {
        "forced_bos_token_id": VOCABULARY["dog"],
        "begin_suppress_tokens": list(range(5, 20)),
    },
    "forced-last": {"forced_eos_token_id": EOS},
    "several": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_new_tokens": 6},
}
NAMES = ("tiny-vit-gpt2", "tiny-llava", "tiny-whisper")


def copied(tiny: Path, root: Path, name: str, generation: dict[str, Any]) -> Path:
    """A tiny checkpoint with further keys of generation_config.json."""
    shutil.copytree(tiny / name, root / name)
    file = root / name / "generation_config.json"
    document = json.loads(file.read_text()) if file.is_file() else {"eos_token_id": EOS}
    file.write_text(json.dumps(document | {"max_new_tokens": LONG} | generation))
    return root / name


def inputs_of(name: str) -> list[dict[str, Any]]:
    if name == "tiny-whisper":
        return [{"audio": sound} for sound in SOUNDS]
    if name == "tiny-llava":
        return [{"image": picture, "text": text} for picture in PICTURES for text in QUESTIONS]
    return [{"image": picture} for picture in PICTURES]


def decoder_of(folder: Path) -> tuple[TextGenerator, list[Any]]:
    """The decoder's module, and what it prepares of each input."""
    first, second = definition_of(read_checkpoint(folder), folder.name).modules
    encoder, decoder = loaded(folder.parent, first), loaded(folder.parent, second)
    assert isinstance(decoder, TextGenerator)
    port = "tokens" if "tokens" in first.outputs else "hidden"
    prepared = []
    for inputs in inputs_of(folder.name):
        passed = run_module(encoder, {key: value for key, value in inputs.items() if key != "text"}, port)
        prepared.append(decoder.prepare({**inputs, **passed}))
    return decoder, prepared


def written(folder: Path) -> list[str]:
    decoder, prepared = decoder_of(folder)
    return [str(decoder.run([one], frozenset({"text"}))[0]["text"]) for one in prepared]


def generated(folder: Path, **how: Any) -> list[str]:
    """What the whole of transformers writes, with its own generation_config.json."""
    network, found = whole.network(folder), []
    for inputs in inputs_of(folder.name):
        if "audio" in inputs:
            ids = network.generate(whole.sound(folder, inputs["audio"]).input_features, **how)
        elif "text" in inputs:
            config = network.config.vision_config
            count = (config.image_size // config.patch_size) ** 2
            prompt = whole.tokens(folder, [f"USER: {'<image> ' * count}\n{inputs['text']} ASSISTANT:"])["input_ids"]
            given = {"attention_mask": torch.ones_like(prompt), "pixel_values": whole.pixels(folder, inputs["image"])}
            ids = network.generate(input_ids=prompt, **given, **how)[:, prompt.shape[1] :]
        else:
            ids = network.generate(whole.pixels(folder, inputs["image"]), **how)
        found.append(whole.said(folder, ids[0]))
    return found


#: Whisper's prompt is longer than one token, so nothing is forced there; of one token, `generate` would write [PAD].
PAIRS = [(n, s) for n in NAMES for s in SETTINGS if (n, s) != ("tiny-whisper", "forced-first-and-suppressed")]


@pytest.fixture(scope="module")
def folder_of(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Returns the folder of a checkpoint with one of the settings, or `plain`; each is made once."""
    return cache(lambda name, setting: copied(tiny, tmp_path_factory.mktemp("set"), name, SETTINGS.get(setting, {})))


_written = cache(written)


@pytest.mark.parametrize(("name", "setting"), PAIRS)
def test_a_setting_is_followed_as_the_whole_model_follows_it(
    folder_of: Callable[[str, str], Path], name: str, setting: str
) -> None:
    assert _written(folder_of(name, setting)) == generated(folder_of(name, setting))


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_above_changes_a_text(folder_of: Callable[[str, str], Path], setting: str) -> None:
    assert any(_written(folder_of(name, "plain")) != _written(folder_of(name, setting)) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_texts_with_settings_written_together_are_those_of_each_alone(tiny: Path, tmp_path: Path, name: str) -> None:
    folder = copied(tiny, tmp_path, name, SETTINGS["several"])
    decoder, prepared = decoder_of(folder)
    rows = []
    for one in prepared:
        rows.append(decoder.begin(one, NO_OPTIONS))
        decoder.advance([row for row in rows if not row.ended])
    while going := [row for row in rows if not row.ended and len(row.tokens) < LONG]:
        decoder.drop([row for row in rows if row not in going])
        decoder.advance(going)
    assert [decoder.text(row.tokens[:LONG]) for row in rows] == generated(folder)


DRAWS = {"do_sample": True, "temperature": 0.7, "top_k": 9, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9}


@pytest.mark.parametrize(
    "generation",
    [DRAWS, {"do_sample": True}, {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.02, "eta_cutoff": 0.03}],
)
def test_tokens_are_drawn_from_the_probabilities_from_which_generate_draws(generation: dict[str, Any]) -> None:
    config = t.GenerationConfig(**generation, eos_token_id=EOS)
    config.update(**config._get_default_generation_params(), defaults_only=True)  # noqa: SLF001  # as `generate` does
    network = t.GPT2LMHeadModel(t.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=SIZE))
    expected = network._get_logits_processor(config, input_ids_seq_length=3)  # noqa: SLF001
    rules, ids = TokenRules(generation, [EOS]), torch.tensor([[5, 6, 7]])
    for seed in range(5):
        logits = 3 * torch.randn(1, SIZE, generator=torch.Generator().manual_seed(seed))
        warpers = rules.warpers(NO_OPTIONS)
        assert warpers is not None
        found = warpers(ids, logits / rules.temperature(None))
        assert torch.allclose(found.softmax(-1), expected(ids, logits).softmax(-1), atol=1e-6)


def said(decoder: TextGenerator, prepared: Any, **options: Any) -> str:
    row = decoder.begin(prepared, Options(**options))
    while not row.ended and len(row.tokens) < LONG:
        decoder.advance([row])
    decoder.drop([row])
    return decoder.text(row.tokens)


def test_a_checkpoint_that_draws_is_greedy_at_temperature_0_and_repeats_itself_with_a_seed(
    tiny: Path, tmp_path: Path
) -> None:
    folder = copied(tiny, tmp_path, "tiny-llava", {"do_sample": True, "temperature": 1.5})
    decoder, prepared = decoder_of(folder)
    assert [said(decoder, one, temperature=0.0) for one in prepared] == generated(folder, do_sample=False)
    drawn = {said(decoder, prepared[0], seed=seed) for seed in range(6)}
    assert len(drawn) > 3
    assert said(decoder, prepared[0], seed=3) == said(decoder, prepared[0], seed=3)


def test_a_setting_that_transformers_refuses_is_named_when_the_part_is_loaded(tiny: Path, tmp_path: Path) -> None:
    folder = copied(tiny, tmp_path, "tiny-vit-gpt2", {"repetition_penalty": -1.0})
    with pytest.raises(ModuleFailedError, match=r"generation_config\.json of tiny-vit-gpt2: .*penalty"):
        decoder_of(folder)
