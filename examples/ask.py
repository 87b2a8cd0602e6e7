"""Ask a running site from Python: one question and its answer, then several at once. Needs `s2m3 up` beside it."""

import asyncio
from pathlib import Path

from s2m3 import Client

SAMPLES = Path(__file__).parent.parent / "s2m3" / "samples"


async def several(client: Client) -> None:
    """Replies can be awaited: requests go out together and the answers come as they are ready."""
    photos = [SAMPLES / name for name in ("chelsea.jpg", "coffee.jpg", "rocket.jpg")]
    answers = await asyncio.gather(*(client.submit("classification", image=photo) for photo in photos))
    for photo, answer in zip(photos, answers, strict=True):
        print(f"{photo.name}: {answer.value}, {answer.latency_ms:.0f} ms")


with Client() as client:
    answer = client.ask("retrieval", image=SAMPLES / "chelsea.jpg", text=["a cat looking at you", "a cup of coffee"])
    print(f"{answer.value} ({answer.outputs['score']:.2f}), {answer.latency_ms:.0f} ms")
    for step, node in answer.route.items():
        print(f"  {step} on {node}: {answer.steps[step].run_ms:.1f} ms")
    asyncio.run(several(client))
