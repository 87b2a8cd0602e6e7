"""One FastAPI process with all models, as one would write it: `uvicorn peer_servers.fastapi_app:app`.

PEER_ONNX is the folder of the exported networks: with it, ONNX Runtime and faster-whisper; without, torch. PEER_THREADS
is the number of ONNX Runtime's compute threads.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form

from peer_servers.modules import TASKS, TorchModules
from peer_servers.onnx_modules import OnnxModules

app = FastAPI()
_folder = os.environ.get("PEER_ONNX")
_models = OnnxModules(Path(_folder)) if _folder else TorchModules()


@app.get("/health")
def health() -> dict[str, bool]:
    """Says that the models are loaded."""
    return {"ready": True}


@app.post("/ask/{task}")
def ask(task: str, file: Annotated[bytes, File()], text: Annotated[list[str] | None, Form()] = None) -> dict[str, Any]:
    """Answers one request, in a thread of the pool."""
    inputs = {TASKS[task]: file} | ({"text": text} if text else {})
    return {"value": _models.ask(task, inputs)}
