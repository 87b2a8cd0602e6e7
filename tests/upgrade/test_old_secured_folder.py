"""A folder that the release before made with `secure init` goes on with today's `secure init` and `secure add`."""

from pathlib import Path

from s2m3.secured.folder import SecuredFolder
from tests.upgrade.site import NEW, run_in


def _secure(tree: Path, *words: str | Path) -> None:
    done = run_in(tree, "-m", "s2m3", "secure", *map(str, words))
    assert done.returncode == 0, done.stderr


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_26_a_secured_folder_of_the_release_before_is_kept_and_gets_the_rights_of_this_one(
    old: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    _secure(old, "init", folder, "--host", "127.0.0.1", "--add", "agent:a", "--add", "client:alice")
    _secure(old, "add", folder, "device", "bell", "--password", "--task", "noop")
    before = _files(folder)
    acl = "broker/acl"
    assert b"rollcall" not in before[acl]

    _secure(NEW, "add", folder, "client", "bob")
    added = _files(folder)
    assert b"topic write s2m3/v1/rollcall" in added[acl]
    assert set(added) - set(before) == {f"logins/bob/{file}" for file in _of_a_certificate(before)}
    kept = [name for name in before if name.startswith(("logins/", "ca."))]
    assert {name: added[name] for name in kept} == {name: before[name] for name in kept}, "devices need nothing new"

    _secure(NEW, "init", folder, "--host", "porch.local", "--add", "agent:b")
    again = _files(folder)
    assert {name: again[name] for name in kept} == {name: before[name] for name in kept}
    assert again["broker/server.crt"] != before["broker/server.crt"], "it has another name now"
    registry = SecuredFolder.open(folder).registry
    assert registry.hosts == ("127.0.0.1", "porch.local")
    assert {"planner", "operator", "a", "alice", "bell", "bob", "b"} == set(registry.logins)
    assert registry.logins["bell"].tasks == ("noop",)


def _of_a_certificate(files: dict[str, bytes]) -> list[str]:
    return [Path(name).name for name in files if name.startswith("logins/alice/")]
