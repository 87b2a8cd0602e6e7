"""What is in deploy/: units that systemd understands, containers made of what is there, ports and paths that agree."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from s2m3.secured.folder import SecuredFolder

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
#: Those that run our command.
SERVICES = [unit for unit in UNITS if "/opt/s2m3/bin/s2m3" in unit.read_text()]
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
#: systemd's own scale goes to 10.0; a service without any hardening has 9.6.
EXPOSURE = 2.0


def unit_with_our_command(unit: Path, tmp_path: Path) -> Path:
    """`verify` wants the command to be there."""
    ours = Path(sys.executable).with_name("s2m3")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/s2m3/bin/s2m3", str(ours)))
    return copy


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_the_unit_and_finds_it_hardened(unit: Path, tmp_path: Path) -> None:
    copy = unit_with_our_command(unit, tmp_path)
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    assert unit.name not in verified.stderr
    threshold = f"--threshold={EXPOSURE * 10:.0f}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, "--no-pager", str(copy)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout[-200:]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_28_with_the_drop_in_for_passwords_a_unit_is_given_one_settings_file_alone(tmp_path: Path) -> None:
    unit = unit_with_our_command(SERVICES[0], tmp_path)
    shutil.copytree(DEPLOY / "systemd" / "s2m3-.service.d", tmp_path / "s2m3-.service.d")
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, "password.conf" in verified.stderr) == (0, False), verified.stderr
    lines = (tmp_path / "s2m3-.service.d" / "password.conf").read_text().splitlines()
    assert [line for line in lines if line.startswith("LoadCredential")] == [
        "LoadCredential=",  # takes the certificates back: systemd starts no unit whose credentials are not there
        "LoadCredential=s2m3.toml:/etc/s2m3/s2m3.toml",
    ]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_the_unit_is_given_the_files_that_secure_makes_and_the_memory_it_may_take(unit: Path, tmp_path: Path) -> None:
    site = SecuredFolder.create(tmp_path / "site", ("hub",), root="s2m3/v1", at=None, owner=None)
    made = {path.name for path in site.add("agent", "pi5", "certificate").iterdir()}
    text = unit.read_text()
    given = re.findall(r"^LoadCredential=([\w.]+):/etc/s2m3/\w+/([\w.]+)$", text, re.MULTILINE)
    assert {name for name, _ in given} == {source for _, source in given} == made
    assert "Environment=S2M3_CONFIG=%d/s2m3.toml" in text
    assert re.search(r"^MemoryMax=\d+[M%]$", text, re.MULTILINE)
    assert "Restart=always\n" in text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Build(_Strict):
    context: str
    dockerfile: str


class _Service(_Strict):
    """The part of the compose specification that we use."""

    image: str | None = None
    build: _Build | None = None
    command: list[str] | None = None
    environment: dict[str, str] = {}
    volumes: list[str]
    ports: list[str] = []
    restart: str
    mem_limit: str
    user: str | None = None
    cap_drop: list[str] = []
    security_opt: list[str] = []
    read_only: bool = False
    tmpfs: list[str] = []
    depends_on: list[str] = []
    stop_grace_period: str | None = None


def services() -> dict[str, _Service]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(document) <= {"name", "services", "volumes"} | {key for key in document if key.startswith("x-")}
    return {name: _Service.model_validate(service) for name, service in document["services"].items()}


def test_the_compose_file_names_only_what_is_there_or_what_secure_makes(tmp_path: Path) -> None:
    site = SecuredFolder.create(tmp_path / "site", ("hub",), root="s2m3/v1", at="/mosquitto/s2m3", owner=None)
    for role, name in (("planner", "planner"), ("agent", "hub")):
        site.add("planner" if role == "planner" else "agent", name, "certificate")
    for service in services().values():
        assert set(service.depends_on) <= services().keys()
        if service.build is not None:
            assert (DEPLOY / service.build.context / service.build.dockerfile).is_file()
        for volume in service.volumes:
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists() or (tmp_path / source).exists(), volume


def test_the_compose_file_opens_the_listeners_of_the_shipped_configuration() -> None:
    listeners = re.findall(r"^listener (\d+)$", (DEPLOY / "mosquitto.conf").read_text(), re.MULTILINE)
    assert services()["mosquitto"].ports == [f"{port}:{port}" for port in listeners]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_a_dockerfile_copies_what_is_there_and_installs_extras_that_are_there(dockerfile: Path) -> None:
    text = dockerfile.read_text().replace("\\\n", " ")
    instructions = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in instructions} <= known
    for word, rest in instructions:
        if word == "COPY" and "--from" not in rest:
            assert [source for source in rest.split()[:-1] if not (ROOT / source).exists()] == []
        if word == "RUN":
            shlex.split(rest)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"'(?:\.|s2m3)\[([\w,]+)\]'", text)
    assert set(wanted.split(",")) <= extras.keys()
    assert [rest for word, rest in instructions if word == "USER"][-1] != "root"


def test_there_is_no_python_in_deploy() -> None:
    assert list(DEPLOY.rglob("*.py")) == []
