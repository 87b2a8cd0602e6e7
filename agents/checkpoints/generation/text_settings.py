"""What a checkpoint says of the texts that it writes: their ends, their length, and the settings of generation."""

from collections.abc import Sequence

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.token_rules import TokenRules
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.sizes import TextLength, text_length

__all__ = ["never_chosen", "new_tokens", "text_ends", "token_rules"]


def text_ends(opened: CheckpointPart) -> list[int]:
    """Returns the tokens that end a text.

    Raises:
        ModuleFailedError: The checkpoint names none.
    """
    if ends := _tokens(opened.value(*opened.part.end)):
        return ends
    raise ModuleFailedError(f"{opened.checkpoint.folder.name} does not say which token ends a text")


def new_tokens(opened: CheckpointPart, most: int | None) -> TextLength:
    """Returns the module's own number of tokens, else what generation_config.json says of the length."""
    if most is not None:
        return TextLength(new=most)
    return text_length(opened.checkpoint.generation, whisper=opened.part.options.get("prompt") == "whisper")


def token_rules(opened: CheckpointPart, ends: Sequence[int], vocabulary: int) -> TokenRules:
    """Returns the settings of generation_config.json, for architectures whose own `generate` reads that file.

    Raises:
        ModuleFailedError: transformers refuses a setting.
    """
    read = any(path.startswith("generation.") for path in opened.part.end)
    given = dict(opened.checkpoint.generation) if read else {}
    given["begin_suppress_tokens"] = never_chosen(opened, "begin_suppress_tokens", vocabulary) or None
    try:
        return TokenRules(given, ends)
    except (ValueError, TypeError) as error:
        raise ModuleFailedError(f"generation_config.json of {opened.checkpoint.folder.name}: {error}"[:300]) from error


def never_chosen(opened: CheckpointPart, name: str, vocabulary: int) -> list[int]:
    """Returns tokens that are never chosen: of generation_config.json, or of config.json where that file is missing."""
    found = _tokens(opened.value(f"generation.{name}" if opened.checkpoint.generation else name))
    return [token for token in found if 0 <= token < vocabulary]


def _tokens(found: object) -> list[int]:
    return [found] if isinstance(found, int) else list(found) if isinstance(found, list) else []
