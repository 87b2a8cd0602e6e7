"""Makes the table of class names for ConSE: `python -m s2m3.agents.zoo.make_conse_table` (10 s; the result ships)."""

import json

import typer
from safetensors.numpy import save_file

from s2m3.agents.modules.ranking import unit
from s2m3.agents.registry import load
from s2m3.agents.zoo.imagenet import class_names
from s2m3.agents.zoo.wheels import shipped_weights
from s2m3.schemas.definitions import shipped_catalogue

__all__ = ["main"]

#: What stands around a class's name: closer to the captions it is compared with than the bare name.
_PROMPT = "a photo of a {}"


def main() -> None:
    """Embeds the 1000 names with MiniLM and writes agents/zoo/weights/conse-minilm-imagenet.safetensors."""
    encoder = load(shipped_catalogue().modules["minilm"])
    prompts = [_PROMPT.format(name) for name in class_names()]
    (result,) = encoder.run([encoder.prepare({"text": prompts})], frozenset({"embedding"}))
    path = shipped_weights("conse-minilm-imagenet")
    save_file({"names": unit(result["embedding"])}, path, metadata={"made": json.dumps({"prompt": _PROMPT})})
    typer.echo(f"{path.name}: {result['embedding'].shape} float32, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
