"""The registry of a secured site (`site.json`): settings, logins and revoked certificates. Frozen; writes no file."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from s2m3.schemas.roles import Rights, Role, rights_of

__all__ = ["Certificate", "Login", "Registry", "Revoked"]

#: `existing`: a login of another Mosquitto listener, which authenticates it
Kind = Literal["certificate", "password", "existing"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Certificate(_Frozen):
    """A certificate that was issued and is not revoked."""

    serial: int
    expires: datetime


class Login(_Frozen):
    """A login of the broker, with its role and rights."""

    role: Role
    kind: Kind
    tasks: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    #: newest first; older ones stay valid until they expire, so that a device can be renewed without a gap
    certificates: tuple[Certificate, ...] = ()
    #: the hash in Mosquitto's password file
    password: str | None = None


class Revoked(_Frozen):
    """A revoked certificate."""

    serial: int
    name: str
    when: datetime


class Registry(_Frozen):
    """The settings, logins and revoked certificates of a site."""

    root: str
    hosts: tuple[str, ...]
    #: the path of the broker's files on the broker's machine, and the user that owns them
    at: str
    owner: str | None
    session_key: str
    server_expires: datetime
    logins: dict[str, Login] = {}
    revoked: tuple[Revoked, ...] = ()

    def rights(self, *, existing: bool = False) -> dict[str, Rights]:
        """Returns login -> rights for this site's listeners or, with `existing`, for other listeners."""
        return {
            name: rights_of(self.root, login.role, name, tasks=login.tasks, extra=Rights(login.reads, login.writes))
            for name, login in self.logins.items()
            if (login.kind == "existing") == existing
        }
