"""Fixtures that the whole suite shares: a real broker of each kind, and clusters of real processes on it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from s2m3 import logs
from s2m3.broker.event_loop import Loop
from s2m3.broker.servers.launch import Broker, BrokerKind, find_mosquitto
from s2m3.schemas.settings import BrokerSettings

#: Folders whose files share one cluster, or one wheel.
_ONE_CLUSTER = ("tests/six_tasks", "tests/secured", "tests/packaging")
#: Files and folders that take longest: they are begun first, so that all workers end at the same time.
_LONGEST = (
    "families/test_families",
    "system/test_planners",
    "system/test_churn",
    "six_tasks/",
    "guard/",
    "secured/",
    "packaging/",
    "dashboard/test_page",
    "checkpoints/test_task_add",
    "chaos/",
    "plugins/",
    "system/",
    "dashboard/",
    "checkpoints/",
)
KINDS: tuple[BrokerKind, ...] = ("mosquitto", "embedded")
#: Seconds that anything awaited may take: generous, because two cores are shared with whatever else runs.
WAIT_S = 120.0
#: For the same reason no example has a time of its own.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")
#: For `make mutation`, which runs a test thousands of times: the same few examples, and the first failure is enough.
hypothesis.settings.register_profile(
    "mutation",
    parent=hypothesis.settings.get_profile("shared"),
    max_examples=30,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="leave nothing out: what takes minutes, both brokers (make chaos)",
    )
    parser.addoption("--minutes", type=float, default=30.0, help="how long the soak of tests/chaos takes")
    parser.addoption("--seed", type=int, default=None, help="replay what chance decided in a run of tests/chaos")


class _Dealer(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed
    """Deals the tests out (make test): what shares fixtures goes to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = str(Path(file).parent)
        kind = next((kind for kind in KINDS if re.search(rf"[\[-]{kind}[]-]", nodeid)), "")
        return f"{folder if folder in _ONE_CLUSTER else file} {kind}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Dealer:
    return _Dealer(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begins with what takes long; the short form leaves out what takes minutes, and some of the second broker."""
    left_out = [] if config.getoption("--long") else [item for item in items if _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: _place(item.path.relative_to(item.config.rootpath / "tests").as_posix()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves slow tests out against mutants of other modules than those that they are marked to hold."""
    marker, mutant = item.get_closest_marker("mutants_of"), os.environ.get("MUTANT_UNDER_TEST", "")
    if marker is not None and "__mutmut_" in mutant and not mutant.startswith(marker.args):
        pytest.skip("a slow test of other modules")


def _is_left_out(item: pytest.Item) -> bool:
    """What a test marked `short_on` shows does not depend on the broker: `make test` shows it on one of the two."""
    only = item.get_closest_marker("short_on")
    kind = item.callspec.params.get("kind") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    return item.get_closest_marker("long") is not None or (only is not None and kind not in (None, *only.args))


def _place(file: str) -> int:
    """Returns where a file comes: stable, so that those of one place stay in order."""
    return next((place for place, start in enumerate(_LONGEST) if file.startswith(start)), len(_LONGEST))


def has_mosquitto() -> bool:
    return find_mosquitto() is not None


@pytest.fixture(autouse=True, scope="session")
def _quiet_logs() -> None:
    logs.configure(verbose=False, quiet=True)


@pytest.fixture(params=KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> BrokerKind:
    """Both kinds of broker, one after the other."""
    if request.param == "mosquitto" and not has_mosquitto():
        pytest.skip("mosquitto is not installed")
    chosen: BrokerKind = request.param
    return chosen


@pytest.fixture(scope="session")
def shared_broker(kind: BrokerKind) -> Iterator[Broker]:
    """One broker of the kind for all tests that can tell their topics apart."""
    with Broker(kind) as running:
        yield running


@pytest.fixture
def broker(kind: BrokerKind) -> Iterator[Broker]:
    """A broker of the kind for one test alone."""
    with Broker(kind) as running:
        yield running


@pytest.fixture
def settings(shared_broker: Broker, request: pytest.FixtureRequest) -> BrokerSettings:
    """Settings on the shared broker, under a root of the test's own."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")[:60].strip("-")
    return BrokerSettings(port=shared_broker.port, root=f"test/{name}")


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop("test")
    running.start()
    yield running
    running.stop()
