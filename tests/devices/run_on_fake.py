"""Runs every tiny checkpoint on the CPU and on a fake device, each model whole, and prints what differs as JSON.

Where models are named and tiny-clip is among them, also what fake_checks.py looks at.

A process of its own, because a device stays in torch for good: python -m tests.devices.run_on_fake FOLDER [MODEL]…
"""

import json
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.devices.fake_device import FakeTensor, register  # isort: skip  # before what uses inference mode
from s2m3.agents.devices import Device, put_on
from s2m3.schemas.definitions import Definition
from tests.checkpoints.inprocess import loaded
from tests.checkpoints.models import all_definitions
from tests.checkpoints.models import definition as definition_of_checkpoint
from tests.devices.fake_checks import copies_through_pinned_memory, full_memory
from tests.zoo.samples import sample

_GIVEN = {
    "image": sample("chelsea.jpg"),
    "audio": sample("hello-world.flac"),
    "text": "a photo of the cat",
    "texts": ["a cat", "a photo of a dog"],
}


def answers(folder: Path, definition: Definition, inputs: dict[str, Any], device: Device) -> dict[str, Any]:
    """Returns the outputs of all steps, with the networks of each on a device."""
    specs = {spec.id: spec for spec in definition.modules}
    values: dict[str, Any] = {f"input.{name}": value for name, value in inputs.items()}
    model = definition.model
    for name in TopologicalSorter({step: s.after for step, s in model.steps.items()}).static_order():
        step = model.steps[name]
        module = loaded(folder, specs[step.module])
        put_on(module, device)
        wanted = frozenset(model.wanted_outputs(name))
        outputs = module.run([module.prepare({p: values[ref] for p, ref in step.inputs.items()})], wanted)[0]
        values |= {f"{name}.{output}": value for output, value in outputs.items()}
    return {name: value for name, value in values.items() if not name.startswith("input.")}


def same(a: Any, b: Any) -> bool:
    """Returns whether two outputs are equal; tensors to 1e-5."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(abs(a - b) <= 1e-5) if isinstance(a, float) else bool(a == b)


def main() -> None:
    """Prints model -> what is wrong, empty if nothing is."""
    folder = Path(sys.argv[1])
    register()
    found = {}
    named = {name: definition_of_checkpoint(folder, name) for name in sys.argv[2:]}
    for name, definition in (named or all_definitions(folder)).items():
        inputs = {port: _GIVEN[kind] for port, kind in definition.model.inputs.items()}
        try:
            expected = answers(folder, definition, inputs, Device())
            given = answers(folder, definition, inputs, Device("fake:0"))
            wrong = [output for output in expected if not same(expected[output], given[output])]
            found[name] = f"other outputs: {', '.join(wrong)}" if wrong else ""
        except Exception as error:  # noqa: BLE001  # every model is told of
            found[name] = f"{type(error).__name__}: {error}"[:300]
    assert isinstance(torch.zeros(1, device="fake:0"), FakeTensor)
    if "tiny-clip" in named:
        found["copies"] = copies_through_pinned_memory()
        found["full memory"] = full_memory(folder, "tiny-clip")
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
