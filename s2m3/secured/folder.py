"""The operator's folder of a secured site: makes and revokes logins, and writes what Mosquitto and devices read.

Folders are 0700 and files 0600. Only `broker/` is Mosquitto's user's, and the folder above lets its group through.
"""

import json
import os
import pwd
import re
import secrets
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.roles import Role, check_login_name
from s2m3.secured import mosquitto
from s2m3.secured.authority import Authority
from s2m3.secured.registry import Certificate, Kind, Login, Registry, Revoked

__all__ = ["CERTIFICATE_PORT", "PASSWORD_PORT", "SecuredFolder", "mosquittos_user"]

CERTIFICATE_PORT, PASSWORD_PORT = 8883, 8884
_LOGIN_DAYS = _SERVER_DAYS = 825
_PASSWORD_BYTES = 18
#: Mosquitto's users may be called nearly anything; in an access list a name ends with its line.
_USER = re.compile(r"[^\s:#+/]{1,64}")


class SecuredFolder:
    """One site's folder.

    Args:
        folder: Where it is; `create` makes it.
        registry: What it remembers.
    """

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder = folder
        self.registry = registry

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens one that is there.

        Raises:
            BadInputError: It is not there, may not be read, or is not one.
        """
        try:
            return cls(folder, Registry.model_validate_json((folder / "site.json").read_bytes()))
        except FileNotFoundError as error:
            raise BadInputError(f"{folder} holds no secured site: s2m3 secure init {folder} --host …") from error
        except OSError as error:
            raise BadInputError(f"{folder}/site.json: {error.strerror}") from error
        except ValidationError as error:
            raise BadInputError(f"{folder}/site.json is damaged: {error.errors()[0]['msg']}") from error

    @classmethod
    def create(cls, folder: Path, hosts: tuple[str, ...], *, root: str, at: str | None, owner: str | None) -> Self:
        """Makes the folder, the authority, and the broker's certificate.

        Args:
            folder: Where.
            hosts: Names and addresses that the broker is reached by, the usual one first.
            root: First levels of every topic.
            at: Where the broker will find its files; default: where they are.
            owner: User (name or number) that the broker runs as.

        Raises:
            BadInputError: It is there already, or the owner is nobody.
        """
        _user(owner)
        _make_folder(folder)
        made = Authority.new(f"S2M3 {hosts[0]}")
        for name, content in (("ca.key", made.key), ("ca.crt", made.certificate)):
            _write(folder / name, content)
        registry = Registry(
            root=root,
            hosts=hosts,
            at=at or str((folder / "broker").resolve()),
            owner=owner,
            session_key=secrets.token_urlsafe(24),
            server_expires=made.expires,
        )
        site = cls(folder, registry)
        site.renew_server(hosts)
        return site

    def renew_server(self, hosts: tuple[str, ...]) -> None:
        """Issues the broker's certificate anew, for its hosts and these."""
        known = tuple(dict.fromkeys((*self.registry.hosts, *hosts)))
        issued = self._authority().server(known, _SERVER_DAYS)
        _make_folder(self.folder / "broker")
        _write(self.folder / "broker" / "server.key", issued.key)
        _write(self.folder / "broker" / "server.crt", issued.certificate)
        self._keep(hosts=known, server_expires=issued.expires)

    def add(
        self,
        role: Role,
        name: str,
        kind: Kind,
        *,
        tasks: Iterable[str] = (),
        reads: Iterable[str] = (),
        writes: Iterable[str] = (),
    ) -> Path:
        """Makes a login, or renews one of the same role, which keeps its rights where no others are given.

        A renewed certificate leaves the older one good until it expires; a renewed password takes its place.

        Returns:
            Its folder: settings and certificates, to be carried to the device.

        Raises:
            BadInputError: The name is another's, or the rights cannot be given.
        """
        check_login_name(role, name)
        old = self.registry.logins.get(name)
        if old is not None and (old.role, old.kind) != (role, kind):
            raise BadInputError(f"{name} is already a {old.role} with a {old.kind}: revoke it first")
        login = Login(role=role, kind=kind, tasks=tuple(tasks), reads=tuple(reads), writes=tuple(writes))
        if old is not None and not (login.tasks or login.reads or login.writes):
            login = old
        self.registry.model_copy(update={"logins": {name: login}}).rights()  # refused before anything is written
        folder = self.folder / "logins" / name
        for made in (self.folder / "logins", folder):
            _make_folder(made)
        _write(folder / "ca.crt", (self.folder / "ca.crt").read_bytes())
        if kind == "certificate":
            issued = self._authority().client(name, _LOGIN_DAYS)
            _write(folder / "client.key", issued.key)
            _write(folder / "client.crt", issued.certificate)
            newest = Certificate(serial=issued.serial, expires=issued.expires)
            update: dict[str, object] = {"certificates": (newest, *(old.certificates if old else ()))}
            password = None
        else:
            password = secrets.token_urlsafe(_PASSWORD_BYTES)
            update = {"password": mosquitto.hashed(password)}
        _write(folder / "s2m3.toml", self._settings(name, login, password).encode())
        self._keep(logins={**self.registry.logins, name: login.model_copy(update=update)})
        return folder

    def admit(self, name: str) -> None:
        """Gives Home Assistant's rights to a login that a listener of the household's own checks.

        Raises:
            BadInputError: The name is one of ours, or none that Mosquitto could have.
        """
        old = self.registry.logins.get(name)
        if old is not None and old.kind != "existing":
            raise BadInputError(f"{name} is already a {old.role} with a {old.kind}: revoke it first")
        if not _USER.fullmatch(name):
            raise BadInputError(f"{name!r} is no user of Mosquitto's")
        self._keep(logins={**self.registry.logins, name: Login(role="home-assistant", kind="existing")})

    def revoke(self, name: str) -> Login:
        """Takes a login away; returns what it was.

        Raises:
            BadInputError: There is none of this name.
        """
        logins = dict(self.registry.logins)
        gone = logins.pop(name, None)
        if gone is None:
            raise BadInputError(f"no login {name!r}; there are: {', '.join(sorted(logins)) or 'none'}")
        now = datetime.now(UTC)
        revoked = (Revoked(serial=c.serial, name=name, when=now) for c in gone.certificates)
        self._keep(logins=logins, revoked=(*self.registry.revoked, *revoked))
        shutil.rmtree(self.folder / "logins" / name, ignore_errors=True)
        return gone

    def _authority(self) -> Authority:
        return Authority((self.folder / "ca.key").read_bytes(), (self.folder / "ca.crt").read_bytes())

    def _settings(self, name: str, login: Login, password: str | None) -> str:
        """The login's settings file; its paths are relative to itself."""
        lines: dict[str, object] = {
            "host": self.registry.hosts[0],
            "port": CERTIFICATE_PORT if password is None else PASSWORD_PORT,
            "root": self.registry.root,
            "tls_ca": "ca.crt",
        }
        if password is None:
            lines |= {"tls_cert": "client.crt", "tls_key": "client.key"}
        else:
            lines |= {"username": name, "password": password}
        if login.role in ("planner", "agent"):
            lines["session_key"] = self.registry.session_key
        lines |= {"agent": {"node": name}, "client": {"client": name}, "operator": {"client": name}}.get(login.role, {})
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
        return f"# {name}, {login.role}: keep this file to yourself. S2M3_CONFIG names it.\n{text}"

    def _keep(self, **changes: object) -> None:
        """Remembers, then writes what the broker reads: made again from what is remembered, it can be repeated."""
        self.registry = registry = self.registry.model_copy(update=changes)
        _write(self.folder / "site.json", registry.model_dump_json(indent=1).encode())
        hashes = {name: login.password for name, login in registry.logins.items() if login.password}
        serials = {revoked.serial: revoked.when for revoked in registry.revoked}
        broker = self.folder / "broker"
        for name, content in (
            ("ca.crt", (self.folder / "ca.crt").read_bytes()),
            ("revoked.crl", self._authority().revocations(serials)),
            ("acl", mosquitto.acl(registry.rights()).encode()),
            ("acl-others", mosquitto.acl_for_others(registry.root, registry.rights(existing=True)).encode()),
            ("passwords", "".join(f"{name}:{secret}\n" for name, secret in hashes.items()).encode()),
            ("mosquitto.conf", mosquitto.configuration(registry.at).encode()),
        ):
            _write(broker / name, content)
        self._give_to_broker(broker)

    def _give_to_broker(self, broker: Path) -> None:
        user = _user(self.registry.owner)
        if user is None:
            return
        uid, gid = user
        for path in (broker, *broker.iterdir()):
            os.chown(path, uid, gid)
        os.chown(self.folder, -1, gid)
        self.folder.chmod(0o710)  # to pass through, not to look around


def mosquittos_user() -> str | None:
    """Returns the user that Debian's Mosquitto runs as, if there is one and we may give it files."""
    if os.geteuid() != 0:
        return None
    return next((user.pw_name for user in pwd.getpwall() if user.pw_name == "mosquitto"), None)


def _user(owner: str | None) -> tuple[int, int] | None:
    if owner is None:
        return None
    if owner.isdecimal():
        return int(owner), int(owner)
    try:
        found = pwd.getpwnam(owner)
    except KeyError as error:
        raise BadInputError(f"there is no user {owner!r} on this machine") from error
    return found.pw_uid, found.pw_gid


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{path} cannot be made: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    """Replaces a file in one step; it is never readable by others, not even for a moment."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
