"""Whether two parts of checkpoints compute the same, whatever their folders, files, names of tensors and dtypes.

Two parts are the same if their tensors hold the same numbers under the same names (what all names of a part begin with
counts for nothing), and if the configuration, the preprocessing and the layers that become outputs are the same.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from s2m3.agents.checkpoints.networks.outputs import asked_outputs
from s2m3.agents.checkpoints.storage.identity import LIGHT, configuration, digests, fingerprint
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.schemas.checkpoints.headers import TensorInfo, read_json
from s2m3.schemas.checkpoints.leftovers import is_leftover
from s2m3.schemas.checkpoints.pipelines import DIFFUSERS
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["WrongContentError", "aligned", "check_identity", "serves"]

#: Fields of a result that mean the same whichever class of transformers runs the layers.
_OF_LAYERS = ("hidden_states", "last_hidden_state")
#: Files beside the weights that a part's inputs and texts depend on, and keys in them that change nothing.
_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_COSMETIC = frozenset(
    {"_commit_hash", "_from_model_config", "_name_or_path", "_processor_class", "auto_map", "feature_extractor_type"}
    | {"image_processor_type", "name_or_path", "processor_class", "special_tokens_map_file", "transformers_version"}
)
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_NO_TEXTS = ("config.json", "open_clip_config.json", "README.txt")


class WrongContentError(ModuleFailedError):
    """The weights of a module are others than those that its definition, or who sent them, says they are."""


def serves(many: CheckpointPart, few: CheckpointPart, outputs: Iterable[str]) -> bool:
    """Returns whether a part gives the outputs of another one, number for number.

    Args:
        many: The part that would do the work; it may hold more tensors (a tower with its projection).
        few: The part whose place it would take.
        outputs: The outputs of `few` that are wanted.

    Raises:
        ModuleFailedError: A file cannot be read, or the configuration or preprocessing is not known.
    """
    if many.part.class_ != few.part.class_ or (names := aligned(few, many)) is None:
        return False
    few_tensors, many_tensors = _weights(few), _weights(many)
    if _inside(names.values(), many_tensors) != set(names.values()):
        return False  # a bias, say, that the other one lacks
    if any(few_tensors[name].shape != many_tensors[other].shape for name, other in names.items()):
        return False
    if any(_output(few, name) != _output(many, name) for name in outputs):
        return False
    ours, theirs = digests({name: many_tensors[name] for name in names.values()}), digests(few_tensors)
    if any(theirs[name] != ours[other] for name, other in names.items()):
        return False
    return _settings(few) == _settings(many)  # last: only here transformers is imported


def check_identity(opened: CheckpointPart, others: Iterable[CheckpointPart]) -> str:
    """Returns a part's fingerprint after comparing it with what its definition says it is.

    Args:
        opened: The part that is to be served.
        others: Parts of other checkpoints, here on this device, that are declared to be the same; each may hold fewer
            tensors (a tower without its projection), and is compared by those that it has.

    Raises:
        ModuleFailedError: It is another module; both fingerprints are in the text.
    """
    own = fingerprint(opened)
    if opened.spec.fingerprint and opened.spec.fingerprint != own:
        raise WrongContentError(
            f"module {opened.spec.id} is declared to be {opened.spec.fingerprint}, but {opened.spec.source} holds {own}"
        )
    for other in others:
        names = aligned(other, opened)
        theirs = fingerprint(other, {name: name for name in _weights(other)})
        ours = fingerprint(opened, {mine: name for name, mine in names.items()} if names is not None else None)
        if theirs != ours:
            raise ModuleFailedError(
                f"module {opened.spec.id} is not the same in {opened.spec.source} ({ours}) and in "
                f"{other.spec.source} ({theirs}), although it is declared to be"
            )
    return own


def _weights(opened: CheckpointPart) -> dict[str, TensorInfo]:
    """Returns a part's tensors but for the buffers that only some releases saved."""
    return {name: tensor for name, tensor in opened.tensors().items() if not is_leftover(name, tensor)}


def aligned(few: CheckpointPart, many: CheckpointPart) -> dict[str, str] | None:
    """Returns name in one part -> name in another that holds all of it; None if the names do not correspond."""
    names, others = _weights(few).keys(), _weights(many).keys()
    cut = len(_shared_prefix(names))
    first = min(names)[cut:]
    starts = [other[: len(other) - len(first)] for other in others if other.endswith(first)]
    for start in sorted(starts, key=lambda start: (not min(names).startswith(start), len(start))):
        found = {name: start + name[cut:] for name in names}
        if all(other in others for other in found.values()):
            return found
    return None


def _inside(names: Collection[str], others: Iterable[str]) -> set[str]:
    """Returns those of others that lie where all names lie."""
    start = _shared_prefix(names)
    return {other for other in others if other.startswith(start)}


def _shared_prefix(names: Collection[str]) -> str:
    """Returns what all names begin with, up to a dot."""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first[:same].rfind(".") + 1]


def _output(opened: CheckpointPart, name: str) -> Any:
    """Returns what an output is of: a layer of the network, or a result of one class."""
    asked = asked_outputs(opened).get(name) if name in opened.part.outputs else None
    if asked is None:
        return opened.part.outputs[name].model_dump() if name in opened.part.outputs else None
    own = [] if asked.field in _OF_LAYERS else [opened.part.network, opened.part.features, opened.architecture]
    return [asked.field, asked.layer, asked.skip, *own]


def _settings(opened: CheckpointPart) -> str:
    """Returns what of configuration and preprocessing changes the outputs, as text."""
    options = {**opened.part.options, **opened.spec.config}
    found = {"config": configuration(opened, every=True), "options": options, "processing": _processing(opened)}
    return json.dumps(found, sort_keys=True, default=str)


def _processing(opened: CheckpointPart) -> Any:
    """Returns what happens to the inputs before the network: the processor with its defaults, or the texts' files."""
    if opened.part.class_ in LIGHT or opened.part.network.startswith(DIFFUSERS):
        return None
    if opened.part.class_ in ("image-encoder", "audio-encoder"):
        from s2m3.agents.checkpoints.storage.preprocessing import read_extractor, read_image_processor  # noqa: PLC0415

        reader = read_image_processor if opened.part.class_ == "image-encoder" else read_extractor
        processor = reader(opened)
        return [type(processor).__name__, _without_cosmetic(processor.to_dict())]
    folder = opened.checkpoint.folder
    if opened.part.class_ == "text-encoder" and "hidden" in opened.part.outputs and "hidden" not in opened.part.inputs:
        return _tokenizer(opened)
    if opened.part.class_ == "picture-features":  # the picture half of a processor, by its own class
        return {name: _document(folder / name) for name in _PROCESSORS if (folder / name).is_file()}
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    kept = [path for path in files if path.name not in _NO_TEXTS and not path.name.endswith(".index.json")]
    return {path.name: _read(path) for path in kept}


def _tokenizer(opened: CheckpointPart) -> Any:
    """Returns what a tokenizer does, whichever files say so: a pipeline's and CLIP's own have different ones."""
    from s2m3.agents.checkpoints.storage.preprocessing import read_tokenizer  # noqa: PLC0415

    made = read_tokenizer(opened)
    if (backend := getattr(made, "backend_tokenizer", None)) is None:
        return str(opened.checkpoint.folder)  # the same as no other
    kept = ("model_max_length", "pad_token_id", "padding_side", "truncation_side", "model_input_names")
    return [backend.to_str(), {key: getattr(made, key) for key in kept}]


def _read(path: Path) -> Any:
    """Returns what a file says, without what changes nothing; of one that is no JSON its hash."""
    document = _document(path)
    return _without_cosmetic(document) if isinstance(document, dict) else document


def _document(path: Path) -> Any:
    try:
        return read_json(path) if path.suffix == ".json" else hashlib.sha256(path.read_bytes()).hexdigest()
    except (BadInputError, OSError):
        return str(path)  # the same as no other


def _without_cosmetic(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _COSMETIC}
