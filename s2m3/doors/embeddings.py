"""The vectors of texts, from a task whose answer is an embedding."""

from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from s2m3.client import Client
from s2m3.doors.asking import answered
from s2m3.doors.served_tasks import ServedTask
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["MOST_TEXTS", "embeddings"]

#: Most texts of one request, as in OpenAI's API.
MOST_TEXTS = 2048


async def embeddings(
    client: Client, task: ServedTask, texts: object, request: Request
) -> list[npt.NDArray[np.float32]]:
    """Returns the vector of each text, (width).

    Raises:
        BadInputError: `texts` is no list of texts, or is too long.
        S2M3Error: The request failed.
    """
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadInputError("the input is a text, or a list of texts")
    if len(texts) > MOST_TEXTS:
        raise BadInputError(f"{len(texts)} texts; at most {MOST_TEXTS}")
    if (name := task.of_kind("texts")) is not None:
        given: dict[str, Any] = {name: texts}
        answer = await answered(client.submit(task.name, **given), request)
        return _vectors(answer.value, len(texts))
    name = task.of_kind("text") or ""
    replies = [client.submit(task.name, **{name: text}) for text in texts]
    return [_vectors((await answered(reply, request)).value, 1)[0] for reply in replies]


def _vectors(value: Any, count: int) -> list[npt.NDArray[np.float32]]:
    found = np.asarray(value, dtype=np.float32).reshape(count, -1) if np.size(value) else None
    if found is None:
        raise ModuleFailedError("the task answered without a vector")
    return list(found)
