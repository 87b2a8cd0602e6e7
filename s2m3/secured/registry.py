"""What the operator's folder remembers of a secured site: its logins and what was revoked. Frozen; writes no file."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from s2m3.schemas.roles import Rights, Role, rights_of

__all__ = ["Certificate", "Login", "Registry", "Revoked"]

#: `existing`: a login of a listener that is not ours, which checks it
Kind = Literal["certificate", "password", "existing"]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Certificate(_Kept):
    """One that was issued and is not revoked."""

    serial: int
    expires: datetime


class Login(_Kept):
    """Somebody who may come in."""

    role: Role
    kind: Kind
    tasks: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    #: the newest first; an older one stays good until it expires, so that a device can be renewed without a gap
    certificates: tuple[Certificate, ...] = ()
    #: as Mosquitto keeps it
    password: str | None = None


class Revoked(_Kept):
    """A certificate that is not good any more."""

    serial: int
    name: str
    when: datetime


class Registry(_Kept):
    """The whole site."""

    root: str
    hosts: tuple[str, ...]
    #: where the broker finds its files, and to whom they belong
    at: str
    owner: str | None
    session_key: str
    server_expires: datetime
    logins: dict[str, Login] = {}
    revoked: tuple[Revoked, ...] = ()

    def rights(self, *, existing: bool = False) -> dict[str, Rights]:
        """Returns what every login of our listeners may do, or every one of others' listeners."""
        return {
            name: rights_of(self.root, login.role, name, tasks=login.tasks, extra=Rights(login.reads, login.writes))
            for name, login in self.logins.items()
            if (login.kind == "existing") == existing
        }
