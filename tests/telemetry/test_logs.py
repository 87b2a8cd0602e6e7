"""The log of a process that is configured more than once: by a test, or by a program that embeds this package."""

from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from s2m3 import logs


@pytest.fixture(autouse=True)
def _configured_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_logger_that_was_used_before_follows_a_later_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    logger = structlog.get_logger("porch")
    logs.configure(verbose=False, quiet=True)
    logger.warning("first")
    logs.configure(verbose=True)
    logger.debug("second", node="n1")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" level=")[2] for line in lines] == ["warning event=first", "debug event=second node=n1"]


def test_what_such_a_logger_says_can_be_captured() -> None:
    logger = structlog.get_logger("porch")
    logs.configure(verbose=False, quiet=True)
    logger.warning("first")
    logs.configure(verbose=False, quiet=True)
    with capture_logs() as captured:
        logger.warning("second")
    assert [entry["event"] for entry in captured] == ["second"]
