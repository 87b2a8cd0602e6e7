"""The interface for module classes of other packages (docs/models.md): these names stay.

A package declares its classes as entry points of the group `s2m3.modules`; each is a function
`load(spec: ModuleSpec, source: ModuleSource) -> Module`.
"""

from s2m3.agents.checkpoints.storage.part import CheckpointPart, read_floats
from s2m3.agents.modules.ports import Config, port, read_config, tensor_port, text_port, texts_port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.registry.source import ModuleSource
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.agents.serving.module import Generator, Module, TokenSequence
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.specs import ModuleSpec
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = [
    "BadInputError",
    "CheckpointPart",
    "Config",
    "Generator",
    "Module",
    "ModuleFailedError",
    "ModuleSource",
    "ModuleSpec",
    "Options",
    "TokenSequence",
    "Value",
    "between_slices",
    "port",
    "read_config",
    "read_floats",
    "tensor_port",
    "text_port",
    "texts_port",
    "write_all",
]
