"""A text while its tokens come: stop texts, half characters, limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.agents.serving.detokenizer import Detokenizer


def letters(tokens: object) -> str:
    return "".join(map(chr, tokens))  # type: ignore[call-overload]


def written(text: str, stop: tuple[str, ...], limit: int = 1000) -> list[Detokenizer]:
    """The state after each letter, up to the end; the end mark follows the last."""
    states = []
    for n in range(1, len(text) + 2):
        writing = Detokenizer(letters, stop, limit)
        writing.take([ord(c) for c in text[:n]], said_end=n > len(text))
        states.append(writing)
        if writing.ended:
            break
    return states


@given(st.text(st.sampled_from("ab."), max_size=20), st.lists(st.text(st.sampled_from("ab."), min_size=1), max_size=3))
def test_a_text_ends_before_the_first_stop_text_and_nothing_of_that_is_ever_shown(text: str, stop: list[str]) -> None:
    states = written(text, tuple(stop))
    whole = min((at + len(s) for s in stop if (at := text.find(s)) >= 0), default=len(text))  # where the first is whole
    cuts = [at for s in stop if (at := text[:whole].find(s)) >= 0]
    assert states[-1].ended
    assert len(states[-1].text) == min(cuts, default=len(text))
    assert text.startswith(states[-1].text)
    assert not any(s in states[-1].text for s in stop)
    assert all(states[-1].text.startswith(state.text) for state in states)


def test_without_a_stop_text_all_is_shown_at_once() -> None:
    assert [state.text for state in written("abc", ())] == ["a", "ab", "abc", "abc"]


def test_what_may_become_a_stop_text_is_held_back_until_it_did_not() -> None:
    assert [state.text for state in written("a--b", ("--!",))] == ["a", "a", "a", "a--b", "a--b"]


def test_what_was_held_back_is_shown_when_the_text_ends_with_it() -> None:
    assert written("a--", ("--!",))[-1].text == "a--"


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_text_ends_after_its_limit(limit: int) -> None:
    assert written("abcdef", (), limit)[-1].text == "abcdef"[:limit]


def test_half_a_character_is_not_shown() -> None:
    raw = "né!".encode()
    writing = Detokenizer(lambda tokens: bytes(tokens).decode(errors="replace"), (), 100)
    seen = []
    for n in range(1, len(raw) + 1):
        writing.take(list(raw[:n]), said_end=False)
        seen.append(writing.text)
    assert seen == ["n", "n", "né", "né!"]
