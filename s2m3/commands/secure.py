"""The commands `secure init`, `add`, `revoke`, `ls`: logins and rights on your Mosquitto. They connect to no broker."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from s2m3.commands import options
from s2m3.commands import secure_install as installing
from s2m3.commands.terminal import Listing, console
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.roles import ROLES, Rights, Role
from s2m3.schemas.settings import BrokerSettings
from s2m3.secured.registry import Kind, Login, Registry

if TYPE_CHECKING:
    from s2m3.secured.folder import SecuredFolder

__all__ = ["app"]

app = typer.Typer(help="Certificates, passwords and rights for your Mosquitto.", no_args_is_help=True)

#: These are used where certificates are a burden.
_PASSWORDS: frozenset[Role] = frozenset({"device", "viewer", "home-assistant"})
_SOON_DAYS = 30
_RESTART = "have Mosquitto read it: systemctl restart mosquitto (all come back; a reload can crash 2.0.11 later)"
_Folder = Annotated[Path, typer.Argument(help="folder of the secured site", show_default=False)]
_Hosts = Annotated[
    list[str] | None, typer.Option("--host", help="name or address by which devices reach the broker; repeat")
]
_Owner = Annotated[
    str | None, typer.Option("--owner", help="system user that the broker runs as [mosquitto, if you are root]")
]


app.command()(installing.install)
app.command()(installing.uninstall)


@app.command()
def init(
    folder: _Folder,
    host: _Hosts = None,
    add: Annotated[list[str] | None, typer.Option(help="ROLE:NAME, a login to make at once; repeat")] = None,
    *,
    read: Annotated[
        list[str] | None, typer.Option(help="topics outside the root that an added bridge may read")
    ] = None,
    write: Annotated[
        list[str] | None, typer.Option(help="topics outside the root that an added bridge may write")
    ] = None,
    existing: Annotated[str | None, typer.Option(help="user name of Home Assistant on your own listener")] = None,
    root: Annotated[str, typer.Option(help="first levels of every topic")] = "s2m3/v1",
    at: Annotated[
        str | None, typer.Option(help="path where the broker will find the folder broker/, if not here")
    ] = None,
    owner: _Owner = None,
    first_port: installing.FirstPort = None,
    mosquitto: installing.Mosquitto = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be made and what it means")] = False,
) -> None:
    """Make a secured site, and look at the Mosquitto that is here; of a site that is there, renew its certificate.

    `s2m3 secure init /etc/s2m3 --host hub.local --add agent:hub`
    """
    from s2m3.secured.folder import SecuredFolder, mosquittos_user  # noqa: PLC0415  # cryptography: an extra

    hosts = tuple(host or ())
    logins = [_role_and_name(pair) for pair in add or ()]
    is_new = not (folder / "site.json").exists()
    if is_new and not hosts:
        raise BadInputError("--host: the name or address by which devices reach the broker")
    planned = installing.planned(folder, root=BrokerSettings(root=root).root, first_port=first_port)
    found = installing.looked_at(planned, mosquitto) if is_new and at is None else None
    if dry_run:
        typer.echo(f"{folder} would be {'made' if is_new else 'renewed'}; nothing is written")
        if is_new and at is None:
            installing.say(found)
        return
    if not is_new:
        site = SecuredFolder.open(folder)
        site.renew_server(hosts)
        typer.echo(f"the broker's certificate is renewed for {', '.join(site.registry.hosts)}; {_RESTART}")
    else:
        owner = owner or mosquittos_user()
        site = SecuredFolder.create(folder, hosts, root=planned.root, at=at, owner=owner, first_port=planned.first_port)
        logins = [("planner", "planner"), ("operator", "operator"), *logins]
    for role, login in logins:
        reads, writes = (read or (), write or ()) if role == "bridge" else ((), ())
        site.add(role, login, _kind(role, None), reads=reads, writes=writes)
    if existing is not None:
        site.admit(existing)
    _say_logins(folder, site.registry)
    if at is not None:
        typer.echo(f"for Mosquitto: {folder}/broker, to be found as {at}; its mosquitto.conf is to be included")
    elif is_new:
        installing.say(found)
        chosen = f" --mosquitto {mosquitto}" if mosquitto is not None else ""
        typer.echo(f"to do it: s2m3 secure install {folder}{chosen} && systemctl restart mosquitto")


def _say_logins(folder: Path, registry: Registry) -> None:
    typer.echo(f"{folder} holds the site's secrets: keep a copy in a safe place, and nowhere else")
    for name, login in registry.logins.items():
        where = f"S2M3_CONFIG={folder}/logins/{name}/s2m3.toml"
        if login.kind == "existing":
            where = f"{name}, on listeners with acl_file {registry.at}/acl-others"
        typer.echo(f"  {login.role:<15} {where}")


@app.command()
def add(
    folder: _Folder,
    role: Annotated[str, typer.Argument(help=" | ".join(ROLES))],
    name: Annotated[str, typer.Argument(help="name of the login; of an agent, that of its node")],
    *,
    task: Annotated[
        list[str] | None, typer.Option(help="task that a device may ask, and no other; a viewer may ask; repeat")
    ] = None,
    read: Annotated[
        list[str] | None, typer.Option(help="topics outside the root that it may read (too); repeat")
    ] = None,
    write: Annotated[
        list[str] | None, typer.Option(help="topics outside the root that it may write (too); repeat")
    ] = None,
    no_task: Annotated[list[str] | None, typer.Option(help="take this task from it; repeat")] = None,
    no_read: Annotated[list[str] | None, typer.Option(help="take the right to read this from it; repeat")] = None,
    no_write: Annotated[list[str] | None, typer.Option(help="take the right to write this from it; repeat")] = None,
    password: Annotated[bool | None, typer.Option("--password/--certificate", help="how it logs in [by role]")] = None,
    existing: Annotated[
        bool, typer.Option("--existing", help="home-assistant: by the name it has on your own listener")
    ] = False,
) -> None:
    """Add a login. Of one that is there, change the rights that are named; with none named, renew it.

    `s2m3 secure add /etc/s2m3 agent pi5`; `s2m3 secure add /etc/s2m3 bridge bridge --read 'doorbell/#'`
    """
    from s2m3.secured.folder import SecuredFolder  # noqa: PLC0415  # cryptography: an extra

    checked = _role(role)
    site = SecuredFolder.open(folder)
    if existing:
        if checked != "home-assistant" or password is not None or task or read or write:
            raise BadInputError("--existing is for home-assistant, and alone: your own listener says what else it may")
        _admit(site, name)
        return
    renewed = name in site.registry.logins
    taken = bool(no_task or no_read or no_write)
    if taken or (renewed and password is None and (task or read or write)):
        gone = Rights(tuple(no_read or ()), tuple(no_write or ()))
        login = site.change_rights(
            checked,
            name,
            tasks=task or (),
            reads=read or (),
            writes=write or (),
            without=gone,
            without_tasks=no_task or (),
        )
        typer.echo(f"{name} keeps its {login.kind}; it {_rights(login)}")
        typer.echo(_RESTART)
        return
    made = site.add(checked, name, _kind(checked, password), tasks=task or (), reads=read or (), writes=write or ())
    login = site.registry.logins[name]
    old = "its old password is not good any more" if login.password else "its old certificate is good until it expires"
    word = f"{name} is renewed, {old}" if renewed else f"{name} is a new {role}"
    typer.echo(f"{word}: carry {made} to it, and set S2M3_CONFIG to the s2m3.toml there")
    if login.password:
        typer.echo(f"other software: the password is in {made}/s2m3.toml, the CA certificate in {made}/ca.crt")
    typer.echo(_RESTART)


def _admit(site: "SecuredFolder", name: str) -> None:
    site.admit(name)
    typer.echo(f"{name} may do what Home Assistant does on listeners with acl_file {site.registry.at}/acl-others")
    typer.echo(_RESTART)


@app.command()
def revoke(folder: _Folder, name: Annotated[str, typer.Argument(help="name of the login")]) -> None:
    """Take a login away: its certificates and its rights. `s2m3 secure revoke /etc/s2m3 pi5`."""
    from s2m3.secured.folder import SecuredFolder  # noqa: PLC0415  # cryptography: an extra

    gone = SecuredFolder.open(folder).revoke(name)
    typer.echo(f"{name} ({gone.role}) is revoked")
    typer.echo(f"{_RESTART}. Until then a connection that it has stays.")
    if gone.role == "agent":
        typer.echo(f"then have the site forget it: s2m3 forget {name}")


@app.command("ls")
def list_logins(folder: _Folder, *, as_json: options.Json = False) -> None:
    """List the logins, what they are and may, and when they expire. `s2m3 secure ls /etc/s2m3`."""
    from s2m3.secured.folder import SecuredFolder  # noqa: PLC0415  # cryptography: an extra

    registry = SecuredFolder.open(folder).registry
    broker = ("(the broker)", "", "certificate", *((),) * 3, registry.server_expires)
    rows: list[tuple[str, str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...], datetime | None]] = [broker]
    for name, login in registry.logins.items():
        expires = login.certificates[0].expires if login.certificates else None
        rows.append((name, login.role, login.kind, login.tasks, login.reads, login.writes, expires))
    keys = ("name", "role", "login", "tasks", "reads", "writes", "expires")
    if as_json:
        shown = [(*row[:3], " ".join(row[3]), *row[4:6], _day(row[6])) for row in rows]
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in shown]))
        return
    table = Listing(*keys)
    for name, role, kind, *rights, expires in rows:
        words = (name, role, kind, *("\n".join(right) for right in rights))
        soon = expires is not None and (expires - datetime.now(UTC)).days < _SOON_DAYS
        table.add_row(*words, Text(f"{_day(expires)}: renew it", style="red") if soon else _day(expires) or "-")
    console().print(table)


def _rights(login: Login) -> str:
    """Returns the rights of a login besides those of its role."""
    words = (("asks", login.tasks), ("reads", login.reads), ("writes", login.writes))
    named = [f"{verb} {', '.join(rights)}" for verb, rights in words if rights]
    return "; ".join(named) or "has the rights of its role, and no others"


def _day(when: datetime | None) -> str | None:
    return f"{when:%Y-%m-%d}" if when else None


def _role(word: str) -> Role:
    if word not in ROLES:
        raise BadInputError(f"no role {word!r}; there are: {', '.join(ROLES)}")
    return word


def _role_and_name(pair: str) -> tuple[Role, str]:
    found = re.fullmatch(r"([^:]+):([^:]+)", pair)
    if found is None:
        raise BadInputError(f"--add takes ROLE:NAME, not {pair!r}")
    return _role(found[1]), found[2]


def _kind(role: Role, password: bool | None) -> Kind:  # noqa: FBT001  # the option as it was given, or not
    chosen = role in _PASSWORDS if password is None else password
    return "password" if chosen else "certificate"
