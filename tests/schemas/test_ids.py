"""Names on the bus: what is one topic level and nothing else."""

import os
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.ids import Id, check_id, is_id, shown_id
from s2m3.schemas.request_ids import REQUEST_ID_BYTES, content_of, new_request_id, request_id_of

ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@given(st.from_regex(ID, fullmatch=True))
def test_letters_digits_and_dashes_are_an_id(name: str) -> None:
    assert check_id(name) == name


@given(st.text(max_size=80))
def test_anything_else_is_refused(name: str) -> None:
    assert is_id(name) == (ID.fullmatch(name) is not None)
    if not is_id(name):
        with pytest.raises(BadInputError):
            check_id(name)


@pytest.mark.parametrize("character", ["/", "+", "#", "\0", "\n", " ", "A", "_", ".", "é", "\u0664"])
def test_what_would_change_a_topic_is_refused_wherever_it_stands(character: str) -> None:
    for name in (character, f"{character}a", f"a{character}b", f"a{character}"):
        with pytest.raises(BadInputError, match="is not an id"):
            check_id(name)


def test_nothing_at_all_and_a_leading_dash_are_no_ids() -> None:
    assert not is_id("")
    assert not is_id("-a")


def test_64_characters_are_an_id_and_65_are_not() -> None:
    assert check_id("a" * 64)
    with pytest.raises(BadInputError) as raised:
        check_id("a" * 65)
    assert "…" in raised.value.detail


def test_an_error_says_what_the_name_was_for() -> None:
    with pytest.raises(BadInputError, match="node 'Kitchen' is not an id"):
        check_id("Kitchen", "node")


@given(st.text(max_size=80))
def test_10_an_error_offers_the_nearest_id(name: str) -> None:
    if is_id(name):
        return
    with pytest.raises(BadInputError) as raised:
        check_id(name)
    _, offers, near = raised.value.detail.rpartition("; ")
    if offers and near.endswith(" would be one"):
        assert is_id(near.removesuffix(" would be one").strip("'"))


def test_10_front_door_with_a_dash_is_offered() -> None:
    with pytest.raises(BadInputError, match="'front-door' would be one"):
        check_id("front_door", "task")


def test_the_pydantic_type_refuses_the_same() -> None:
    adapter = TypeAdapter(Id)
    assert adapter.validate_python("pi-5") == "pi-5"
    for wrong in ("Pi", "a/b", "", "a" * 65, 5):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_request_ids_are_16_bytes_and_differ() -> None:
    made = {new_request_id() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(request) for request in made} == {REQUEST_ID_BYTES} == {16}


def test_31_request_ids_come_from_the_system_and_are_not_shared_with_a_forked_process() -> None:
    """A generator whose state could be worked out from some ids would tell the next ones."""
    new_request_id()  # the parent has ids that are drawn and not used
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(new_request_id() for _ in range(200)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    there = {theirs[at : at + REQUEST_ID_BYTES] for at in range(0, len(theirs), REQUEST_ID_BYTES)}
    ours = {new_request_id() for _ in range(200)}
    assert (len(there), len(ours), there & ours) == (200, 200, set())


def test_31_from_156_ids_the_next_one_does_not_follow() -> None:
    """They are 624 words: all of the state of a Mersenne Twister, which was what drew them."""
    drawn = b"".join(new_request_id() for _ in range(156))
    words = [_state_word(int.from_bytes(drawn[at : at + 4], "little")) for at in range(0, len(drawn), 4)]
    twister = random.Random()  # noqa: S311  # it is what an attacker would have
    twister.setstate((3, (*words, len(words)), None))
    assert twister.randbytes(REQUEST_ID_BYTES) != new_request_id()


def _state_word(drawn: int) -> int:
    """Returns the word of a Mersenne Twister's state that a drawn word was made of."""
    word = drawn ^ drawn >> 18
    word ^= word << 15 & 0xEFC60000
    found = word
    for _ in range(4):
        found = word ^ (found << 7 & 0x9D2C5680)
    word = found & 0xFFFFFFFF
    for _ in range(2):
        found = word ^ found >> 11
    return found


def test_31_what_is_shown_of_an_id_does_not_tell_it_and_differs_from_that_of_another() -> None:
    made = {request: shown_id(request) for request in (new_request_id() for _ in range(100))}
    assert all(request.hex() != shown and len(shown) == 32 for request, shown in made.items())
    assert all(bytes.fromhex(shown)[8:] != request[8:] for request, shown in made.items())
    assert all(shown.startswith(request.hex()[:16]) for request, shown in made.items())
    assert len(set(made.values())) == 100


def test_29_ids_of_one_content_differ_in_their_second_half() -> None:
    made = {request_id_of(b"content8") for _ in range(100)}
    assert len(made) == 100
    assert {content_of(request) for request in made} == {b"content8"}
    assert {len(request) for request in made} == {REQUEST_ID_BYTES}
