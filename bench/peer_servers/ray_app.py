"""Ray Serve model composition: a deployment for each network, and an ingress that calls them through handles.

Run: python -m peer_servers.ray_app PORT. It serves until it is ended.
"""

import asyncio
import sys
import threading
from collections.abc import Mapping
from typing import Annotated, Any, cast

import ray
from fastapi import FastAPI, File, Form
from ray import serve

from peer_servers.modules import TASKS

app = FastAPI()
#: All on one machine: no replica waits for a core of its own.
_PLACED = {"num_cpus": 0}


@serve.deployment(ray_actor_options=_PLACED, max_ongoing_requests=64)
class Part:
    """One network in a process of its own."""

    def __init__(self, task: str, modules: tuple[str, ...] | None) -> None:
        from peer_servers.modules import TorchModules  # noqa: PLC0415  # torch is imported in the replica

        self._all = TorchModules([task], modules)

    def run(self, module: str, inputs: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
        """Returns the wanted outputs of one item."""
        return self._all.run(module, inputs, wanted)

    def ask(self, task: str, inputs: Mapping[str, Any]) -> Any:
        """Returns the answer of a task whose modules are all here."""
        return self._all.ask(task, inputs)


@serve.deployment(ray_actor_options=_PLACED, max_ongoing_requests=64)
@serve.ingress(app)
class Ingress:
    """The HTTP door: encoders side by side, light heads here."""

    def __init__(self, vision: Any, text: Any, speech: Any) -> None:
        from peer_servers.modules import TorchModules  # noqa: PLC0415  # as above

        self._heads = TorchModules(["retrieval"], ("imagenet-linear", "conse"))
        self._vision, self._text, self._speech = vision, text, speech

    @app.get("/health")
    async def health(self) -> dict[str, bool]:
        """Says that the ingress is there."""
        return {"ready": True}

    @app.post("/ask/{task}")
    async def ask(
        self, task: str, file: Annotated[bytes, File()], text: Annotated[list[str] | None, Form()] = None
    ) -> dict[str, Any]:
        """Answers one request."""
        if task == "transcription":
            return {"value": await self._speech.ask.remote(task, {TASKS[task]: file})}
        seen = self._vision.run.remote("efficientnet-lite0", {"image": file}, ("features",))
        if task == "classification":
            features = await seen
            found = self._heads.run("imagenet-linear", features, ("label",))
            return {"value": found["label"]}
        features, read = await asyncio.gather(seen, self._text.run.remote("minilm", {"text": text}, ("embedding",)))
        logits = self._heads.run("imagenet-linear", features, ("logits",))
        pair = {"logits": logits["logits"], "embedding": read["embedding"], "text": text}
        return {"value": self._heads.run("conse", pair, ("label",))["label"]}


def main() -> None:
    """Serves until the process is ended."""
    ray.init(include_dashboard=False, configure_logging=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    part, ingress = cast("Any", Part), cast("Any", Ingress)  # the decorator makes deployments of them
    vision = part.options(name="Vision").bind("classification", ("efficientnet-lite0",))
    text = part.options(name="Text").bind("retrieval", ("minilm",))
    speech = part.options(name="Speech").bind("transcription", None)
    serve.run(ingress.bind(vision, text, speech))
    threading.Event().wait()


if __name__ == "__main__":
    main()
