"""The WebSocket listener for the page: with a login, and on Mosquitto with access to a viewer's topics only.

Any web page in a browser on this machine may open a WebSocket to it, so the listener is never anonymous.
"""

import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from s2m3.broker.servers.mosquitto_acl import access_list
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.roles import Role, rights_of

__all__ = ["PASSWORD_VARIABLE", "PageDoor"]

#: Environment variable with the password for the embedded broker's process: other users can read a command line.
PASSWORD_VARIABLE = "S2M3_WS_PASSWORD"  # noqa: S105  # its name, not the password

_MOSQUITTO = """
listener {port} 127.0.0.1
protocol websockets
# Without this, Mosquitto 2.0.11 (Debian's) takes no notice of the address and listens on all of them.
socket_domain ipv4
allow_anonymous false
password_file {passwords}
acl_file {acl}
"""
#: rumqttd supports only MQTT 3.1.1 over WebSockets, and has no access lists.
_RUMQTTD = """
[ws.1]
name = "ws"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
    [ws.1.connections]
    connection_timeout_ms = 10000
    max_payload_size = {max_bytes}
    max_inflight_count = 200
    dynamic_filters = true
    [ws.1.connections.auth]
    {username} = "{password}"
"""


@dataclass(frozen=True, slots=True)
class PageDoor:
    """The page's WebSocket listener and login.

    Args:
        port: The listener's port on 127.0.0.1.
        root: First levels of the topics that the page may read and publish on.
        username: The login's name.
        password: The login's password; a random one by default.
        role: `viewer`: the page may ask every task and change nothing; `operator`: it may change the site, too.
    """

    port: int
    root: str = "s2m3/v1"
    username: str = "page"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    role: Role = "viewer"

    @property
    def url(self) -> str:
        """The URL for a browser on this machine."""
        return f"ws://127.0.0.1:{self.port}/"

    def acl(self) -> str:
        """Returns Mosquitto's access list: the rights of the role, with requests to every task."""
        return access_list({self.username: rights_of(self.root, self.role, self.username, tasks=("+",))})

    def mosquitto(self, folder: Path) -> str:
        """Writes password file and access list into a folder; returns the listener's lines of mosquitto.conf.

        Raises:
            S2M3Error: mosquitto_passwd could not hash the password.
        """
        passwords, acl = folder / "page.passwd", folder / "page.acl"
        for path, text in ((passwords, f"{self.username}:{self.password}\n"), (acl, self.acl())):
            path.touch(mode=0o600)
            path.write_text(text)
        try:
            subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, capture_output=True)  # noqa: S603, S607  # Mosquitto's tool
        except (OSError, subprocess.CalledProcessError) as error:
            raise S2M3Error(f"mosquitto_passwd could not hash the page's password: {error}") from error
        return _MOSQUITTO.format(port=self.port, passwords=passwords, acl=acl)

    def embedded(self, max_bytes: int) -> str:
        """Returns the listener's table for rumqttd's configuration."""
        return _RUMQTTD.format(port=self.port, max_bytes=max_bytes, username=self.username, password=self.password)
