"""Model definitions: which modules a model is made of and how its steps are wired (schemas/models/*.toml)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.checkpoints.published import KnownCheckpoint, known_modules, known_wiring
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.specs import Definition, ModelSpec, ModuleSpec, Origin, StepSpec, is_hub_id
from s2m3.schemas.toml_files import first_error, read_toml
from s2m3.schemas.wire.values import Kind

__all__ = [
    "Catalogue",
    "Definition",
    "ModelSpec",
    "ModuleSpec",
    "Origin",
    "StepSpec",
    "check_model",
    "is_hub_id",
    "load_catalogue",
    "shipped_catalogue",
    "shipped_folder",
    "with_definition",
]

_WIDENS = {("text", "texts"), ("image", "images"), ("text", "chat")}


class Catalogue(BaseModel):
    """All known modules and models; modules with the same identity are merged into one."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    modules: dict[str, ModuleSpec]
    models: dict[str, ModelSpec]
    checkpoints: dict[str, KnownCheckpoint] = {}

    def modules_of(self, model_id: str) -> tuple[ModuleSpec, ...]:
        """Returns the modules of a model, each once."""
        return tuple(self.modules[m] for m in self.models[model_id].module_ids)


def check_model(where: str, model: ModelSpec, modules: Mapping[str, ModuleSpec]) -> None:
    """Checks that the steps of a model fit together.

    Raises:
        BadDefinitionError: They do not; the text names the file and the key.
    """
    for step_id, step in model.steps.items():
        _check_step(f"{where}: steps.{step_id}", step_id, step, model, modules)
    try:
        TopologicalSorter({s: step.after for s, step in model.steps.items()}).prepare()
    except CycleError as error:
        raise BadDefinitionError(f"{where}: steps: a cycle: {' -> '.join(error.args[1])}") from error
    followed = {before for step in model.steps.values() for before in step.after}
    if len(heads := [s for s in model.steps if s not in followed]) != 1:
        raise BadDefinitionError(f"{where}: steps: two heads: {', '.join(heads)}; one step must be the last")
    outputs = modules[model.steps[model.head].module].outputs
    for name in model.answer:
        if name not in outputs:
            raise BadDefinitionError(
                f"{where}: answer: the head {model.head} has no output {name!r}: {sorted(outputs)}"
            )
    used = {ref for step in model.steps.values() for ref in step.inputs.values()}
    if unused := [name for name in model.inputs if f"input.{name}" not in used]:
        raise BadDefinitionError(f"{where}: inputs.{unused[0]}: no step takes it")


def _check_step(key: str, step_id: str, step: StepSpec, model: ModelSpec, modules: Mapping[str, ModuleSpec]) -> None:
    if step_id == "input":
        raise BadDefinitionError(f"{key}: 'input' stands for the request and cannot be a step's name")
    module = modules.get(step.module)
    if module is None:
        raise BadDefinitionError(f"{key}.module: unknown module {step.module!r}")
    if step.inputs.keys() != module.inputs.keys():
        raise BadDefinitionError(
            f"{key}.inputs: module {module.id} takes {sorted(module.inputs)}, not {sorted(step.inputs)}"
        )
    for port, ref in step.inputs.items():
        _check_ref(f"{key}.inputs.{port}", ref, module.inputs[port], model, modules)


def _check_ref(key: str, ref: str, wanted: Kind, model: ModelSpec, modules: Mapping[str, ModuleSpec]) -> None:
    step_id, dot, output = ref.partition(".")
    if not dot:
        raise BadDefinitionError(f"{key}: {ref!r} is neither input.<name> nor <step>.<output>")
    if step_id == "input":
        if output not in model.inputs:
            raise BadDefinitionError(f"{key}: the model has no input {output!r}: {sorted(model.inputs)}")
        kind = model.inputs[output]
    else:
        if step_id not in model.steps:
            raise BadDefinitionError(f"{key}: unknown step {step_id!r}")
        source = modules.get(model.steps[step_id].module)
        if source is None:
            raise BadDefinitionError(f"{key}: unknown module {model.steps[step_id].module!r}")
        if output not in source.outputs:
            raise BadDefinitionError(f"{key}: module {source.id} has no output {output!r}: {sorted(source.outputs)}")
        kind = source.outputs[output]
    if kind != wanted and (kind, wanted) not in _WIDENS:
        raise BadDefinitionError(f"{key}: takes {wanted}, but {ref} is {kind}")


def _module(where: str, module_id: str, table: Any) -> ModuleSpec:
    if not isinstance(table, dict):
        raise BadDefinitionError(f"{where}: modules.{module_id}: not a table")
    try:
        return ModuleSpec.model_validate({**table, "id": module_id})
    except ValidationError as error:
        raise BadDefinitionError(f"{where}: {first_error(error, f'modules.{module_id}')}") from error


def _model(where: str, document: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.model_validate(document)
    except ValidationError as error:
        raise BadDefinitionError(f"{where}: {first_error(error)}") from error


@dataclass(slots=True)
class _Declared:
    """The contents of the files, each with the name of its file."""

    modules: dict[str, tuple[str, ModuleSpec]] = field(default_factory=dict)
    models: dict[str, tuple[str, ModelSpec]] = field(default_factory=dict)
    checkpoints: dict[str, KnownCheckpoint] = field(default_factory=dict)
    #: architectures that checkpoints may have besides the shipped ones
    own: Sequence[Architecture] = ()

    def take_module(self, where: str, spec: ModuleSpec) -> None:
        """Adds a module; several files may define the same module."""
        first, known = self.modules.setdefault(spec.id, (where, spec))
        if known.identity != spec.identity:
            raise BadDefinitionError(f"{where}: modules.{spec.id}: is another module in {first}")

    def take_model(self, where: str, model: ModelSpec) -> None:
        """Adds a model."""
        if model.id in self.models:
            raise BadDefinitionError(f"{where}: id: model {model.id} is also in {self.models[model.id][0]}")
        self.models[model.id] = (where, model)

    def take_checkpoint(self, where: str, name: str, table: Any) -> None:
        """Adds the modules of a published checkpoint and, if it is a whole model, the model."""
        try:
            known = KnownCheckpoint.model_validate(table)
            modules, model = known_modules(name, known, self.own), known_wiring(name, known, self.own)
        except ValidationError as error:
            raise BadDefinitionError(f"{where}: {first_error(error, f'checkpoints.{name}')}") from error
        except BadDefinitionError as error:
            raise BadDefinitionError(f"{where}: checkpoints.{name}: {error.detail}") from error
        for spec in modules:
            self.take_module(where, spec)
        if model is not None:
            self.take_model(where, model)
        self.checkpoints[name] = known


def load_catalogue(paths: Iterable[Path], own: Sequence[Architecture] = ()) -> Catalogue:
    """Reads model definition files, checks the wiring and merges equal modules.

    A file has any of: `[modules.<id>]` tables, `[checkpoints.<id>]` tables, and one model (its keys at the top level).
    A model may use modules of all files.

    Args:
        paths: The files.
        own: Architectures that `[checkpoints.<id>]` may have besides the shipped ones.

    Raises:
        BadDefinitionError: A file is invalid; the text names the file and the line or key.
    """
    declared = _Declared(own=own)
    for path in sorted(paths):
        document = read_toml(path)
        for module_id, table in _tables(path.name, document, "modules").items():
            declared.take_module(path.name, _module(path.name, module_id, table))
        for name, table in _tables(path.name, document, "checkpoints").items():
            declared.take_checkpoint(path.name, name, table)
        if document:
            declared.take_model(path.name, _model(path.name, document))
    specs = {module_id: spec for module_id, (_, spec) in declared.modules.items()}
    for where, model in declared.models.values():
        check_model(where, model, specs)
    found = _merged(specs, [model for _, model in declared.models.values()])
    return found.model_copy(update={"checkpoints": declared.checkpoints})


def _tables(where: str, document: dict[str, Any], kind: str) -> dict[str, Any]:
    tables = document.pop(kind, {})
    if not isinstance(tables, dict):
        raise BadDefinitionError(f"{where}: {kind}: not a table of {kind}")
    return tables


def with_definition(known: Catalogue, definition: Definition) -> tuple[Catalogue, ModelSpec]:
    """Returns the catalogue with a definition's modules merged in, and the definition's model.

    The model is not added to the catalogue: two tasks may embed different models of the same name.

    Raises:
        BadDefinitionError: The steps do not fit together, or the id of a module is taken by another module.
    """
    if all(_is_same(spec, known.modules.get(spec.id)) for spec in definition.modules):
        check_model("definition", definition.model, known.modules)
        return known, definition.model  # there is nothing to merge
    if (fresh := _unrelated(definition, known.modules)) is not None:
        modules = dict(sorted({**known.modules, **fresh}.items()))
        check_model("definition", definition.model, modules)
        return known.model_copy(update={"modules": modules}), definition.model
    specs = dict(known.modules)
    for spec in definition.modules:
        if specs.setdefault(spec.id, spec).identity != spec.identity:
            raise BadDefinitionError(f"modules.{spec.id}: is another module already")
    check_model("definition", definition.model, specs)
    others = {name: model for name, model in known.models.items() if name != definition.model.id}
    found = _merged(specs, [*others.values(), definition.model], first=list(known.modules))
    return known.model_copy(update={"modules": found.modules}), found.models[definition.model.id]


def _unrelated(definition: Definition, known: Mapping[str, ModuleSpec]) -> dict[str, ModuleSpec] | None:
    """Returns the modules that a definition adds; None if any of them has to be merged with another one."""
    fresh = {spec.id: spec for spec in definition.modules if not _is_same(spec, known.get(spec.id))}
    identities = {spec.identity for spec in fresh.values()}
    is_plain = len(identities) == len(fresh) and all(spec.same_as is None for spec in fresh.values())
    if not is_plain or fresh.keys() & known.keys() or any(spec.identity in identities for spec in known.values()):
        return None
    return fresh


def _is_same(spec: ModuleSpec, known: ModuleSpec | None) -> bool:
    """Returns whether a module is one of the catalogue, under its id, and says nothing new."""
    if known is None or spec.same_as is not None or spec.identity != known.identity:
        return False
    return (spec.inputs, spec.outputs) == (known.inputs, known.outputs)


def _merged(specs: dict[str, ModuleSpec], models: list[ModelSpec], first: Sequence[str] = ()) -> Catalogue:
    """Merges modules of the same identity, and those linked by `same_as`; ids in `first` are kept in preference."""
    chosen: dict[str, str] = {}
    for module_id in [*first, *sorted(specs.keys() - set(first))]:
        spec, one_id = specs[module_id], chosen.setdefault(specs[module_id].identity, module_id)
        if (specs[one_id].inputs, specs[one_id].outputs) != (spec.inputs, spec.outputs):
            raise BadDefinitionError(
                f"modules.{module_id}: is the same module as {one_id} (source, prefix, class, config) "
                "with other inputs or outputs"
            )
    one = {module_id: chosen[spec.identity] for module_id, spec in specs.items()}
    origins: dict[str, list[Origin]] = {}
    for module_id, spec in specs.items():
        if spec.same_as is not None:
            one[module_id] = one[_same_module(spec, specs)]
            origin = Origin(source=spec.source, revision=spec.revision, prefix=spec.prefix)
            origins.setdefault(one[module_id], []).append(origin)
    shared = [
        model.model_copy(
            update={"steps": {s: t.model_copy(update={"module": one[t.module]}) for s, t in model.steps.items()}}
        )
        for model in models
    ]
    return Catalogue(
        modules={m: _with_origins(specs[m], origins.get(m, [])) for m in sorted(set(one.values()))},
        models={m.id: m for m in shared},
    )


def _same_module(spec: ModuleSpec, specs: Mapping[str, ModuleSpec]) -> str:
    """Returns the module that `same_as` names, after checking that it has the spec's inputs and outputs."""
    other = specs.get(spec.same_as or "")
    if other is None or other.same_as is not None:
        what = "no module" if other is None else "itself declared to be another"
        raise BadDefinitionError(f"modules.{spec.id}.same_as: {spec.same_as!r} is {what}")
    if other.inputs != spec.inputs or not spec.outputs.items() <= other.outputs.items():
        raise BadDefinitionError(f"modules.{spec.id}.same_as: {other.id} does not take and give what it does")
    return other.id


def _with_origins(spec: ModuleSpec, origins: list[Origin]) -> ModuleSpec:
    new = [origin for origin in origins if origin not in spec.also]
    return spec.model_copy(update={"also": [*spec.also, *new]}) if new else spec


def shipped_folder() -> Path:
    """Returns the folder of the definitions that come with the package."""
    return Path(str(files("s2m3.schemas").joinpath("models")))


@cache
def shipped_catalogue() -> Catalogue:
    """Returns the catalogue of the definitions that come with the package."""
    return load_catalogue(shipped_folder().glob("*.toml"))
