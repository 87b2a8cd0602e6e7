"""Texts of Mosquitto's files: configuration, access lists, password hashes. It writes no file."""

import base64
import hashlib
import re
import secrets
from importlib.resources import files

from s2m3.broker.servers.mosquitto_acl import access_list
from s2m3.schemas.roles import Rights

__all__ = ["FIRST_PORT", "acl", "acl_for_others", "configuration", "hashed"]

#: The first of the three ports in the shipped configuration.
FIRST_PORT = 8883

#: The folder in the shipped configuration.
_SHIPPED = "/etc/mosquitto/s2m3"
#: Mosquitto hashes in its only thread: 1000 rounds block it for less than a millisecond. More rounds would protect
#: passwords that people choose; these have 144 random bits.
_ROUNDS = 1_000
_SALT_BYTES = 12


def configuration(folder: str, first_port: int = FIRST_PORT) -> str:
    """Returns the shipped configuration.

    Args:
        folder: The path of the broker's files.
        first_port: The port for certificates; passwords and browsers get the next two.
    """
    text = (files("s2m3.secured") / "mosquitto.conf").read_text(encoding="utf-8").replace(_SHIPPED, folder)
    return re.sub(r"(?m)^listener (\d+)$", lambda found: f"listener {int(found[1]) - FIRST_PORT + first_port}", text)


def acl(rights: dict[str, Rights]) -> str:
    """Returns the access list for login -> rights; Mosquitto denies everything to other logins."""
    return f"# Written by `s2m3 secure`: changes belong there.\n\n{access_list(rights)}"


def acl_for_others(root: str, rights: dict[str, Rights]) -> str:
    """Returns an access list for Mosquitto's other listeners: all of their logins may use all topics but the site's.

    Args:
        root: First levels of the site's topics.
        rights: Login of such a listener -> rights on topics of the site. Mosquitto checks these first.
    """
    deny_root = f"pattern readwrite #\npattern deny {root}/#\n"
    return f"# For your own listeners: what the site does is kept from them.\n{access_list(rights)}\n{deny_root}"


def hashed(password: str) -> str:
    """Returns a password's hash as in Mosquitto 2.0's password file: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
