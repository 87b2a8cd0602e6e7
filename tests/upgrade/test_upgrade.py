"""A site is upgraded device by device, in any order, under load, and no request fails."""

import random
from pathlib import Path

import pytest

from s2m3.schemas.protocol import PROTOCOL
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.history import History
from tests.chaos.load import Direct, Load, Plain, echo
from tests.upgrade.site import NODES, Mixed

_ASKED = 1_000
_PER_S = 100
#: Most without an answer: on a slow machine the pace is less.
_OPEN = 100
_MOST = 1_000_000


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(("planner", "a", "b", "c"), id="planner-first", marks=pytest.mark.short_on("mosquitto")),
        pytest.param(("a", "b", "c", "planner"), id="planner-last", marks=pytest.mark.short_on("embedded")),
    ],
)
def test_no_request_fails_while_each_process_is_upgraded(mixed: Mixed, order: tuple[str, ...], tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl", 0)
    rng = random.Random(0)  # noqa: S311  # deals the requests out, keeps no secret
    root, port = mixed.settings.root, mixed.broker.port_v3
    questions = [echo(number) for number in range(100)]
    with (
        Site(mixed.settings) as site,
        Direct(mixed.settings, history) as direct,
        Plain(port, root, ["noop"], history) as plain,
    ):
        boots = {node: site.nodes.boot(node) for node in NODES}
        assert {site.nodes.protocol(node) for node in NODES} == {0}
        with Load([direct, plain], questions, count=_MOST, per_s=_PER_S, rng=rng, most_open=_OPEN) as load:
            for name in order:
                mixed.upgrade(name, site)
            assert load.wait_until_asked(_ASKED, WAIT_S)
        assert history.wait_until_all_answered(WAIT_S), history.verdict()
        assert all(site.nodes.boot(node) != boots[node] for node in NODES)
        assert {site.nodes.protocol(node) for node in NODES} == {PROTOCOL}
        assert {site.profiles[node].protocol for node in NODES} == {PROTOCOL}
        assert site.planner is not None
        assert site.planner.protocol == PROTOCOL
    verdict = history.verdict()
    history.close()
    assert verdict.asked >= _ASKED
    assert (verdict.succeeded, dict(verdict.errors)) == (verdict.asked, {}), verdict
    assert verdict.holds, verdict
    words = mixed.words("planner", *NODES)
    assert "bad_document" not in words, words[-3000:]
    assert "handler_failed" not in words, words[-3000:]
