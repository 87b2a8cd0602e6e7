"""Broken messages of every kind: refused or harmless. 20,000 of them; a million in the long form (`make chaos`)."""

import json
import random

import pytest

from s2m3.schemas import topics
from tests.chaos.conftest import Form
from tests.chaos.fuzz_codec import fuzz
from tests.chaos.fuzzing import SURFACES, Surface, broken


def test_broken_messages_raise_nothing_but_bad_input(form: Form) -> None:
    seed = random.randrange(2**32)  # noqa: S311  # seeded: to be repeated
    found = fuzz(20_000 if form == "short" else 1_000_000, seed)
    assert found.crashes == [], f"again with --seed {seed}"
    assert found.accepted > 2_000, "mutations that always break the syntax test the parser only"
    assert found.refused > 2_000


def test_every_topic_that_carries_a_document_is_fuzzed() -> None:
    carrying = {path.pattern for path in topics.ALL if isinstance(path, topics.Topic)}
    assert carrying <= {surface.name for surface in SURFACES}


def test_every_message_it_begins_with_is_valid() -> None:
    assert all(surface.take(payload) for surface in SURFACES for payload in surface.valid)


def test_a_reader_that_lets_another_error_out_is_found() -> None:
    careless = Surface("careless", lambda payload: json.loads(payload)["inputs"]["text"], SURFACES[2].valid)
    rng = random.Random(1)  # noqa: S311  # seeded: to be repeated
    payloads = [broken(careless.valid[0], rng) for _ in range(1_000)]
    with pytest.raises((KeyError, TypeError, ValueError)):
        [careless.take(payload) for payload in payloads]


def test_the_same_seed_breaks_the_same_messages() -> None:
    one, other = (random.Random(7) for _ in range(2))  # noqa: S311  # seeded: to be repeated
    assert [broken(b'{"a": [1, 2]}', one) for _ in range(50)] == [broken(b'{"a": [1, 2]}', other) for _ in range(50)]
