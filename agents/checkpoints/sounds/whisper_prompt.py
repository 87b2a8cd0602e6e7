"""The tokens that a Whisper transcript starts from: start, language, task, no timestamps; as transformers chooses them.

An English-only checkpoint has neither language nor task. A multilingual one detects the language of each sound, unless
the module's configuration or generation_config.json names one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["WhisperPrompt", "whisper_prompt"]


@dataclass(frozen=True)
class WhisperPrompt:
    """The prompt of one checkpoint.

    Args:
        ids: Its tokens; the second is a placeholder if `detects`.
        detects: Whether the second token is the language that the decoder hears behind the first.
        languages: Token -> language code, of a multilingual checkpoint.
    """

    ids: list[int]
    detects: bool = False
    languages: Mapping[int, str] = field(default_factory=dict)

    def language(self, ids: list[int]) -> str:
        """Returns the code of the language in a prompt, e.g. `de`; empty if the checkpoint has one language only."""
        return next((self.languages[token] for token in ids if token in self.languages), "")


def whisper_prompt(opened: CheckpointPart, start: int, language: str | None) -> WhisperPrompt:
    """Returns the prompt of a checkpoint.

    Args:
        opened: The decoder's part.
        start: The token that every transcript starts from.
        language: Code (`de`) or English name (`german`) of the language, from the module's configuration; None leaves
            it to generation_config.json, and where that names none, to detection.

    Raises:
        ModuleFailedError: The checkpoint does not know the language, or is English-only and one was asked for.
    """
    tokens, tasks = _tokens(opened, "lang_to_id"), _tokens(opened, "task_to_id")
    asked = language or opened.value("generation.language")
    task = opened.value("generation.task")
    if asked is not None and not tokens:
        raise ModuleFailedError(f"module {opened.spec.id}: config.language: {asked!r}: this checkpoint is English-only")
    forced: list[int | None] = [] if asked or task else _forced(opened)
    if asked:
        forced = [_language_token(opened, str(asked), tokens)]
    elif tokens and not forced:
        forced = [None]
    if task in tasks:
        forced.append(tasks[str(task)])
    elif asked and "transcribe" in tasks:
        forced.append(tasks["transcribe"])
    silent = opened.value("generation.no_timestamps_token_id")
    if isinstance(silent, int) and silent not in forced[-1:]:
        forced.append(silent)
    languages = {token: name.strip("<|>") for name, token in tokens.items()}
    detects = bool(languages) and forced[:1] == [None]
    kept = [token for token in forced[1 if detects else 0 :] if token is not None]
    return WhisperPrompt([start, *([start] if detects else []), *kept], detects, languages)


def _tokens(opened: CheckpointPart, name: str) -> dict[str, int]:
    found = opened.value(f"generation.{name}")
    return {str(key): token for key, token in found.items()} if isinstance(found, dict) else {}


def _language_token(opened: CheckpointPart, language: str, tokens: Mapping[str, int]) -> int:
    name = language.lower().strip("<|>")
    token = tokens.get(f"<|{TO_LANGUAGE_CODE.get(name, name)}|>")
    if token is None:
        known = ", ".join(sorted(key.strip("<|>") for key in tokens))
        raise ModuleFailedError(
            f"module {opened.spec.id}: config.language: {language!r} is not one it knows: {known}"[:500]
        )
    return token


def _forced(opened: CheckpointPart) -> list[int | None]:
    """Returns the tokens at 1, 2, … of `forced_decoder_ids`, the older form of language and task."""
    found = opened.value("generation.forced_decoder_ids", "forced_decoder_ids")
    pairs = [tuple(pair) for pair in found] if isinstance(found, list) else []
    if [at for at, _ in pairs] != list(range(1, len(pairs) + 1)):
        name = opened.checkpoint.folder.name
        raise ModuleFailedError(f"{name}: forced_decoder_ids are not those of positions 1 to {len(pairs)}")
    return [token for _, token in pairs]
