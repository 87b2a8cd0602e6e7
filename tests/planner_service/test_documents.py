"""What the planner has said: only what changed is sent, what is gone is cleared, everything again when asked."""

from s2m3.planner.site.decision import Assignment, Decision
from s2m3.planner.site.published_documents import Documents
from s2m3.schemas import topics
from s2m3.schemas.messages import Replica, RouteDoc, RouteStep
from tests.planner_service.site import make_facts

MODULES = make_facts().catalogue.modules


def route(*nodes: str) -> RouteDoc:
    step = RouteStep(
        module="noop-head", inputs={"x": "input.x"}, outputs=["y"], replicas=[Replica(node=n, ms=1) for n in nodes]
    )
    return RouteDoc(epoch=0, revision=0, model="noop", answer=["y"], deadline_s=1, steps={"head": step})


def sent(documents: Documents, decision: Decision) -> dict[str, bytes]:
    out: dict[str, bytes] = {}
    documents.update(decision, out.__setitem__)
    return out


def test_every_document_carries_epoch_and_revision() -> None:
    documents = Documents("r", epoch=5)
    out = sent(documents, Decision({"a": Assignment((MODULES["noop-head"],))}, {"t": route("a")}))
    plan, doc = topics.PLAN.decode(out["r/plan/a"]), topics.ROUTE.decode(out["r/route/t"])
    assert (plan.epoch, plan.revision, doc.epoch, doc.revision) == (5, 1, 5, 1)


def test_a_change_touches_only_the_documents_concerned() -> None:
    documents = Documents("r", epoch=5)
    both = {"a": Assignment((MODULES["noop-head"],)), "b": Assignment()}
    sent(documents, Decision(both, {"t": route("a"), "u": route("a")}))
    assert sent(documents, Decision(both, {"t": route("a"), "u": route("a")})) == {}
    changed = sent(
        documents, Decision({**both, "b": Assignment((MODULES["noop-left"],))}, {"t": route("a", "b"), "u": route("a")})
    )
    assert set(changed) == {"r/plan/b", "r/route/t"}


def test_another_order_of_loading_alone_is_not_published() -> None:
    documents = Documents("r", epoch=5)
    modules = (MODULES["noop-head"], MODULES["noop-left"])
    out = sent(documents, Decision({"a": Assignment(modules)}, {}))
    assert [spec.id for spec in topics.PLAN.decode(out["r/plan/a"]).modules] == ["noop-head", "noop-left"]
    assert sent(documents, Decision({"a": Assignment(modules[::-1])}, {})) == {}
    changed = (modules[1].model_copy(update={"map_weights": "always"}), modules[0])
    assert set(sent(documents, Decision({"a": Assignment(changed)}, {}))) == {"r/plan/a"}


def test_what_is_gone_is_cleared() -> None:
    documents = Documents("r", epoch=5)
    sent(documents, Decision({"a": Assignment(), "b": Assignment()}, {"t": route("a")}))
    assert sent(documents, Decision({"a": Assignment()}, {})) == {"r/plan/b": b"", "r/route/t": b""}


def test_what_was_cleared_and_comes_again_is_published_again() -> None:
    documents = Documents("r", epoch=5)
    whole = Decision({"a": Assignment()}, {"t": route("a")})
    sent(documents, whole)
    sent(documents, Decision({}, {}))
    assert set(sent(documents, whole)) == {"r/plan/a", "r/route/t"}


def test_what_another_planner_said_meanwhile_is_replaced_by_what_stays_decided() -> None:
    documents = Documents("r", epoch=5)
    whole = Decision({"a": Assignment()}, {"t": route("a")})
    sent(documents, whole)
    assert sent(documents, whole) == {}
    documents.inherit(["a"], ["t"])
    assert set(sent(documents, whole)) == {"r/plan/a", "r/route/t"}


def test_what_an_earlier_planner_said_is_replaced_or_cleared() -> None:
    documents = Documents("r", epoch=5)
    documents.inherit(["a", "gone"], ["t", "old"])
    out = sent(documents, Decision({"a": Assignment()}, {"t": route("a")}))
    assert out["r/plan/gone"] == out["r/route/old"] == b""
    assert topics.PLAN.decode(out["r/plan/a"]).epoch == 5


def test_routes_are_sent_before_plans_so_that_nobody_is_sent_where_nothing_is_served_any_more() -> None:
    documents = Documents("r", epoch=5)
    out = sent(documents, Decision({"a": Assignment()}, {"t": route("a")}))
    assert list(out) == ["r/route/t", "r/plan/a"]


def test_a_broker_that_forgot_is_told_everything_again() -> None:
    documents = Documents("r", epoch=5)
    first = sent(documents, Decision({"a": Assignment()}, {"t": route("a")}))
    again: dict[str, bytes] = {}
    documents.repeat(again.__setitem__)
    assert again == first


def test_the_nodes_whose_plan_changed_are_told_and_counted_and_no_others() -> None:
    documents = Documents("r", epoch=5)
    head, left = Assignment((MODULES["noop-head"],)), Assignment((MODULES["noop-left"],))
    ignored: dict[str, bytes] = {}
    assert documents.update(Decision({"a": head, "b": head}, {"t": route("a")}), ignored.__setitem__) == ["a", "b"]
    assert documents.update(Decision({"a": head, "b": left}, {"t": route("b")}), ignored.__setitem__) == ["b"]
    assert documents.update(Decision({"b": left}, {"t": route("b")}), ignored.__setitem__) == ["a"]
    assert documents.update(Decision({"b": left}, {}), ignored.__setitem__) == []
    assert documents.plans_changed == 4
    assert documents.revision == 4


def test_a_document_keeps_the_revision_of_its_last_change() -> None:
    documents = Documents("r", epoch=5)
    sent(documents, Decision({"a": Assignment(), "b": Assignment()}, {"t": route("a"), "u": route("a")}))
    out = sent(
        documents, Decision({"a": Assignment(gateways=("t",)), "b": Assignment()}, {"t": route("a"), "u": route("b")})
    )
    assert set(out) == {"r/plan/a", "r/route/u"}
    assert topics.PLAN.decode(out["r/plan/a"]).revision == 2
    assert topics.PLAN.decode(out["r/plan/a"]).gateways == ["t"]
    assert topics.ROUTE.decode(out["r/route/u"]).revision == 2
    assert {node: plan.revision for node, plan in documents.plans.items()} == {"a": 2, "b": 1}


def test_what_was_inherited_and_not_replaced_yet_is_no_plan_of_ours_and_is_cleared_when_all_is_told_again() -> None:
    documents = Documents("r", epoch=5)
    documents.inherit(["a"], ["t"])
    assert documents.plans == {}
    again: dict[str, bytes] = {}
    documents.repeat(again.__setitem__)
    assert again == {"r/route/t": b""}


def test_all_that_was_told_is_told_again_as_it_was() -> None:
    documents = Documents("r", epoch=5)
    decision = Decision({"a": Assignment(), "b": Assignment()}, {"t": route("a"), "u": route("b")})
    first = sent(documents, decision)
    again: dict[str, bytes] = {}
    documents.repeat(again.__setitem__)
    assert again == first
    assert list(again) == ["r/route/t", "r/route/u", "r/plan/a", "r/plan/b"]
