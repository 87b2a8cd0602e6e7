"""Tasks with stand-ins in a site's documents: the model that answers, and the reasons why no better one does."""

from typing import Any

from s2m3.snapshot import Site

__all__ = ["answering", "missed_texts", "ranks_of"]


def answering(site: Site, task: str) -> str | None:
    """Returns the model that answers a task now; None if none does."""
    rank = site.rank(task)
    return None if rank is None else site.routes[task].by_rank[rank].model


def ranks_of(site: Site, task: str) -> list[dict[str, Any]]:
    """Returns each of a task's models, the best first: whether it is ready, and why it is not placed."""
    docs = site.routes[task].by_rank if task in site.routes else ()
    return [
        {
            "model": doc.model,
            "ready": doc.ready_on(site.nodes.present),
            "error": doc.error.model_dump(exclude_none=True) if doc.error is not None else None,
        }
        for doc in docs
    ]


def missed_texts(site: Site, task: str) -> list[str]:
    """Returns why the models above the one that answers a task do not, as far as the planner says so."""
    rank = site.rank(task)
    better = site.routes[task].by_rank[:rank] if rank else ()
    return [f"{task}: {doc.model}: {doc.error.code}: {doc.error.detail}" for doc in better if doc.error is not None]
