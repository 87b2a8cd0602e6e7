"""A new model in ten lines: which of some notes is nearest to a question. Its modules are there; the wiring is new.

The task carries its definition, so that no device and no planner has to be told of it first, and it shares the text
encoder with the tasks that run already. Needs `s2m3 up` beside it.

Run: python examples/new_model.py "when does the bin go out?"
"""

import argparse
import tomllib

from s2m3 import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas import topics
from s2m3.schemas.definitions import Definition, ModelSpec, shipped_catalogue
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site

MODEL = """
id = "nearest-note"
description = "Which of these notes is nearest to a question"
inputs = { question = "text", text = "texts" }
answer = ["label", "score"]
steps.asked = { module = "minilm", inputs = { text = "input.question" } }
steps.notes = { module = "minilm", inputs = { text = "input.text" } }

[steps.match]
module = "cosine"
inputs = { query = "asked.embedding", said = "asked.text", candidates = "notes.embedding", text = "notes.text" }
"""
NOTES = ["The rubbish is collected on Thursdays", "The spare key is under the pot", "The heating is serviced in May"]


def main() -> None:
    """Adds the task, asks it, and takes it away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="when does the bin go out?")
    given = parser.parse_args()
    model = ModelSpec.model_validate(tomllib.loads(MODEL))
    modules = [shipped_catalogue().modules[name] for name in model.module_ids]
    with Site(BrokerSettings()) as site, Client() as client:
        add_task(site, "notes", TaskSpec(model=model.id, definition=Definition(model=model, modules=modules)))
        site.wait(lambda seen: seen.ready("notes"), 60)
        answer = client.ask("notes", question=given.question, text=NOTES)
        print(f"{answer.value} ({answer.outputs['score']:.2f})")
        site.publish(topics.TASK, b"", task="notes")


if __name__ == "__main__":
    main()
