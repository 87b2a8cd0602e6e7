"""A Mosquitto with a household's own configuration, as Debian lays it out, for tests of joining a site to it."""

import getpass
import re
import signal
import subprocess
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.servers.launch import find_mosquitto, free_port, port_is_free
from s2m3.schemas.errors import S2M3Error, UnauthorisedError
from s2m3.schemas.settings import BrokerSettings
from tests.broker.test_link import reached
from tests.conftest import WAIT_S
from tests.secured.secured import ENVIRONMENT, published

USER, PASSWORD = "mqtt_user", "household"


class Household:
    """Folder and process of the broker. The broker runs as the user of the tests.

    Args:
        folder: An empty folder.
        own: The text of the household's own file in conf.d; `PORT` and `PASSWORDS` are filled in.
        above: Lines of the main file above `include_dir`.
    """

    def __init__(self, folder: Path, own: str, above: str = "") -> None:
        self.port = free_port()
        self.first_port = _three_free_ports()
        self.main = folder / "mosquitto.conf"
        self.conf_d = folder / "conf.d"
        self.conf_d.mkdir()
        self.site = folder / "s2m3"
        self.log = folder / "mosquitto.log"
        passwords = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), USER, PASSWORD], check=True, env=ENVIRONMENT)
        (folder / "data").mkdir()
        filled = [text.replace("PORT", str(self.port)).replace("PASSWORDS", str(passwords)) for text in (above, own)]
        self.main.write_text(
            f"user {getpass.getuser()}\npersistence true\npersistence_location {folder}/data/\n{filled[0]}"
            f"include_dir {self.conf_d}\n"
        )
        (self.conf_d / "home.conf").write_text(filled[1])
        self.process: subprocess.Popen[bytes] | None = None

    def files(self) -> dict[str, str]:
        """What Mosquitto reads, by name."""
        return {path.name: path.read_text() for path in [self.main, *self.conf_d.iterdir()]}

    def start(self, *ports: int, local_port: bool = False) -> Self:
        """Starts the broker and waits until it listens on its ports.

        Args:
            ports: The ports; none for the household's.
            local_port: Whether the household names no listener: Mosquitto's own is then on its port instead of 1883.

        Raises:
            S2M3Error: It ended; the text is the end of its log.
        """
        path = find_mosquitto()
        assert path is not None
        extra = ["-p", str(self.port)] if local_port else []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([path, "-v", "-c", str(self.main), *extra], stderr=log, stdout=log)
        process = self.process
        expected = ports or (self.port,)
        assert reached(lambda: process.poll() is not None or not any(port_is_free(port) for port in expected))
        if process.poll() is not None:
            raise S2M3Error(self.log.read_text()[-500:])
        return self

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(WAIT_S)

    def open_local_listener_on_its_port(self) -> None:
        """Mosquitto opens 1883 where no listener is named; the tests leave that to the machine's own broker."""
        local = self.conf_d / "01-s2m3-local.conf"
        if local.exists():
            text, changed = re.subn(r"(?m)^listener 1883 ", f"listener {self.port} ", local.read_text())
            assert changed in (0, 1, 2)
            local.write_text(text)

    def lets_in(
        self, loop: Loop, port: int | None = None, *, username: str | None, password: str | None = None
    ) -> bool:
        """Whether a login of the household's comes in and uses a topic of the household's."""
        settings = BrokerSettings(
            port=port or self.port,
            username=username,
            password=SecretStr(password) if password is not None else None,
        )
        link = Link(settings, f"house-{username}", loop)
        try:
            link.start(WAIT_S)
            published(link, "zigbee2mqtt/lamp", b"on")
        except UnauthorisedError:
            return False
        finally:
            link.stop()
        return True


def _three_free_ports() -> int:
    """Three ports in a row, which `free_port` gives to nobody else."""
    while True:
        ports = [free_port() for _ in range(3)]
        if ports[2] == ports[0] + 2:
            return ports[0]
