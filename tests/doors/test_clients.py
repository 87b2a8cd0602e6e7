"""The clients of Ollama and OpenAI themselves, which nobody wrote here."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import numpy as np
import ollama
import openai
import pytest

from s2m3.broker.servers.launch import default_kind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.doors.door import Door, opened
from tests.families.speech import sound
from tests.system.conftest import three_nodes
from tests.zoo.samples import FOLDER

CAT = (FOLDER / "chelsea.jpg").read_bytes()
SHOWN = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(CAT).decode()}"}}
FOX = "the quick brown fox jumps over the lazy dog"
TWELVE: dict[str, Any] = {
    "type": "object",
    "properties": {f"field_{n}": {"type": ("string", "number", "boolean", "integer")[n % 4]} for n in range(12)},
    "required": [f"field_{n}" for n in range(12)],
    "additionalProperties": False,
}
LIGHT = {"type": "function", "function": {"name": "light_on", "description": "switches a light on", "parameters": {}}}


@pytest.fixture
def theirs(door: Door) -> ollama.Client:
    return ollama.Client(host=door.url)


@pytest.fixture
def other(door: Door) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)


def said(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


def test_ollama_lists_tasks_and_what_they_can(theirs: ollama.Client) -> None:
    listed = {found.model for found in theirs.list().models}
    assert listed == {f"{task}:latest" for task in ("words", "chat", "look", "meaning", "hear", "say")}
    assert {found.model for found in theirs.ps().models} == listed
    assert theirs.show("chat").capabilities == ["completion", "tools"]
    assert theirs.show("look:latest").capabilities == ["completion", "vision", "tools"]
    assert theirs.show("meaning").capabilities == ["embedding"]
    assert theirs.pull("chat").status == "success"


def test_ollama_chats_whole_and_as_it_is_written(theirs: ollama.Client) -> None:
    whole = theirs.chat("words", said("before", FOX))
    assert (whole.message.content, whole.done, whole.done_reason) == (FOX, True, "stop")
    parts = list(theirs.chat("words", said(FOX), stream=True))
    assert len(parts) > 3
    assert "".join(part.message.content or "" for part in parts) == FOX
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    written = list(theirs.generate("words", FOX, options={"num_predict": 2}, keep_alive="1h", stream=True))
    assert "".join(part.response or "" for part in written) == "the quick"
    assert theirs.generate("chat", "a", options={"num_predict": 3}).done_reason == "length"
    assert theirs.generate("words", "").done_reason == "load"


def test_ollama_shows_pictures(theirs: ollama.Client, site: Cluster) -> None:
    options = {"num_predict": 6}
    answer = theirs.chat("look", [{"role": "user", "content": "what is this", "images": [CAT, CAT]}], options=options)
    with Client(settings=site.settings) as client:
        expected = client.ask("look", image=[CAT, CAT], text="what is this", options={"max_tokens": 6})
    assert answer.message.content == expected.value
    assert theirs.generate("look", "what is this", images=[CAT, CAT], options=options).response == expected.value


def test_ollama_embeds(theirs: ollama.Client, site: Cluster) -> None:
    vectors = theirs.embed("meaning", ["a cat", "the moon"]).embeddings
    with Client(settings=site.settings) as client:
        assert np.allclose(vectors, client.ask("meaning", text=["a cat", "the moon"]).value)
    assert np.allclose(theirs.embeddings("meaning", "a cat").embedding, vectors[0], atol=1e-5)


def test_ollama_reads_errors(theirs: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="unknown_task") as caught:
        theirs.chat("nosuch", said("a"))
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="takes no pictures"):
        theirs.chat("words", [{"role": "user", "content": "a", "images": [CAT]}])
    with pytest.raises(ollama.ResponseError, match=r"options\.format"):
        theirs.chat("chat", said("a"), format={"type": "strin"}, stream=False)


def test_openai_lists_and_chats(other: openai.OpenAI) -> None:
    assert {found.id for found in other.models.list()} >= {"words", "chat"}
    assert other.models.retrieve("chat").owned_by == "s2m3"
    choice = other.chat.completions.create(model="words", messages=said(FOX), max_completion_tokens=3).choices[0]
    assert choice.message.content == "the quick brown"
    parts = list(other.chat.completions.create(model="words", messages=said(FOX), stream=True, stop=["dog"]))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == FOX.removesuffix(" dog")
    assert parts[-1].choices[0].finish_reason == "stop"


def test_openai_shows_several_pictures(other: openai.OpenAI) -> None:
    content = [SHOWN, {"type": "text", "text": "what is this"}, SHOWN]
    message: Any = {"role": "user", "content": content}
    made = other.chat.completions.create(model="look", messages=[message], max_tokens=6).choices[0]
    assert made.message.content
    assert made.finish_reason in ("stop", "length")


def test_openai_embeds_as_numbers_and_as_base64(other: openai.OpenAI, theirs: ollama.Client) -> None:
    """The client asks for base64 itself where no form is named."""
    texts = ["a cat", "the moon"]
    expected = theirs.embed("meaning", texts).embeddings
    for made in (
        other.embeddings.create(model="meaning", input=texts),
        other.embeddings.create(model="meaning", input=texts, encoding_format="float"),
    ):
        assert np.allclose([item.embedding for item in made.data], expected, atol=1e-5)
    raw = other.embeddings.with_raw_response.create(model="meaning", input="a cat", encoding_format="base64")
    encoded = json.loads(raw.text)["data"][0]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(encoded), "<f4"), expected[0], atol=1e-5)


def test_openai_hears_and_speaks(other: openai.OpenAI, site: Cluster) -> None:
    heard = ("speech.wav", sound(1))
    with Client(settings=site.settings) as client:
        expected = client.ask("hear", audio=sound(1)).value
        timed = client.ask("hear", audio=sound(1), options={"timestamps": True})
    assert other.audio.transcriptions.create(model="hear", file=heard).text == expected
    events = list(other.audio.transcriptions.create(model="hear", file=heard, stream=True))
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == expected
    verbose = other.audio.transcriptions.create(model="hear", file=heard, response_format="verbose_json")
    assert verbose.language == timed.outputs["language"]
    assert [part.text for part in verbose.segments or []] == [part["text"] for part in timed.outputs["segments"]]
    spoken = other.audio.speech.create(model="say", voice="any", input="hello there").content
    assert spoken[:4] == b"RIFF"


def test_openai_reads_errors(other: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="unknown_task"):
        other.chat.completions.create(model="nosuch", messages=said("a"))
    shown: Any = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}
    with pytest.raises(openai.BadRequestError, match="no other address is fetched"):
        other.chat.completions.create(model="look", messages=[{"role": "user", "content": [shown]}])


def _follows(door: Door, number: int) -> None:
    """Random weights, a schema of 12 fields: at both doors every answer follows it."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "twelve", "schema": TWELVE}}
    if number % 2:
        other = openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
        made = other.chat.completions.create(
            model="chat",
            messages=said(f"question {number}"),
            response_format=form,
            max_tokens=400,
            temperature=1,
            seed=number,
        ).choices[0]
        text, why = made.message.content or "", str(made.finish_reason)
    else:
        asked = {"num_predict": 400, "temperature": 0.8, "seed": number}
        answer = ollama.Client(host=door.url).chat("chat", said(f"question {number}"), format=TWELVE, options=asked)
        text, why = answer.message.content or "", str(answer.done_reason)
    assert why == "stop"
    jsonschema.validate(json.loads(text), TWELVE)


def test_answers_follow_a_schema(door: Door) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: _follows(door, number), range(4)))


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_200_of_200_answers_follow_a_schema(door: Door) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _follows(door, number), range(200)))


def test_tools_are_shown_by_the_template_and_a_call_is_read(theirs: ollama.Client, other: openai.OpenAI) -> None:
    """A form makes random weights write a call."""
    call = {"const": {"name": "light_on", "arguments": {"room": "hall"}}}
    message = theirs.chat("chat", said("on"), tools=[LIGHT], format=call, options={"num_predict": 200}).message
    assert [(c.function.name, c.function.arguments) for c in message.tool_calls or []] == [
        ("light_on", {"room": "hall"})
    ]
    form: Any = {"type": "json_schema", "json_schema": {"name": "call", "schema": call}}
    tools: Any = [LIGHT]
    choice = other.chat.completions.create(
        model="chat", messages=said("on"), tools=tools, response_format=form, max_tokens=200
    ).choices[0]
    assert choice.finish_reason == "tool_calls"
    made: Any = (choice.message.tool_calls or [])[0]
    assert (made.function.name, json.loads(made.function.arguments)) == ("light_on", {"room": "hall"})
    answered: Any = {"role": "tool", "tool_call_id": made.id, "content": "done"}
    history: Any = [*said("on"), choice.message.to_dict(), answered]
    assert other.chat.completions.create(model="chat", messages=history, tools=tools, max_tokens=5).choices


def _through_a_death(cluster: Cluster, door: Door, requests: int) -> list[str]:
    """Asks both doors in turn, whole and streamed, and kills a node that serves in the middle of it."""
    theirs = ollama.Client(host=door.url)
    other = openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)

    def ask(number: int) -> str:
        if number == requests // 2:
            with Site(cluster.settings) as seen:
                (step,) = seen.routes["words"].steps.values()
            cluster.kill(step.replicas[0].node)
        if number % 4 == 0:
            return theirs.chat("words", said(FOX)).message.content or ""
        if number % 4 == 1:
            return "".join(part.response or "" for part in theirs.generate("words", FOX, stream=True))
        if number % 4 == 2:
            return other.chat.completions.create(model="words", messages=said(FOX)).choices[0].message.content or ""
        parts = other.chat.completions.create(model="words", messages=said(FOX), stream=True)
        return "".join(part.choices[0].delta.content or "" for part in parts)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, range(requests)))


@pytest.mark.parametrize("requests", [32, pytest.param(400, marks=pytest.mark.long)])
def test_a_node_that_is_killed_is_not_noticed_by_their_clients(tmp_path: Any, requests: int) -> None:
    with three_nodes(default_kind()) as cluster:
        with Site(cluster.settings) as seen:
            add_task(seen, "words", m.TaskSpec(model="noop-text", deadline_s=60))
            assert seen.wait(lambda s: s.ready("words"), WAIT_S)
        with opened(cluster.settings.port, tmp_path) as door:
            assert _through_a_death(cluster, door, requests) == [FOX] * requests
