"""The description of a site for Wyoming's clients: tasks that transcribe, tasks that speak, and their languages."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from wyoming.info import AsrModel, AsrProgram, Attribution, Info, TtsProgram, TtsVoice

from s2m3.client import Client
from s2m3.doors.served_tasks import ServedTask, Use, tasks_of
from s2m3.schemas.errors import BadInputError, NotReadyError, UnknownTaskError

__all__ = ["chosen_task", "described", "languages_of", "read_languages"]

_ATTRIBUTION = Attribution(name="S2M3", url="https://arxiv.org/abs/2508.04271")
#: Model -> the languages in which tests found it right or nearly so.
_TRIED = {"speech": ("en", "de", "es")}
#: Whisper's languages, for a task that detects the language of a sound.
_WHISPER = (
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it", "id", "hi", "fi",
    "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur", "hr", "bg", "lt", "la", "mi", "ml",
    "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn", "et", "mk", "br", "eu", "is", "hy", "ne", "mn", "bs",
    "kk", "sq", "sw", "gl", "mr", "pa", "si", "km", "sn", "yo", "so", "af", "oc", "ka", "be", "tg", "sd", "gu", "am",
    "yi", "lo", "uz", "fo", "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl", "mg", "as", "tt", "haw", "ln",
    "ha", "ba", "jw", "su",
)  # fmt: skip


def read_languages(text: str) -> dict[str, tuple[str, ...]]:
    """Returns task -> codes of languages, from `speech=en,de say=en`.

    Raises:
        BadInputError: The text has another form.
    """
    found = {}
    for part in text.split():
        task, sign, codes = part.partition("=")
        if not (task and sign and all(codes.split(","))):
            raise BadInputError(f"languages are given as TASK=en,de, not {part[:80]!r}")
        found[task] = tuple(codes.split(","))
    return found


def languages_of(task: ServedTask, told: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the codes of a task's languages: those in the settings, else the known ones of its model."""
    if task.name in told:
        return list(told[task.name])
    if task.doc.model in _TRIED:
        return list(_TRIED[task.doc.model])
    return list(_WHISPER) if "language" in task.doc.answer else ["en"]


def _of_use(client: Client, use: Use) -> list[ServedTask]:
    """Returns the tasks of a use: those that detect the language first, then by name."""
    found = [task for task in tasks_of(client).values() if task.use == use]
    return sorted(found, key=lambda task: ("language" not in task.doc.answer, task.name))


def described(client: Client, told: Mapping[str, Sequence[str]]) -> Info:
    """Returns the description of the tasks that are ready."""
    models = [
        AsrModel(**_artifact(task.name, _shown(task)), languages=languages_of(task, told))
        for task in _of_use(client, "transcription")
        if task.is_ready
    ]
    voices = [
        TtsVoice(**_artifact(task.name, _shown(task)), languages=languages_of(task, told))
        for task in _of_use(client, "speech")
        if task.is_ready
    ]
    asr = AsrProgram(**_artifact("s2m3", "S2M3"), models=models, supports_transcript_streaming=True)
    tts = TtsProgram(**_artifact("s2m3", "S2M3"), voices=voices, supports_synthesize_streaming=True)
    return Info(asr=[asr] if models else [], tts=[tts] if voices else [])


def _artifact(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "attribution": _ATTRIBUTION,
        "installed": True,
        "version": version("s2m3"),
    }


def _shown(task: ServedTask) -> str:
    return f"{task.name} ({task.doc.model})"


def chosen_task(
    client: Client, use: Use, told: Mapping[str, Sequence[str]], name: str | None, language: str | None
) -> ServedTask:
    """Returns the task that a request means: the one it names, else the first of its language, ready ones first.

    Raises:
        UnknownTaskError: There is no task of that name.
        NotReadyError: No task is of that use.
    """
    tasks = _of_use(client, use)
    if name:
        found = next((task for task in tasks if task.name == name), None)
        if found is None:
            raise UnknownTaskError(f"there is no task {name[:100]!r} for {use}")
        return found
    if not tasks:
        raise NotReadyError(f"there is no task for {use}")
    spoken = _prefix(language)
    return min(
        tasks,
        key=lambda task: (not task.is_ready, spoken is not None and spoken not in _prefixes(languages_of(task, told))),
    )


def _prefix(language: str | None) -> str | None:
    """Returns `de` of `de-AT` or `de_AT`."""
    return language.replace("_", "-").split("-")[0].lower() if language else None


def _prefixes(languages: Iterable[str]) -> set[str | None]:
    return {_prefix(language) for language in languages}
