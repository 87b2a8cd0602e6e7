"""Encrypts the values of the history: AES-256-GCM, with a key in a file that only its owner can read."""

import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError, S2M3Error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Cipher", "read_key"]

_KEY_BYTES, _NONCE_BYTES = 32, 12


class Cipher:
    """Encrypts values, each bound to its column and row, so that none can be moved to another place.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = _aead(key)

    def sealed(self, value: bytes, about: str) -> bytes:
        """Returns nonce and ciphertext.

        Args:
            value: The plaintext.
            about: Column and row.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, value, about.encode())

    def opened(self, value: bytes, about: str) -> bytes:
        """Returns the plaintext.

        Raises:
            S2M3Error: It was encrypted with another key, or changed.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # an extra

        try:
            return self._aead.decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], about.encode())
        except (InvalidTag, ValueError) as error:
            raise S2M3Error("it was encrypted with another key, or changed") from error


def _aead(key: bytes) -> "AESGCM":
    extras.require("secure", "An encrypted history")
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # an extra

    return AESGCM(key)


def read_key(path: Path) -> bytes:
    """Returns the key in a file; makes one, readable for its owner alone, if there is no such file.

    Raises:
        BadInputError: Others can read the file, or it holds no key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise BadInputError(f"the key {path} cannot be made: {error}") from error
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadInputError(f"the key {path} can be read by others: chmod 600 {path}")
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"the key {path} cannot be read: {error}") from error
    if len(key) != _KEY_BYTES:
        raise BadInputError(f"the key {path} is not {_KEY_BYTES} bytes in hexadecimal: openssl rand -hex {_KEY_BYTES}")
    return key
