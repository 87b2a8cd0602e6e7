"""The operator's folder of a secured site: makes and revokes logins, and writes the files of Mosquitto and of devices.

Folders have mode 0700 and files 0600. Only `broker/` belongs to Mosquitto's user, whose group may traverse the folder.
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
from s2m3.schemas.near_names import among, no_such
from s2m3.schemas.roles import Rights, Role, check_login_name
from s2m3.secured import mosquitto
from s2m3.secured.authority import Authority
from s2m3.secured.registry import Certificate, Kind, Login, Registry, Revoked

__all__ = ["SecuredFolder", "broker_path", "mosquittos_user"]

_LOGIN_DAYS = _SERVER_DAYS = 825
_PASSWORD_BYTES = 18
#: User names of another Mosquitto listener: without white space, which would end the name in an access list.
_USER = re.compile(r"[^\s:#+/]{1,64}")


class SecuredFolder:
    """The operator's folder of one site.

    Args:
        folder: The folder; `create` makes it.
        registry: The site's settings and logins.
    """

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder = folder
        self.registry = registry

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens an existing folder.

        Raises:
            BadInputError: The folder holds no secured site, or its registry is unreadable or damaged.
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
    def create(
        cls,
        folder: Path,
        hosts: tuple[str, ...],
        *,
        root: str,
        at: str | None,
        owner: str | None,
        first_port: int = mosquitto.FIRST_PORT,
    ) -> Self:
        """Makes the folder, the authority, and the broker's certificate.

        Args:
            folder: The folder to make.
            hosts: Host names and addresses of the broker; devices use the first.
            root: First levels of every topic.
            at: The path at which the broker will find its files; None for `broker/` in the folder.
            owner: The user (name or number) that the broker runs as; None leaves ownership unchanged.
            first_port: The port for certificates; passwords and browsers get the next two.

        Raises:
            BadInputError: The folder cannot be made, or the owner is unknown.
        """
        _user(owner)
        _make_folder(folder)
        issued = Authority.new(f"S2M3 {hosts[0]}")
        for name, content in (("ca.key", issued.key), ("ca.crt", issued.certificate)):
            _write(folder / name, content)
        registry = Registry(
            root=root,
            hosts=hosts,
            at=at or broker_path(folder),
            owner=owner,
            first_port=first_port,
            session_key=secrets.token_urlsafe(24),
            server_expires=issued.expires,
        )
        site = cls(folder, registry)
        site.renew_server(hosts)
        return site

    def renew_server(self, hosts: tuple[str, ...]) -> None:
        """Issues a new broker certificate for its present hosts and the given ones."""
        known = tuple(dict.fromkeys((*self.registry.hosts, *hosts)))
        issued = self._authority().server(known, _SERVER_DAYS)
        _make_folder(self.folder / "broker")
        _write(self.folder / "broker" / "server.key", issued.key)
        _write(self.folder / "broker" / "server.crt", issued.certificate)
        self._save(hosts=known, server_expires=issued.expires)

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
        """Makes a login, or renews an existing one, which keeps its rights and gets these besides.

        After a renewal, the older certificate stays valid until it expires; an older password does not.

        Args:
            role: The login's role.
            name: The login's name.
            kind: Whether the login has a certificate or a password.
            tasks: Tasks that it may send requests to, as in `rights_of`.
            reads: Further topic filters outside the root that it may read.
            writes: Further topic filters outside the root that it may write.

        Returns:
            The login's folder with settings and certificates, to be copied to the device.

        Raises:
            BadInputError: A login of this name has another role or kind, or the name or a right is not allowed.
        """
        check_login_name(role, name)
        old = self.registry.logins.get(name)
        if old is not None and (old.role, old.kind) != (role, kind):
            raise BadInputError(f"{name} is already a {old.role} with a {old.kind}: revoke it first")
        login = (old or Login(role=role, kind=kind)).with_rights(tasks=tasks, reads=reads, writes=writes)
        self._check(name, login)
        folder = self.folder / "logins" / name
        for path in (self.folder / "logins", folder):
            _make_folder(path)
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
        self._save(logins={**self.registry.logins, name: login.model_copy(update=update)})
        return folder

    def change_rights(
        self,
        role: Role,
        name: str,
        *,
        tasks: Iterable[str] = (),
        reads: Iterable[str] = (),
        writes: Iterable[str] = (),
        without: Rights | None = None,
        without_tasks: Iterable[str] = (),
    ) -> Login:
        """Gives a login further rights and takes others from it, by name; its certificate or password stays.

        Args:
            role: The login's role.
            name: The login's name.
            tasks: Further tasks that it may send requests to.
            reads: Further topic filters outside the root that it may read.
            writes: Further topic filters outside the root that it may write.
            without: Topic filters outside the root that it may not read and write any more.
            without_tasks: Tasks that it may not send requests to any more.

        Raises:
            BadInputError: There is no login of this name and role, it lacks a right that is to be taken, or the rights
                cannot be given.
        """
        old = self.registry.logins.get(name)
        if old is None or old.role != role:
            there = among((n for n, login in self.registry.logins.items() if login.role == role), name)
            raise BadInputError(f"no {role} {name!r} whose rights could change; there are: {there}")
        gone = without or Rights()
        login = old.with_rights(tasks=tasks, reads=reads, writes=writes)
        login = login.without_rights(tasks=without_tasks, reads=gone.reads, writes=gone.writes)
        if old.role == "device" and old.tasks and not login.tasks:
            raise BadInputError(f"{name} may ask only {', '.join(old.tasks)}; with no task left it could ask all")
        self._check(name, login)
        self._save(logins={**self.registry.logins, name: login})
        return login

    def _check(self, name: str, login: Login) -> None:
        """Checks that the rights of a login can be given, before anything is written.

        Raises:
            BadInputError: A filter reaches into the root, or is no topic filter.
        """
        self.registry.model_copy(update={"logins": {name: login}}).rights()

    def admit(self, name: str) -> None:
        """Gives Home Assistant's rights to a login of another, existing Mosquitto listener.

        Raises:
            BadInputError: The name belongs to a login of this site, or cannot be a Mosquitto user.
        """
        old = self.registry.logins.get(name)
        if old is not None and old.kind != "existing":
            raise BadInputError(f"{name} is already a {old.role} with a {old.kind}: revoke it first")
        if not _USER.fullmatch(name):
            raise BadInputError(f"{name!r} is no user of Mosquitto's")
        self._save(logins={**self.registry.logins, name: Login(role="home-assistant", kind="existing")})

    def revoke(self, name: str) -> Login:
        """Revokes a login and its certificates, and deletes its folder; returns the login.

        Raises:
            BadInputError: There is no login of this name.
        """
        logins = dict(self.registry.logins)
        revoked_login = logins.pop(name, None)
        if revoked_login is None:
            raise BadInputError(no_such("login", name, logins))
        now = datetime.now(UTC)
        revoked = (Revoked(serial=c.serial, name=name, when=now) for c in revoked_login.certificates)
        self._save(logins=logins, revoked=(*self.registry.revoked, *revoked))
        shutil.rmtree(self.folder / "logins" / name, ignore_errors=True)
        return revoked_login

    def _authority(self) -> Authority:
        return Authority((self.folder / "ca.key").read_bytes(), (self.folder / "ca.crt").read_bytes())

    def _settings(self, name: str, login: Login, password: str | None) -> str:
        """Returns the text of the login's settings file; paths in it are relative to the file."""
        lines: dict[str, object] = {
            "host": self.registry.hosts[0],
            "port": self.registry.ports[0 if password is None else 1],
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

    def _save(self, **changes: object) -> None:
        """Saves changes to the registry, then writes the broker's files from it; may be repeated after a failure."""
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
            ("mosquitto.conf", mosquitto.configuration(registry.at, registry.first_port).encode()),
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
        self.folder.chmod(0o710)  # the group may traverse the folder but not list it


def broker_path(folder: Path) -> str:
    """Returns the path of the broker's files of a folder that is on the broker's machine."""
    return str((folder / "broker").resolve())


def mosquittos_user() -> str | None:
    """Returns the user of Debian's Mosquitto, if it exists and this process (root) may give it files; else None."""
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
    """Replaces a file atomically; the file has mode 0600 from the start."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
