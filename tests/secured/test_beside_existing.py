"""Item 21: a site is joined to a Mosquitto that a household has configured, and taken out again; real brokers."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.schemas.errors import S2M3Error, UnauthorisedError
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from tests.broker.test_link import reached
from tests.command import s2m3, s2m3_here
from tests.conftest import has_mosquitto
from tests.secured.household import PASSWORD, USER, Household
from tests.secured.secured import published

pytestmark = pytest.mark.skipif(not has_mosquitto(), reason="mosquitto is not installed")


@dataclass(frozen=True)
class Variant:
    """A household's configuration, and whether it lets in callers without a name."""

    own: str
    above: str = ""
    anonymous: bool = False


VARIANTS = {
    "settings above the listener": Variant("allow_anonymous false\npassword_file PASSWORDS\nlistener PORT\n"),
    "settings below the listener": Variant("listener PORT\nallow_anonymous false\npassword_file PASSWORDS\n"),
    "no listener, with passwords": Variant("allow_anonymous false\npassword_file PASSWORDS\n"),
    "nothing at all": Variant("", anonymous=True),
    "settings above the include_dir": Variant(
        "listener PORT\n", above="password_file PASSWORDS\nallow_anonymous false\n"
    ),
    "a port without a listener": Variant("port PORT\npassword_file PASSWORDS\nallow_anonymous false\n"),
    "per listener already": Variant(
        "listener PORT 127.0.0.1\npassword_file PASSWORDS\n", above="per_listener_settings true\n"
    ),
    "anonymous on purpose": Variant("listener PORT 127.0.0.1\nallow_anonymous true\n", anonymous=True),
}


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Household]:
    variant: Variant = request.param
    tmp_path.chmod(0o755)
    made = Household(tmp_path, variant.own, variant.above)
    yield made
    made.stop()


def _init(house: Household, *words: str) -> None:
    where = ("--host", "127.0.0.1", "--mosquitto", str(house.main))
    done = s2m3_here("secure", "init", str(house.site), *where, "--first-port", str(house.first_port), *words)
    assert done.returncode == 0, done.stderr


def _site_lets_in(house: Household, monkeypatch: pytest.MonkeyPatch, loop: Loop, login: str) -> None:
    monkeypatch.setenv("S2M3_CONFIG", str(house.site / "logins" / login / "s2m3.toml"))
    link = Link(AgentSettings.load(), f"site-{login}", loop)
    link.start()
    link.stop()
    monkeypatch.delenv("S2M3_CONFIG")


@pytest.mark.parametrize("house", VARIANTS.values(), ids=VARIANTS, indirect=True)
def test_21_a_household_s_listeners_let_in_whom_they_did_before_during_and_after(
    house: Household, loop: Loop, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    variant: Variant = request.node.callspec.params["house"]
    before = house.files()
    _init(house, "--add", "device:bell")
    said = s2m3_here("secure", "install", str(house.site), "--mosquitto", str(house.main), "--dry-run")
    assert (said.returncode, house.files()) == (0, before)
    assert f"link {house.conf_d}/00-s2m3.conf" in said.stdout
    for _ in range(2):  # a second time it changes nothing
        done = s2m3_here("secure", "install", str(house.site), "--mosquitto", str(house.main))
        assert done.returncode == 0, done.stderr
        house.open_local_listener_on_its_port()
    house.start(house.port, house.first_port, house.first_port + 1, house.first_port + 2)
    assert house.lets_in(loop, username=USER, password=PASSWORD)
    assert house.lets_in(loop, username=None) is variant.anonymous
    if not variant.anonymous:
        assert not house.lets_in(loop, username=USER, password="guessed")  # noqa: S106
    for login in ("operator", "bell"):
        _site_lets_in(house, monkeypatch, loop, login)
    _keeps_our_topics_away(house, loop, variant)
    house.stop()
    out = s2m3_here("secure", "uninstall", str(house.site), "--mosquitto", str(house.main))
    assert out.returncode == 0, out.stderr
    assert house.files() == before


def _keeps_our_topics_away(house: Household, loop: Loop, variant: Variant) -> None:
    login = {} if variant.anonymous else {"username": USER, "password": PASSWORD}
    link = Link(BrokerSettings.load(port=house.port, **login), "house-plans", loop)
    link.start()
    with pytest.raises(UnauthorisedError, match="plan/a"):
        published(link, "s2m3/v1/plan/a")
    link.stop()


@pytest.mark.parametrize("house", [VARIANTS["settings above the listener"]], indirect=True)
def test_21_the_link_alone_takes_such_a_broker_down(house: Household) -> None:
    """As it was documented, and why `secure install` does more: the passwords are those of a second listener on 1883.

    Where the household's own listener has that port (or another program does) the broker does not start at all.
    """
    house.start().stop()
    assert "listen socket on port 1883" not in house.log.read_text()
    _init(house)
    (house.conf_d / "00-s2m3.conf").symlink_to(house.site / "broker" / "mosquitto.conf")
    with suppress(S2M3Error):
        house.start()
    assert reached(lambda: "listen socket on port 1883" in house.log.read_text())  # the last that it opens


@pytest.mark.parametrize(
    "house",
    [Variant("password_file PASSWORDS\nlistener PORT\nlistener 9001\nprotocol websockets\nallow_anonymous false\n")],
    indirect=True,
)
def test_21_every_listener_keeps_the_settings_that_it_had(house: Household) -> None:
    _init(house)
    done = s2m3_here("secure", "install", str(house.site), "--mosquitto", str(house.main))
    text = (house.conf_d / "home.conf").read_text()
    first, second = text.split("listener 9001")
    for block in (first, second):
        assert "\npassword_file " in block.replace("#s2m3: password_file", "")
        assert "\nallow_anonymous false\n" in block
        assert f"\nacl_file {house.site}/broker/acl-others\n" in block
    assert "your listener 9001 keeps, below it: password_file" in done.stdout


REFUSED = {
    "a port of ours is the household's": ("listener FIRST\n", "", "is taken by a listener of yours", "--first-port"),
    "no include_dir": ("", "#", "has no include_dir", "add a line"),
    "a plugin of two listeners": (
        "plugin /usr/lib/x.so\nlistener PORT\nlistener 9001\n",
        "",
        "cannot be kept by each",
        "per_listener_settings true",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_21_what_cannot_be_joined_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    own, comment, why, what_to_do = REFUSED[name]
    house = Household(tmp_path, own)
    own_file = house.conf_d / "home.conf"
    own_file.write_text(own_file.read_text().replace("FIRST", str(house.first_port)))
    house.main.write_text(house.main.read_text().replace("include_dir", f"{comment}include_dir"))
    before = house.files()
    words = ("--host", "127.0.0.1", "--mosquitto", str(house.main), "--first-port", str(house.first_port))
    done = s2m3_here("secure", "init", str(house.site), *words)
    assert done.returncode == 2
    assert why in done.stderr
    assert what_to_do in done.stderr
    assert (house.files(), house.site.exists()) == (before, False)


def test_21_a_site_that_is_there_is_renewed_whatever_mosquitto_is_here(tmp_path: Path) -> None:
    """Its broker may be another machine's, or have the link from earlier releases."""
    house = Household(tmp_path, "listener PORT\n")
    _init(house)
    house.main.write_text("# nothing is included\n")
    done = s2m3_here("secure", "init", str(house.site), "--mosquitto", str(house.main), "--add", "agent:pi5")
    assert done.returncode == 0, done.stderr
    assert "certificate is renewed" in done.stdout
    other = s2m3_here("secure", "init", str(house.site), "--first-port", "9000")
    assert other.returncode == 2
    assert f"has the ports from {house.first_port}" in other.stderr


def test_21_a_dry_run_of_init_makes_nothing_and_says_what_it_finds(tmp_path: Path) -> None:
    house = Household(tmp_path, "persistence false\nmax_packet_size 100000\nlistener PORT\nacl_file /etc/own\n")
    before = house.files()
    words = ("--host", "127.0.0.1", "--mosquitto", str(house.main), "--dry-run")
    done = s2m3("secure", "init", str(house.site), *words)
    assert (done.returncode, house.files(), house.site.exists()) == (0, before, False)
    for said in (
        "max_packet_size 100000: larger pictures and sounds are refused; the site wants 33000000",
        "persistence false: tasks and waiting requests are lost",
        "keeps its own access list /etc/own",
        "nothing is written",
    ):
        assert said in done.stdout
