"""Which plain request an answer belongs to: its picture is kept with its answer, and never with another's."""

from collections.abc import Mapping
from typing import Any

from s2m3.history.plain_requests import PlainRequests, picture_in
from s2m3.schemas.wire.plain import Transaction, plain_inputs
from s2m3.schemas.wire.values import Kind
from tests.dashboard.site import SAMPLES

KINDS: Mapping[str, Kind] = {"image": "image", "text": "texts", "sound": "audio"}


class Held(PlainRequests):
    """Requests at times in seconds, each of 10 s at most."""

    def ask(self, transaction: Transaction | None, at: float = 0.0, task: str = "porch", **inputs: Any) -> None:
        self.asked(task, transaction, inputs, KINDS, deadline_s=10.0, now=at)


def test_an_answer_has_the_inputs_of_the_request_with_its_transaction_once() -> None:
    held = Held()
    held.ask("a", image=b"A", sound=b"not kept")
    held.ask(7, image=b"7")
    held.ask("7", image=b"'7'")
    held.ask("a", task="hall", image=b"hall")
    assert held.answered("porch", 7) == {"image": b"7"}
    assert held.answered("porch", "7") == {"image": b"'7'"}
    assert held.answered("porch", "a") == {"image": b"A"}
    assert held.answered("porch", "a") == {}


def test_an_answer_without_a_transaction_is_that_of_the_only_request_that_waits() -> None:
    held = Held()
    for image in (b"first", b"second"):
        held.ask(None, image=image)
        assert held.answered("porch", None) == {"image": image}
    assert held.answered("porch", None) == {}


def test_of_several_without_a_transaction_none_is_guessed_until_all_are_answered() -> None:
    held = Held()
    held.ask(None, image=b"first")
    held.ask(None, image=b"second")
    assert held.answered("porch", None) == {}
    held.ask(None, image=b"third")
    assert held.answered("porch", None) == {}, "it may be the second's"
    assert held.answered("porch", None) == {}
    held.ask(None, image=b"fourth")
    assert held.answered("porch", None) == {"image": b"fourth"}


def test_a_request_that_was_never_answered_is_forgotten_after_its_deadline() -> None:
    held = Held()
    held.ask(None, image=b"lost")
    held.ask("t", image=b"lost")
    held.ask(None, at=60.0, image=b"new")
    assert held.answered("porch", None) == {"image": b"new"}
    assert held.answered("porch", "t") == {}


def test_pictures_of_many_requests_stay_within_a_bound_and_the_newest_are_kept() -> None:
    held, large = Held(), bytes(5_000_000)
    for number in range(6):
        held.ask(number, at=number / 10, image=large)
    assert [bool(held.answered("porch", number)) for number in range(6)] == [False, False, True, True, True, True]
    held.ask(None, image=large)
    for _ in range(5):
        held.ask("another", image=large)
    assert held.answered("porch", None) == {"image": large}, "a transaction that is used again is one request"


def test_a_picture_is_read_in_every_plain_form() -> None:
    picture = (SAMPLES / "coffee.jpg").read_bytes()
    in_base64 = plain_inputs({"image": picture})
    for inputs in ({"image": picture}, in_base64, {"image": in_base64["image"]["base64"].encode()}):
        assert picture_in(inputs, KINDS) == picture
    assert picture_in({"image": {"base64": "?"}}, KINDS) is None
    assert picture_in({"text": "a cat"}, KINDS) is None
