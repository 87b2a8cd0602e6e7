"""The registry of a secured site (`site.json`): settings, logins and revoked certificates. Frozen; writes no file."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.roles import Rights, Role, rights_of
from s2m3.secured.mosquitto import FIRST_PORT

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

    def with_rights(self, *, tasks: Iterable[str], reads: Iterable[str], writes: Iterable[str]) -> "Login":
        """Returns the login with further rights; present ones are not added twice."""
        given = {"tasks": (*self.tasks, *tasks), "reads": (*self.reads, *reads), "writes": (*self.writes, *writes)}
        return self.model_copy(update={name: tuple(dict.fromkeys(rights)) for name, rights in given.items()})

    def without_rights(self, *, tasks: Iterable[str], reads: Iterable[str], writes: Iterable[str]) -> "Login":
        """Returns the login without these rights.

        Raises:
            BadInputError: The login lacks one of them.
        """
        update: dict[str, tuple[str, ...]] = {}
        for name, had, gone in (
            ("tasks", self.tasks, tuple(tasks)),
            ("reads", self.reads, tuple(reads)),
            ("writes", self.writes, tuple(writes)),
        ):
            if missing := [right for right in gone if right not in had]:
                raise BadInputError(f"{missing[0]!r} is not among its {name}: {', '.join(had) or 'none'}")
            update[name] = tuple(right for right in had if right not in gone)
        return self.model_copy(update=update)


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
    #: port for certificates; passwords and browsers have the next two
    first_port: int = FIRST_PORT
    logins: dict[str, Login] = {}
    revoked: tuple[Revoked, ...] = ()

    @property
    def ports(self) -> tuple[int, int, int]:
        """The ports for certificates, for passwords, and for browsers."""
        return self.first_port, self.first_port + 1, self.first_port + 2

    def rights(self, *, existing: bool = False) -> dict[str, Rights]:
        """Returns login -> rights for this site's listeners or, with `existing`, for other listeners."""
        return {
            name: rights_of(self.root, login.role, name, tasks=login.tasks, extra=Rights(login.reads, login.writes))
            for name, login in self.logins.items()
            if (login.kind == "existing") == existing
        }
