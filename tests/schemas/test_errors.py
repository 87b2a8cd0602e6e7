"""Errors: the codes of docs/protocol.md, there and back."""

import pytest

from s2m3.schemas import errors
from s2m3.schemas.errors import S2M3Error, error_from_code

CODES = {
    "bad_input",
    "unknown_task",
    "no_capacity",
    "too_large",
    "busy",
    "timeout",
    "module_failed",
    "not_ready",
    "unauthorised",
}
CLASSES = [
    cls for name in errors.__all__ if isinstance(cls := getattr(errors, name), type) and issubclass(cls, S2M3Error)
]


def test_the_codes_are_those_of_the_contract() -> None:
    """Some are said to the person at this machine only."""
    here = {"error", "broker_unreachable", "not_installed", "name_taken", "unsupported_checkpoint"}
    assert {cls.code for cls in CLASSES} - here == CODES


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_comes_back_as_its_class(code: str) -> None:
    error = error_from_code(code, "why", step="image", node="pi5")
    assert type(error) is not S2M3Error
    assert error.as_dict() == {"code": code, "detail": "why", "step": "image", "node": "pi5"}
    assert str(error) == f"{code}: why (step image, node pi5)"


def test_a_code_that_is_not_known_keeps_its_text() -> None:
    error = error_from_code("quantum_flux", "why")
    assert type(error) is S2M3Error
    assert "quantum_flux" in str(error)
    assert "why" in str(error)


def test_what_is_not_known_is_left_out() -> None:
    assert errors.BusyError("full").as_dict() == {"code": "busy", "detail": "full"}


def test_another_replica_is_tried_only_where_it_may_help() -> None:
    assert {cls.code for cls in CLASSES if cls.retriable} == {"busy", "module_failed", "not_ready"}


def test_too_large_says_how_large_and_what_is_allowed() -> None:
    error = errors.TooLargeError("too much", size=10, limit=5)
    assert (error.size, error.limit) == (10, 5)


def test_a_bad_definition_is_a_bad_input_on_the_wire() -> None:
    assert errors.BadDefinitionError("x.toml: id").as_dict()["code"] == "bad_input"
