"""What each kind of party may read and write, in full: a right that is gained or lost shows here."""

import pytest

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.roles import ROLES, Rights, Role, check_login_name, rights_of

#: role, tasks -> what a login `n1` of the site `home` may read, and what it may write
RIGHTS: dict[tuple[Role, tuple[str, ...]], tuple[str, str]] = {
    ("planner", ()): (
        """
        home/control/drain home/control/undrain home/control/profile home/control/replan home/control/sleep
        home/control/wake home/control/preview
        home/demand/+ home/node/+/load home/node/+/profile home/node/+/settings
        home/node/+/reported home/node/+/state home/plan/+ home/planner/health home/planner/state
        home/request/+ home/request/+/+ home/request/+/+/+ home/rollcall home/route/+ home/task/+
        """,
        """
        home/client/+/in home/control/+/response home/event home/node/+/settings home/plan/+ home/planner/health
        home/planner/state home/wake/+ home/node/+/state
        home/request/+ home/request/+/+ home/request/+/+/+ home/response/+ home/rollcall home/route/+ home/task/+
        """,
    ),
    ("agent", ()): (
        """
        home/client/node-n1/in home/client/probe-n1/in home/control/drain home/control/undrain
        home/control/profile home/control/sleep home/node/n1/settings home/wake/n1
        home/module/+/n1/in home/node/+/load home/node/+/state home/plan/n1 home/request/+ home/request/+/+
        home/part/offer/+/n1 home/part/piece/+/n1 home/part/request/+/n1 home/part/wanted/+ home/request/+/+/+
        home/rollcall home/planner/state home/route/+ home/task/+ home/claims/+ home/response/+
        """,
        """
        home/client/+/in home/demand/+ home/event home/module/+/+/in home/node/n1/load home/node/n1/profile
        home/claims/+ home/node/n1/reported home/node/n1/state home/request/+ home/request/+/+ home/request/+/+/+
        home/part/offer/n1/+ home/part/piece/n1/+ home/part/request/n1/+ home/part/wanted/n1
        home/response/+ home/response/+/value home/rollcall
        """,
    ),
    ("client", ()): (
        "home/client/n1/in home/node/+/load home/node/+/state home/planner/state home/route/+",
        """
        home/client/n1/in home/demand/+ home/module/+/+/in home/request/+ home/request/+/+ home/request/+/+/+
        home/rollcall
        """,
    ),
    ("device", ()): (
        "home/client/n1/in",
        "home/request/+ home/request/+/+ home/request/+/+/+",
    ),
    ("operator", ()): (
        """
        home/bind/+ home/bridge/answer/+ home/bridge/answered/+ home/bridge/binding/+ home/bridge/node/+
        home/bridge/picture/+ home/bridge/planner home/bridge/state home/bridge/task/+ home/client/n1/in
        home/control/+/response home/event home/node/+/load home/node/+/profile home/node/+/reported
        home/node/+/settings home/node/+/state home/plan/+ home/planner/health home/planner/state home/response/+
        home/response/+/value home/route/+
        home/task/+ home/history/done/+ home/history/kept/+/+ home/history/new/+ home/history/picture/+/+/+
        home/history/state
        """,
        """
        home/control/clear-history home/control/preview home/history/wanted/+
        home/bind/+ home/client/n1/in home/control/drain home/control/undrain home/control/profile home/control/replan
        home/control/sleep home/control/wake home/demand/+ home/node/+/settings
        home/module/+/+/in home/node/+/profile home/node/+/reported home/node/+/state home/request/+
        home/request/+/+ home/request/+/+/+ home/rollcall home/task/+
        """,
    ),
    ("viewer", ()): (
        """
        home/bind/+ home/bridge/binding/+ home/bridge/state home/bridge/task/+ home/event home/node/+/load
        home/node/+/profile home/node/+/reported home/node/+/state home/plan/+ home/planner/health
        home/planner/state home/route/+ home/task/+ home/history/state
        """,
        "home/rollcall",
    ),
    ("home-assistant", ()): (
        """
        home/bridge/answer/+ home/bridge/answered/+ home/bridge/binding/+ home/bridge/node/+
        home/bridge/picture/+ home/bridge/planner home/bridge/state home/bridge/task/+ home/response/+
        home/response/+/value
        homeassistant/#
        """,
        """
        home/bridge/ask/+ home/control/drain home/control/undrain home/control/profile home/control/replan
        home/control/sleep home/control/wake home/request/+
        home/request/+/+ home/request/+/+/+ homeassistant/status
        """,
    ),
    ("bridge", ()): (
        """
        home/bind/+ home/bridge/answer/+ home/bridge/answered/+ home/bridge/ask/+ home/bridge/binding/+
        home/bridge/node/+ home/bridge/picture/+ home/bridge/planner home/bridge/state home/bridge/task/+
        home/client/bridge/in home/event home/node/+/load home/node/+/profile home/node/+/reported
        home/node/+/state home/plan/+ home/planner/health home/planner/state home/response/+ home/rollcall
        home/route/+ home/task/+ homeassistant/status home/history/state home/history/wanted/+
        home/control/clear-history home/request/+ home/request/+/+ home/request/+/+/+
        """,
        """
        home/bridge/answer/+ home/bridge/answered/+ home/bridge/binding/+ home/bridge/node/+
        home/bridge/picture/+ home/bridge/planner home/bridge/state home/bridge/task/+ home/client/bridge/in
        home/demand/+ home/event home/module/+/+/in home/request/+ home/request/+/+ home/request/+/+/+ home/rollcall
        homeassistant/#
        home/history/done/+ home/history/kept/+/+ home/history/new/+ home/history/picture/+/+/+ home/history/state
        home/control/clear-history/response
        """,
    ),
    ("neighbour", ()): (
        "home/#",
        "home/#",
    ),
    ("device", ("porch", "hall")): (
        "home/client/n1/in home/response/hall home/response/hall/value home/response/porch home/response/porch/value",
        """
        home/request/hall home/request/hall/+ home/request/hall/+/+ home/request/porch home/request/porch/+
        home/request/porch/+/+
        """,
    ),
    ("client", ("porch",)): (
        """
        home/client/n1/in home/node/+/load home/node/+/state home/response/porch home/response/porch/value
        home/planner/state home/route/+
        """,
        """
        home/client/n1/in home/demand/porch home/module/+/+/in home/request/porch home/request/porch/+
        home/request/porch/+/+ home/rollcall
        """,
    ),
    ("viewer", ("porch",)): (
        """
        home/bind/+ home/bridge/binding/+ home/bridge/state home/bridge/task/+ home/event home/node/+/load
        home/node/+/profile home/node/+/reported home/node/+/state home/plan/+ home/planner/health
        home/planner/state home/response/porch home/response/porch/value home/route/+ home/task/+
        home/history/done/+ home/history/kept/+/porch home/history/new/porch home/history/picture/+/porch/+
        home/history/state
        """,
        "home/history/wanted/+ home/request/porch home/request/porch/+ home/request/porch/+/+ home/rollcall",
    ),
}


@pytest.mark.parametrize(("role", "tasks"), RIGHTS)
def test_a_role_has_the_rights_it_should_have_and_no_others(role: Role, tasks: tuple[str, ...]) -> None:
    reads, writes = RIGHTS[role, tasks]
    rights = rights_of("home", role, "n1", tasks=tasks)
    assert set(rights.reads) == set(reads.split())
    assert set(rights.writes) == set(writes.split())


def test_every_role_is_in_the_table() -> None:
    assert {role for role, _ in RIGHTS} == set(ROLES)


def test_a_task_is_an_id_or_all_of_them() -> None:
    assert set(rights_of("home", "device", "n1", tasks=("+",)).reads) == {
        "home/client/n1/in",
        "home/response/+",
        "home/response/+/value",
    }
    with pytest.raises(BadInputError, match="task 'a/b' is not an id"):
        rights_of("home", "device", "n1", tasks=("a/b",))


def test_further_topics_are_added_to_those_of_the_role() -> None:
    extra = Rights(("cameras/+/picture", "notes/#"), ("lights/#",))
    rights = rights_of("home", "device", "n1", extra=extra)
    assert {"cameras/+/picture", "notes/#", "home/client/n1/in"} <= set(rights.reads)
    assert {"lights/#", "home/request/+"} <= set(rights.writes)


@pytest.mark.parametrize("topic_filter", ["", " ", "a\0b", "a+/b", "a/b#", "a/#/b", "#/b", "++", "a\nb"])
def test_what_is_no_topic_filter_is_refused(topic_filter: str) -> None:
    with pytest.raises(BadInputError, match="is no topic filter"):
        rights_of("home/site", "device", "n1", extra=Rights((topic_filter,)))


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+/#", "home/#", "home/site", "home/site/plan/a", "+/site", "home/+", "+/+", "$SYS/x", "$share/g/x"],
)
def test_rights_inside_the_site_or_of_the_broker_come_by_role_only(topic_filter: str) -> None:
    for extra in (Rights((topic_filter,)), Rights((), (topic_filter,))):
        with pytest.raises(BadInputError, match="reaches into home/site/ or the broker's own topics"):
            rights_of("home/site", "device", "n1", extra=extra)


@pytest.mark.parametrize("topic_filter", ["home", "home/other", "home/other/#", "+", "+/other/#", "site/#", "home-2/#"])
def test_topics_beside_the_site_may_be_given(topic_filter: str) -> None:
    assert topic_filter in rights_of("home/site", "device", "n1", extra=Rights((topic_filter,))).reads


@pytest.mark.parametrize("name", ["node-pi5", "probe-pi5", "bridge"])
def test_a_name_of_anothers_inbox_is_the_bridges_alone(name: str) -> None:
    for role in ROLES:
        if role == "bridge":
            assert check_login_name(role, name) == name
        else:
            with pytest.raises(BadInputError, match=f"the name '{name}' is kept for"):
                check_login_name(role, name)


def test_a_login_has_an_id_for_a_name() -> None:
    assert check_login_name("device", "bell") == "bell"
    assert check_login_name("device", "bridges") == "bridges"
    with pytest.raises(BadInputError, match="name 'Bell' is not an id"):
        check_login_name("device", "Bell")
