"""The operator's folder: what it makes, what it refuses, who may read it. No broker."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.roles import ROLES, Rights, rights_of
from s2m3.secured import mosquitto
from s2m3.secured.folder import SecuredFolder
from tests.secured.secured import fits, secure

ROOT = "s2m3/v1"
DEPLOY = Path(__file__).parents[2] / "deploy"
#: The site of deploy/acl.
EXAMPLE = {
    "planner": rights_of(ROOT, "planner", "planner"),
    "operator": rights_of(ROOT, "operator", "operator"),
    "pi5": rights_of(ROOT, "agent", "pi5"),
    "laptop": rights_of(ROOT, "client", "laptop"),
    "doorbell": rights_of(ROOT, "device", "doorbell", tasks=("porch",)),
    "wall": rights_of(ROOT, "viewer", "wall"),
    "home-assistant": rights_of(ROOT, "home-assistant", "home-assistant"),
    "bridge": rights_of(
        ROOT, "bridge", "bridge", extra=Rights(("frigate/+/person/snapshot",), ("home/porch/caption",))
    ),
}


@pytest.fixture
def site(tmp_path: Path) -> SecuredFolder:
    return SecuredFolder.create(tmp_path / "site", ("hub.local", "192.0.2.7"), root=ROOT, at=None, owner=None)


def revoked(site: SecuredFolder) -> set[int]:
    found = x509.load_pem_x509_crl((site.folder / "broker" / "revoked.crl").read_bytes())
    return {entry.serial_number for entry in found}


def serial(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / "client.crt").read_bytes()).serial_number


def test_the_shipped_configuration_and_access_list_are_what_secure_writes() -> None:
    assert (DEPLOY / "mosquitto.conf").read_text() == mosquitto.configuration("/etc/mosquitto/s2m3")
    assert (DEPLOY / "acl").read_text() == mosquitto.acl(EXAMPLE)


def test_nothing_is_readable_by_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        site = SecuredFolder.create(tmp_path / "site", ("hub",), root=ROOT, at=None, owner=None)
        site.add("agent", "pi5", "certificate")
        site.add("device", "bell", "password")
    finally:
        os.umask(before)
    paths = [site.folder, *site.folder.rglob("*")]
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_file()} == {"0o600"}
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_dir()} == {"0o700"}


def test_the_certificates_pass_openssl_s_strict_checks(site: SecuredFolder) -> None:
    """Python 3.13 makes these checks by default."""
    login = site.add("agent", "pi5", "certificate")
    for purpose, certificate in (
        ("sslserver", site.folder / "broker" / "server.crt"),
        ("sslclient", login / "client.crt"),
    ):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(site.folder / "ca.crt")]
        done = subprocess.run([*command, str(certificate)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_renewed_login_keeps_its_old_certificate_until_it_is_revoked_with_the_new_one(site: SecuredFolder) -> None:
    serials = {serial(site.add("agent", "pi5", "certificate")) for _ in range(2)}
    assert len(serials) == 2
    assert revoked(site) == set()
    site.revoke("pi5")
    assert revoked(site) == serials
    assert not (site.folder / "logins" / "pi5").exists()
    assert "user pi5" not in (site.folder / "broker" / "acl").read_text()


def test_a_renewed_login_keeps_its_rights_and_gets_another_password(site: SecuredFolder) -> None:
    made = [site.add("device", "bell", "password", tasks=["porch"]), site.add("device", "bell", "password")]
    assert site.registry.logins["bell"].tasks == ("porch",)
    assert made[0] == made[1]
    assert (site.folder / "broker" / "passwords").read_text().count("bell:") == 1


def test_a_name_may_be_used_again_after_it_was_revoked(site: SecuredFolder) -> None:
    old = serial(site.add("client", "laptop", "certificate"))
    site.revoke("laptop")
    new = serial(site.add("client", "laptop", "certificate"))
    assert revoked(site) == {old}
    assert new != old


def test_what_is_remembered_is_enough_to_go_on(site: SecuredFolder) -> None:
    site.add("device", "bell", "password", tasks=["porch"])
    before = {path.name: path.read_text() for path in (site.folder / "broker").glob("[ap]*")}
    again = SecuredFolder.open(site.folder)
    again.renew_server(("10.0.0.2",))
    assert again.registry.hosts == ("hub.local", "192.0.2.7", "10.0.0.2")
    assert {path.name: path.read_text() for path in (site.folder / "broker").glob("[ap]*")} == before


@pytest.mark.parametrize("name", ["node-pi5", "probe-pi5", "bridge", "Pi 5", "a/b", "#", "", "x\nuser y"])
def test_a_name_that_is_another_s_inbox_or_no_id_is_refused(site: SecuredFolder, name: str) -> None:
    with pytest.raises(BadInputError):
        site.add("client", name, "certificate")


@pytest.mark.parametrize("name", ["two words", "line\nuser planner", "a/b", ""])
def test_an_existing_login_s_name_changes_nothing_but_its_own_line(site: SecuredFolder, name: str) -> None:
    with pytest.raises(BadInputError):
        site.admit(name)


def test_one_of_our_own_logins_is_not_taken_for_an_existing_one(site: SecuredFolder) -> None:
    site.add("agent", "pi5", "certificate")
    with pytest.raises(BadInputError, match="already"):
        site.admit("pi5")


@pytest.mark.parametrize("task", ["#", "porch/#", "porch\ntopic write s2m3/v1/plan/+", "Porch", ""])
def test_a_task_that_is_no_id_gives_no_right(site: SecuredFolder, task: str) -> None:
    with pytest.raises(BadInputError):
        site.add("device", "bell", "password", tasks=[task])
    assert "bell" not in site.registry.logins


def test_a_name_has_one_role(site: SecuredFolder) -> None:
    site.add("device", "bell", "password")
    with pytest.raises(BadInputError, match="revoke it first"):
        site.add("operator", "bell", "certificate")


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+/#", "s2m3/#", "s2m3/v1/plan/+", "+/v1/plan/+", "s2m3/+/task/x", "$SYS/#", "", "a\nb", "a/#/b"],
)
def test_rights_inside_the_site_come_by_role_only(site: SecuredFolder, topic_filter: str) -> None:
    with pytest.raises(BadInputError):
        site.add("bridge", "bridge", "certificate", reads=[topic_filter])
    assert "bridge" not in site.registry.logins


@given(st.lists(st.sampled_from(["s2m3", "v1", "plan", "+", "#", "x"]), min_size=1, max_size=4))
def test_no_extra_right_ever_matches_a_topic_of_the_site(levels: list[str]) -> None:
    topic_filter = "/".join(levels)
    try:
        rights_of(ROOT, "bridge", "bridge", extra=Rights((topic_filter,), ()))
    except BadInputError:
        return
    for topic in (f"{ROOT}/plan/x", f"{ROOT}/x", ROOT + "/plan/v1/x"):
        assert not fits(levels, topic.split("/"))


@pytest.mark.parametrize("role", [role for role in ROLES if role not in ("planner", "neighbour")])
def test_only_the_planner_writes_plans_and_routes(role: str) -> None:
    rights = rights_of(ROOT, next(r for r in ROLES if r == role), "x")
    for topic in (f"{ROOT}/plan/x", f"{ROOT}/route/x", f"{ROOT}/planner/state"):
        assert not any(fits(written.split("/"), topic.split("/")) for written in rights.writes)


def _bridge(site: SecuredFolder) -> dict[str, list[str]]:
    """What `ls` says that the login `bridge` may read and write, and what the access list says outside the root."""
    listed = json.loads(secure("ls", site.folder, "--json").stdout)
    (found,) = [row for row in listed if row["name"] == "bridge"]
    (rights,) = [r for r in (site.folder / "broker" / "acl").read_text().split("user ") if r.startswith("bridge\n")]
    kept = re.findall(r"^topic (read|write) (?!s2m3/|homeassistant/)(.*)$", rights, flags=re.MULTILINE)
    assert sorted(kept) == sorted([*(("read", t) for t in found["reads"]), *(("write", t) for t in found["writes"])])
    return {"reads": found["reads"], "writes": found["writes"]}


def test_22_rights_are_added_and_taken_by_name(site: SecuredFolder) -> None:
    secure("add", site.folder, "bridge", "bridge", "--read", "frigate/#", "--write", "home/#")
    made = serial(site.folder / "logins" / "bridge")
    secure("add", site.folder, "bridge", "bridge", "--read", "doorbell/#")
    secure("add", site.folder, "bridge", "bridge", "--read", "doorbell/#", "--write", "hall/x")
    assert _bridge(site) == {"reads": ["frigate/#", "doorbell/#"], "writes": ["home/#", "hall/x"]}
    assert serial(site.folder / "logins" / "bridge") == made, "what it has on its device is still good, and the newest"
    secure("add", site.folder, "bridge", "bridge", "--no-read", "frigate/#", "--no-write", "home/#")
    assert _bridge(site) == {"reads": ["doorbell/#"], "writes": ["hall/x"]}
    secure("add", site.folder, "bridge", "bridge")
    assert _bridge(site) == {"reads": ["doorbell/#"], "writes": ["hall/x"]}
    assert serial(site.folder / "logins" / "bridge") != made, "with no right named, it is renewed"
    assert "doorbell/#" in secure("ls", site.folder).stdout


def test_22_a_password_stays_when_rights_change(site: SecuredFolder) -> None:
    site.add("device", "bell", "password", tasks=["porch"])
    before = (site.folder / "broker" / "passwords").read_text()
    secure("add", site.folder, "device", "bell", "--task", "garage")
    assert SecuredFolder.open(site.folder).registry.logins["bell"].tasks == ("porch", "garage")
    secure("add", site.folder, "device", "bell", "--no-task", "porch")
    assert SecuredFolder.open(site.folder).registry.logins["bell"].tasks == ("garage",)
    assert (site.folder / "broker" / "passwords").read_text() == before


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["device", "bell", "--no-task", "porch"], "could ask all"),
        (["device", "bell", "--no-task", "garage"], "not among its tasks: porch"),
        (["device", "bell", "--no-read", "x"], "not among its reads: none"),
        (["viewer", "bell", "--no-task", "porch"], "no viewer 'bell'"),
        (["device", "bell", "--read", "s2m3/#"], "reaches into"),
        (["device", "other", "--no-read", "x"], "no device 'other'"),
    ],
)
def test_22_what_cannot_be_taken_or_given_changes_nothing(site: SecuredFolder, words: list[str], why: str) -> None:
    site.add("device", "bell", "password", tasks=["porch"])
    before = (site.folder / "site.json").read_text()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        secure("add", site.folder, *words)
    assert failed.value.returncode == 2
    assert why in failed.value.stderr
    assert (site.folder / "site.json").read_text() == before


def test_a_damaged_or_missing_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text("{")
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(subprocess.CalledProcessError) as failed:
            secure("ls", folder)
        assert failed.value.returncode == 2
        assert len(failed.value.stderr.splitlines()) == 1
