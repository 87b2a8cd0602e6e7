"""Settings: flags go before S2M3_* variables, those before the TOML file; a wrong value is named."""

from pathlib import Path

import pytest

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.sessions import task_client_id, without_tag
from s2m3.schemas.settings import AgentSettings, BrokerSettings, PlannerSettings, unknown_variables


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "HOST", "PORT", "ROOT", "PASSWORD", "NODE", "USERNAME"):
        monkeypatch.delenv(f"S2M3_{name}", raising=False)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "s2m3.toml"
    path.write_text('host = "from-file"\nport = 1111\nroot = "from/file"\n')
    monkeypatch.setenv("S2M3_CONFIG", str(path))
    return path


def test_without_anything_the_defaults_hold() -> None:
    settings = BrokerSettings.load()
    assert (settings.host, settings.port, settings.root) == ("127.0.0.1", 1883, "s2m3/v1")
    assert settings.max_message_bytes == 32_000_000


@pytest.mark.usefixtures("config")
def test_flags_go_before_variables_and_variables_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2M3_PORT", "2222")
    monkeypatch.setenv("S2M3_HOST", "from-env")
    settings = BrokerSettings.load(host="from-flag", port=None)
    assert settings.host == "from-flag"
    assert settings.port == 2222
    assert settings.root == "from/file"


@pytest.mark.usefixtures("config")
def test_a_flag_that_was_not_given_hides_nothing() -> None:
    assert BrokerSettings.load(host=None).host == "from-file"


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S2M3_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(BadInputError, match=r"gone\.toml"):
        BrokerSettings.load()


def test_a_file_that_is_no_toml_is_refused_with_its_line(config: Path) -> None:
    config.write_text("host = \n")
    with pytest.raises(BadInputError, match=r"s2m3.toml: .*line 1"):
        BrokerSettings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 65_536),
        ("port", "many"),
        ("keepalive_s", 0),
        ("max_message_mb", -1),
        ("fallback", "two"),
        ("fallback", "two:0"),
        ("fallback", "two:1883,:1883"),
        ("root", "S2M3"),
        ("root", "a//b"),
        ("root", "a/"),
        ("root", "a/+/b"),
        ("root", "$share/x"),
        ("root", "a\n"),
    ],
)
def test_a_value_that_is_not_possible_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadInputError, match=f"setting {name}:"):
        BrokerSettings.load(**{name: value})


def test_a_variable_that_is_not_possible_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2M3_PORT", "no-number")
    with pytest.raises(BadInputError, match="setting port:"):
        BrokerSettings.load()


def test_a_node_s_name_is_an_id_and_the_device_s_own_by_default() -> None:
    assert AgentSettings.load().node
    with pytest.raises(BadInputError, match="setting node:"):
        AgentSettings.load(node="My Node")


def test_a_password_is_never_shown() -> None:
    settings = PlannerSettings.load(username="me", password="hunter2")  # noqa: S106  # nobody's
    assert "hunter2" not in repr(settings)
    assert settings.password is not None
    assert settings.password.get_secret_value() == "hunter2"


def test_the_files_paths_are_relative_to_its_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "s2m3.toml").write_text('tls_ca = "ca.crt"\ntls_cert = "/elsewhere/pi.crt"\n')
    monkeypatch.setenv("S2M3_CONFIG", str(tmp_path / "s2m3.toml"))
    settings = BrokerSettings.load()
    assert (settings.tls_ca, settings.tls_cert) == (tmp_path / "ca.crt", Path("/elsewhere/pi.crt"))


def test_client_ids_cannot_be_guessed_without_the_sites_session_key() -> None:
    bare = BrokerSettings()
    keyed = BrokerSettings.load(session_key="a key of sixteen bytes or more")
    other = BrokerSettings.load(session_key="another key of sixteen bytes or more")
    ids = [task_client_id(settings, "porch") for settings in (bare, keyed, other)]
    assert ids[0] == "s2m3-front-porch"
    assert len(set(ids)) == 3
    assert {without_tag(name) for name in ids} == {"s2m3-front-porch"}
    assert task_client_id(keyed, "porch") == ids[1]


@pytest.mark.parametrize("command", [BrokerSettings, PlannerSettings, AgentSettings])
def test_27_a_key_that_no_command_has_is_named_and_the_nearest_offered(
    config: Path, command: type[BrokerSettings]
) -> None:
    config.write_text('host = "hub"\nmemory_mib = 900\n')
    with pytest.raises(BadInputError, match=r"s2m3\.toml: no setting 'memory_mib'; did you mean memory_mb\?"):
        command.load()
    config.write_text('host = "hub"\ncheckpoint = "models"\n')
    with pytest.raises(BadInputError, match=r"no setting 'checkpoint'; did you mean checkpoints\?"):
        command.load()
    config.write_text("xyzzy = 1\n")
    with pytest.raises(BadInputError, match=r"no setting 'xyzzy'$"):
        command.load()


def test_27_one_file_may_hold_the_settings_of_all_commands_also_by_their_older_names(config: Path) -> None:
    config.write_text('memory_mb = 900\nfront = false\nspare = false\npictures = "off"\nbudget_s = 0.5\n')
    assert BrokerSettings.load().host == "127.0.0.1"
    assert PlannerSettings.load().spare is False
    assert (AgentSettings.load().memory_mb, AgentSettings.load().gateway) == (900, False)


def test_27_a_variable_that_no_command_reads_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2M3_MEMORY_MIB", "900")
    monkeypatch.setenv("S2M3_MEMORY_MB", "900")
    assert unknown_variables() == [
        "no setting has the variable S2M3_MEMORY_MIB; did you mean S2M3_MEMORY_MB?",
    ]


def test_folders_of_checkpoints_in_the_file_are_found_from_the_file(config: Path) -> None:
    config.write_text('checkpoints = ["models", "/srv/models"]\n')
    assert AgentSettings.load().checkpoints == (config.parent / "models", Path("/srv/models"))


def test_the_brokers_of_a_cluster_are_tried_in_their_order() -> None:
    assert BrokerSettings(host="one").addresses == [("one", 1883)]
    settings = BrokerSettings(host="one", fallback="two:1884,::1:1885,")
    assert settings.addresses == [("one", 1883), ("two", 1884), ("::1", 1885)]
