"""The rows of speech: recognition, classes of sound, speech from text."""

import io
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import soundfile
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models

from tests.families.family import LONGEST, Family

__all__ = ["SPEECH"]

_RATE = 16_000
_SPELLED = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVKXJQZ'"]
_LABELS = ["bark", "rain", "bell", "speech"]
#: The small sizes of wav2vec 2.0 and its like; the convolutions make 100 frames of a second.
_WAVES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "conv_dim": (16, 16),
    "conv_stride": (20, 8), "conv_kernel": (24, 10), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "vocab_size": len(_SPELLED), "pad_token_id": 0,
}  # fmt: skip


def sound(number: int, seconds: float = 0.8) -> bytes:
    """Returns a WAV file of a tone that rises, with noise over it; its numbers are exact in float32."""
    random, time = np.random.default_rng(number), np.arange(int(seconds * _RATE)) / _RATE
    tone = np.sin(2 * np.pi * (90 + 160 * number) * time * (1 + time)) + random.normal(0, 0.1 + 0.2 * number, len(time))
    file = io.BytesIO()
    soundfile.write(file, (0.2 * tone).astype(np.float32), _RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def samples(data: bytes) -> Any:
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def randomised(network: Any, folder: Path, *, seed: int = 5, deviation: float = 0.25) -> None:
    """Saves a network whose weights all matter: transformers' own initialisation makes many answers alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, deviation, generator=generator)
            else:
                weight.normal_(1.0 if "norm" in name and "bias" not in name else 0.0, 0.15, generator=generator)
    network.eval().save_pretrained(folder)


def _waves(folder: Path, **how: Any) -> None:
    t.Wav2Vec2FeatureExtractor(do_normalize=True, **how).save_pretrained(folder)


def _spelling(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(_SPELLED)}))
    t.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)


def _make_wav2vec2(folder: Path) -> None:
    _spelling(folder)
    _waves(folder, return_attention_mask=False)
    randomised(t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**_WAVES)), folder)


def _make_hubert(folder: Path) -> None:
    _spelling(folder)
    _waves(folder, return_attention_mask=True)
    stable = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    randomised(t.HubertForCTC(t.HubertConfig(**_WAVES, **stable)), folder)


def _make_parakeet(folder: Path) -> None:
    pieces = [*("▁" + word for word in ("the", "a", "in", "of", "to", "and")), *"etaonihsrdlumwcfgyp", "<unk>", "<pad>"]
    marks = {"unk_token": "<unk>", "pad_token": "<pad>"}
    made = Tokenizer(
        models.BPE({piece: number for number, piece in enumerate(pieces)}, [], unk_token=marks["unk_token"])
    )
    made.decoder = decoders.Metaspace()
    t.ParakeetTokenizer(tokenizer_object=made, **marks).save_pretrained(folder)
    t.ParakeetFeatureExtractor(feature_size=32).save_pretrained(folder)
    inner = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "num_mel_bins": 32, "subsampling_conv_channels": 8,
    }  # fmt: skip
    config = t.ParakeetCTCConfig(vocab_size=len(pieces), pad_token_id=len(pieces) - 1, encoder_config=inner)
    randomised(t.ParakeetForCTC(config), folder, deviation=0.4)


def _make_vits(folder: Path) -> None:
    """As MMS-TTS: characters, no phonemes."""
    folder.mkdir(exist_ok=True)
    characters = [*"k'z", *"yuaoenihrsdtlmwcfgpbvxjq ", "_"]
    (folder / "vocab.json").write_text(json.dumps({character: n for n, character in enumerate(characters)}))
    marks = {"pad_token": "k", "unk_token": "_"}
    plain = t.VitsTokenizer(str(folder / "vocab.json"), language="eng", phonemize=False, **marks)
    plain.save_pretrained(folder)
    config = t.VitsConfig(
        vocab_size=len(characters), hidden_size=16, num_hidden_layers=2, ffn_dim=24, flow_size=16, spectrogram_bins=9,
        upsample_initial_channel=16, upsample_rates=(4, 4), upsample_kernel_sizes=(8, 8), resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),), duration_predictor_filter_channels=8, prior_encoder_num_flows=2,
        duration_predictor_num_flows=2, prior_encoder_num_wavenet_layers=1, posterior_encoder_num_wavenet_layers=1,
        num_speakers=3, speaker_embedding_size=8,
    )  # fmt: skip
    randomised(t.VitsModel(config), folder, deviation=0.1)


def _spoken(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """As the model's card: a seed, the tokens, the waveform; as a WAV file of 16 bits."""
    network, words = t.VitsModel.from_pretrained(folder), t.AutoTokenizer.from_pretrained(folder)
    t.set_seed(inputs["options"]["seed"])
    waveform = network(words(inputs["text"], return_tensors="pt")["input_ids"]).waveform[0]
    file = io.BytesIO()
    soundfile.write(file, waveform.numpy(), network.config.sampling_rate, format="WAV", subtype="PCM_16")
    return {"audio": file.getvalue()}


_LANGUAGES = ("en", "de", "es", "fr")
_CODES = [f"<|{code}|>" for code in _LANGUAGES]
_MARKS = ["<|endoftext|>", "<|startoftranscript|>", *_CODES, "<|translate|>", "<|transcribe|>"]
_MARKS += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]


def _make_whisper(folder: Path, decoder_layers: int = 2) -> None:
    """A multilingual Whisper whose windows are one second long."""
    letters = [*"etaoinshrdlucmfwypvbgk", "Ġ", "Ġt", "th", "Ġth", "an", "in"]
    merges = [("Ġ", "t"), ("t", "h"), ("Ġt", "h"), ("a", "n"), ("i", "n")]
    words = t.WhisperTokenizer({piece: number for number, piece in enumerate([*letters, "<|endoftext|>"])}, merges)
    words.add_special_tokens({"additional_special_tokens": _MARKS[1:]})
    words.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(51)])
    words.save_pretrained(folder)
    t.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)
    ids = {name: words.convert_tokens_to_ids(name) for name in _MARKS}
    marks = {
        "pad_token_id": ids["<|endoftext|>"], "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"], "decoder_start_token_id": ids["<|startoftranscript|>"],
    }  # fmt: skip
    config = t.WhisperConfig(
        vocab_size=len(words), d_model=32, encoder_layers=2, decoder_layers=decoder_layers, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=16, max_source_positions=50,
        max_target_positions=40, **marks,
    )  # fmt: skip
    network = t.WhisperForConditionalGeneration(config)
    network.generation_config = t.GenerationConfig(
        **marks, is_multilingual=True, lang_to_id={name: ids[name] for name in _CODES},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"], return_timestamps=False, max_initial_timestamp_index=25,
        suppress_tokens=[number for name, number in ids.items() if name != "<|endoftext|>"],
        begin_suppress_tokens=[ids["<|endoftext|>"]], forced_decoder_ids=[[1, None], [2, ids["<|transcribe|>"]]],
        max_length=36,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in network.named_parameters():  # what is heard and where counts more than what was written
            deviation = 0.8 if "decoder" in name and weight.dim() > 1 else 0.25
            weight.normal_(1.0 if name.endswith("norm.weight") else 0.0, deviation, generator=_drawn(name))
            if name.endswith(("encoder_attn.out_proj.weight", "encoder.conv1.weight")):
                weight.mul_(4)
        network.model.decoder.embed_positions.weight.mul_(3)
        network.model.decoder.embed_tokens.weight.mul_(0.3)
        network.model.decoder.embed_tokens.weight[ids["<|notimestamps|>"] :].mul_(0.1)  # times are said if asked for
    network.eval().save_pretrained(folder)


def _make_moonshine(folder: Path) -> None:
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *("▁" + word for word in ("the", "a", "in", "of", "to", "and")),
        *"etaonihsrdlumwcfg",
    ]
    marks = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    made = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [], unk_token="<unk>"))  # noqa: S106
    made.decoder = decoders.Metaspace()
    t.PreTrainedTokenizerFast(tokenizer_object=made, **marks).save_pretrained(folder)
    _waves(folder, return_attention_mask=True)
    config = t.MoonshineConfig(
        hidden_size=32, intermediate_size=48, vocab_size=len(pieces), encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2, encoder_num_attention_heads=4, decoder_num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=2, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    network = t.MoonshineForConditionalGeneration(config)
    network.generation_config = t.GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=2, decoder_start_token_id=1, max_length=60
    )
    randomised(network, folder, deviation=0.5)


def _make_speech_to_text(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the lamp in the kitchen is on", "a cat and a dog sit on the mat"]),
        model_prefix=str(folder / "sentencepiece.bpe"), vocab_size=40, model_type="bpe", minloglevel=2,
    )  # fmt: skip
    (folder / "sentencepiece.bpe.vocab").unlink()
    model = sentencepiece.SentencePieceProcessor(str(folder / "sentencepiece.bpe.model"))
    known = ["<s>", "<pad>", "</s>", "<unk>", *(model.id_to_piece(n) for n in range(3, len(model)))]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(known)}))
    words = t.Speech2TextTokenizer(str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"))
    words.save_pretrained(folder)
    t.Speech2TextFeatureExtractor(feature_size=16, num_mel_bins=16).save_pretrained(folder)
    config = t.Speech2TextConfig(
        vocab_size=len(known), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, input_feat_per_channel=16, conv_channels=24,
        max_source_positions=400, max_target_positions=64, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=2,
    )  # fmt: skip
    network = t.Speech2TextForConditionalGeneration(config)
    network.generation_config = t.GenerationConfig(
        bos_token_id=0, eos_token_id=2, pad_token_id=1, decoder_start_token_id=2, max_length=60
    )
    randomised(network, folder, deviation=0.5)


def _written(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """As the model's card: the processor, generate, the tokenizer."""
    network, words = _network(folder), t.AutoTokenizer.from_pretrained(folder)
    extractor = t.AutoFeatureExtractor.from_pretrained(folder)
    heard = extractor(samples(inputs["audio"]), sampling_rate=_RATE, return_tensors="pt")
    ids = network.generate(**heard, max_new_tokens=LONGEST)[0]
    return {"text": words.decode(ids, skip_special_tokens=True).strip()}


@cache
def _network(folder: Path) -> Any:
    return t.AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()


def _drawn(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(name.encode()))


def _transcript(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """As the pipeline cuts long sounds into windows. Long ones are written with times: one call of generate each."""
    pipeline, times = _pipeline(folder, "automatic-speech-recognition"), inputs.get("options", {}).get("timestamps")
    heard = samples(inputs["audio"])
    told = times or len(heard) > _RATE
    how = {"num_beams": 1, "max_new_tokens": LONGEST, **({"force_unique_generate_call": True} if told else {})}
    found = pipeline(heard, chunk_length_s=1, return_timestamps=told or None, generate_kwargs=how)
    mel = pipeline.feature_extractor(heard[:_RATE], sampling_rate=_RATE, return_tensors="pt").input_features
    language = pipeline.tokenizer.decode(pipeline.model.detect_language(mel)).strip("<|>")
    chunks = found["chunks"] if times else []
    segments = [
        {"start": one["timestamp"][0], "end": one["timestamp"][1], "text": one["text"].strip()} for one in chunks
    ]
    return {"text": found["text"].strip(), "language": language, "segments": segments}


def _named() -> dict[str, Any]:
    return {"id2label": dict(enumerate(_LABELS)), "label2id": {name: n for n, name in enumerate(_LABELS)}}


def _make_wav2vec2_classes(folder: Path) -> None:
    _waves(folder, return_attention_mask=True)
    config = t.Wav2Vec2Config(**_WAVES, **_named(), classifier_proj_size=16, use_weighted_layer_sum=True)
    randomised(t.Wav2Vec2ForSequenceClassification(config), folder)


def _make_ast(folder: Path) -> None:
    t.ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    config = t.ASTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_length=64,
        num_mel_bins=32, **_named(), problem_type="multi_label_classification",
    )  # fmt: skip
    randomised(t.ASTForAudioClassification(config), folder)


@cache
def _pipeline(folder: Path, task: str) -> Any:
    return t.pipeline(task, model=str(folder))


def _words(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    return {"text": _pipeline(folder, "automatic-speech-recognition")(samples(inputs["audio"]))["text"]}


def _classes(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    found = _pipeline(folder, "audio-classification")(samples(inputs["audio"]))
    ranking = [{"label": one["label"], "score": one["score"]} for one in found]
    return {"label": ranking[0]["label"], "score": ranking[0]["score"], "ranking": ranking}


_SOUNDS = [{"audio": sound(1)}, {"audio": sound(2, 1.3)}]
_TEXTS = [
    {"text": "Good evening, the light is on!", "options": {"seed": 0}},
    {"text": "the door", "options": {"seed": 11}},
]
_SPOKEN: list[dict[str, Any]] = [
    {"audio": sound(1)},
    {"audio": sound(2, 3.1)},
    {"audio": sound(3, 2.2), "options": {"timestamps": True}},
    {"audio": sound(1), "options": {"timestamps": True}},
]
SPEECH = [
    Family("wav2vec2-ctc", "speech", _make_wav2vec2, _SOUNDS, _words),
    Family("hubert-ctc", "speech", _make_hubert, _SOUNDS, _words),
    Family("parakeet-ctc", "speech", _make_parakeet, _SOUNDS, _words),
    Family("wav2vec2-classification", "speech", _make_wav2vec2_classes, _SOUNDS, _classes),
    Family("whisper", "speech", _make_whisper, _SPOKEN, _transcript),
    Family("distil-whisper", "speech", partial(_make_whisper, decoder_layers=1), _SPOKEN, _transcript),
    Family("moonshine", "speech", _make_moonshine, _SOUNDS, _written),
    Family("speech-to-text", "speech", _make_speech_to_text, _SOUNDS, _written),
    Family("vits", "speech", _make_vits, _TEXTS, _spoken),
    Family("ast", "speech", _make_ast, _SOUNDS, _classes),
]
