"""The sleep command: run without a shell, waited for until the machine has slept; a failing one is no end."""

import shlex
import sys
from pathlib import Path

import pytest

from s2m3.agents.supervision import machine_sleep
from s2m3.agents.supervision.machine_sleep import MachineSleep


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def never() -> bool:
    return False


def test_the_command_is_run_without_a_shell_and_a_machine_that_stays_awake_goes_on_after_the_grace(
    tmp_path: Path,
) -> None:
    made = tmp_path / "made; touch no"
    MachineSleep(python(f"open({str(made)!r}, 'w')"), grace_s=0.0).run(never)
    assert [path.name for path in tmp_path.iterdir()] == ["made; touch no"]


@pytest.mark.parametrize("command", ["/no/such/command", python("raise SystemExit(3)"), "an unfinished 'quotation"])
def test_a_command_that_fails_leaves_the_machine_awake_at_once(command: str) -> None:
    MachineSleep(command, grace_s=1e9).run(never)


def test_a_machine_that_slept_goes_on_although_the_grace_is_not_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep_s = iter([5.0, 5.0, 5.2, 900.0])
    monkeypatch.setattr(machine_sleep, "_time_asleep_s", lambda: next(asleep_s))
    MachineSleep(python("pass"), grace_s=1e9).run(never)
    assert next(asleep_s, None) is None


def test_an_agent_that_is_told_to_end_waits_no_longer() -> None:
    asked = iter([False, False, True])
    MachineSleep(python("import time; time.sleep(1000)"), grace_s=1e9).run(lambda: next(asked))
    assert next(asked, None) is None
