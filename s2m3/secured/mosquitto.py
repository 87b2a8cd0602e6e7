"""What Mosquitto reads: configuration, access list, password file, as texts. Writes no file, knows no certificate."""

import base64
import hashlib
import secrets
from importlib.resources import files

from s2m3.broker.servers.mosquitto_acl import access_list
from s2m3.schemas.roles import Rights

__all__ = ["acl", "acl_for_others", "configuration", "hashed"]

#: The folder that the shipped configuration names.
_SHIPPED = "/etc/mosquitto/s2m3"
#: Mosquitto hashes in its only thread: 1000 rounds take less than a millisecond of it. More would protect words people
#: choose; ours have 144 random bits.
_ROUNDS = 1_000
_SALT_BYTES = 12


def configuration(folder: str) -> str:
    """Returns the shipped configuration for the folder that the broker finds its files in."""
    return (files("s2m3.secured") / "mosquitto.conf").read_text(encoding="utf-8").replace(_SHIPPED, folder)


def acl(rights: dict[str, Rights]) -> str:
    """Returns the access list: login -> rights. Who is not in it may do nothing."""
    return f"# Written by `s2m3 secure`: changes belong there.\n\n{access_list(rights)}"


def acl_for_others(root: str, rights: dict[str, Rights]) -> str:
    """Returns an access list for listeners that are not ours: everything but our topics, for anybody who is let in.

    Args:
        root: First levels of ours.
        rights: Login there -> what it may do inside all the same. Mosquitto looks at these first.
    """
    kept = f"pattern readwrite #\npattern deny {root}/#\n"
    return f"# For your own listeners: what the site does is kept from them.\n{access_list(rights)}\n{kept}"


def hashed(password: str) -> str:
    """Returns a password as Mosquitto 2.0 keeps it: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
