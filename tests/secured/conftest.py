"""One secured site with everybody on it, for all tests of this folder."""

from collections.abc import Iterator

import pytest

from s2m3.broker.event_loop import Loop
from s2m3.secured.authority import Authority
from s2m3.snapshot import Site
from tests.conftest import has_mosquitto
from tests.secured.secured import SecuredSite, ended, secure, short_folder

READY_S = 240.0


@pytest.fixture(scope="session")
def site() -> Iterator[SecuredSite]:
    """The broker, and a login of each role; `late` has expired, `gone` is revoked, `bob` of another authority."""
    if not has_mosquitto():
        pytest.skip("mosquitto is not installed")
    with short_folder() as folder:
        made = SecuredSite(folder)
        everybody = ["agent:a", "agent:b", "client:alice", "client:bob", "viewer:wall", "home-assistant:home"]
        extra = [
            word for login in [*everybody, "client:late", "client:gone", "bridge:bridge"] for word in ("--add", login)
        ]
        secure("init", made.folder, "--host", "127.0.0.1", "--host", "localhost", *extra)
        made.open().add("device", "bell", "password", tasks=["noop"])
        made.open().add("device", "cam", "password")
        _expire(made, "late")
        _revoke(made, "gone")
        _replace_with_a_strangers(made, "bob")
        yield made.start()
        made.stop()


@pytest.fixture(scope="session")
def running(site: SecuredSite) -> Iterator[SecuredSite]:
    """The same with a planner, two agents and the task `noop`, ready.

    test_forbidden.py starts processes with the login of another role on purpose and has to come before: what is
    subscribed from here on is what a role does (test_roles.py).
    """
    agents = [site.spawn(node, "agent", "--memory-mb", "150") for node in ("a", "b")]
    site.before = len(site.log())
    processes = [site.spawn("planner", "planner"), site.spawn("bridge", "bridge"), *agents]
    try:
        with Site(site.settings("operator")) as seen:
            assert seen.wait(lambda s: s.nodes.ready == {"a", "b"}, READY_S), site.log()[-2000:]
        added = site.run("operator", "task", "add", "noop", "--model", "noop")
        assert added.returncode == 0, added.stderr + site.log()[-2000:]
        yield site
        ended_by_themselves = [process.args for process in processes if process.poll() is not None]
        assert ended_by_themselves == [], "something that a role must do was refused"
    finally:
        for process in processes:
            ended(process)


@pytest.fixture(scope="session")
def shared_loop() -> Iterator[Loop]:
    running = Loop("test-secured")
    running.start()
    yield running
    running.stop()


def _expire(site: SecuredSite, login: str) -> None:
    authority = Authority((site.folder / "ca.key").read_bytes(), (site.folder / "ca.crt").read_bytes())
    expired = authority.client(login, days=-1)
    (site.folder / "logins" / login / "client.key").write_bytes(expired.key)
    (site.folder / "logins" / login / "client.crt").write_bytes(expired.certificate)


def _revoke(site: SecuredSite, login: str) -> None:
    """The thief has a copy of what the device had."""
    kept = site.folder / "logins" / login
    stolen = {path.name: path.read_bytes() for path in kept.iterdir()}
    site.open().revoke(login)
    kept.mkdir()
    for name, content in stolen.items():
        (kept / name).write_bytes(content)


def _replace_with_a_strangers(site: SecuredSite, login: str) -> None:
    """The name is known here, the certificate is another authority's."""
    stranger = Authority.new("another")
    made = Authority(stranger.key, stranger.certificate).client(login, days=10)
    (site.folder / "logins" / login / "client.key").write_bytes(made.key)
    (site.folder / "logins" / login / "client.crt").write_bytes(made.certificate)
