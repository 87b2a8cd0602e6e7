"""Which words of a transcript are shown while the sound goes on."""

import pytest

from s2m3.hearing.agreement import Agreement


def shown(*readings: str) -> list[str]:
    agreement = Agreement()
    return [agreement.read(reading) for reading in readings]


def test_words_are_shown_once_two_readings_agree_on_them_but_never_the_last_one() -> None:
    assert shown("turn on", "turn on the kit", "turn on the kitchen") == ["", "turn on ", "the "]


def test_marks_and_capitals_make_no_difference() -> None:
    assert shown("Turn on.", "turn on the kitchen") == ["", "turn on "]


def test_readings_that_disagree_add_nothing() -> None:
    assert shown("turn off the light", "burn on the light", "burn on the lights") == ["", "", "burn on the "]


def test_what_was_shown_is_not_taken_back() -> None:
    agreement = Agreement()
    agreement.read("turn on")
    assert agreement.read("turn on the light") == "turn on "
    assert agreement.read("burn on the light now") == ""
    assert agreement.read("burn on the light now please") == ""
    assert agreement.end("Burn on the light now.") == ""
    assert agreement.shown == "turn on "


def test_the_last_reading_is_shown_as_it_is_written() -> None:
    agreement = Agreement()
    agreement.read("turn on")
    agreement.read("turn on the kit")
    texts = ("Turn", "Turn on the kitchen", "Turn on the kitchen light.")
    assert [agreement.follow(text) for text in texts] == ["", "the ", "kitchen "]
    assert agreement.end("Turn on the kitchen light.") == "light."
    assert agreement.end("Turn on the kitchen light.") == ""


@pytest.mark.parametrize("text", ["", "  ", "one", "two  words", " leading", "電気をつけて", "mix 電気 on"])
def test_all_pieces_of_a_reading_are_the_reading(text: str) -> None:
    agreement = Agreement()
    pieces = [agreement.follow(text[:end]) for end in range(len(text))]
    assert "".join([*pieces, agreement.end(text)]) == text.lstrip()


def test_scripts_without_blanks_are_compared_by_characters() -> None:
    assert shown("電気を", "電気をつけ") == ["", "電気を"]
