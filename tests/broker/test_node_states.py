"""Which nodes are there: a last will that comes late takes nobody down."""

from typing import Any

from s2m3.broker.node_states import NodeStates
from s2m3.schemas.messages import NodeState


def ready(boot: str) -> NodeState:
    return NodeState(state="ready", boot=boot)


def lost(boot: str) -> NodeState:
    return NodeState(state="lost", boot=boot)


def test_a_node_is_ready_then_draining_then_lost() -> None:
    nodes = NodeStates()
    assert nodes.update("pi5", ready("b1"))
    assert (set(nodes.ready), set(nodes.present), set(nodes.lost)) == ({"pi5"}, {"pi5"}, set())
    assert nodes.update("pi5", NodeState(state="draining", boot="b1"))
    assert (set(nodes.ready), set(nodes.present)) == (set(), {"pi5"})
    assert nodes.update("pi5", lost("b1"))
    assert (set(nodes.present), set(nodes.lost)) == (set(), {"pi5"})


def test_a_late_will_of_an_old_boot_is_ignored() -> None:
    nodes = NodeStates()
    nodes.update("pi5", ready("old"))
    nodes.update("pi5", ready("new"))
    assert not nodes.update("pi5", lost("old"))
    assert nodes.state("pi5") == "ready"
    assert nodes.boot("pi5") == "new"


def test_the_will_of_the_current_boot_counts() -> None:
    nodes = NodeStates()
    nodes.update("pi5", ready("new"))
    assert nodes.update("pi5", lost("new"))
    assert nodes.lost == {"pi5"}


def test_a_node_first_heard_of_as_lost_is_lost() -> None:
    nodes = NodeStates()
    assert nodes.update("pi5", lost("b1"))
    assert nodes.lost == {"pi5"}


def test_a_node_comes_back_as_a_new_process() -> None:
    nodes = NodeStates()
    nodes.update("pi5", lost("b1"))
    assert nodes.update("pi5", ready("b2"))
    assert nodes.lost == frozenset()


def test_the_same_state_again_is_no_change() -> None:
    nodes = NodeStates()
    nodes.update("pi5", ready("b1"))
    assert not nodes.update("pi5", ready("b1"))


def test_a_cleared_state_removes_the_node() -> None:
    nodes = NodeStates()
    assert not nodes.update("pi5", None)
    nodes.update("pi5", ready("b1"))
    assert nodes.update("pi5", None)
    assert nodes.state("pi5") is None
    assert nodes.boot("pi5") is None


def test_after_a_lost_connection_no_node_is_there_until_it_is_heard_of_again() -> None:
    nodes = NodeStates()
    nodes.update("pi5", ready("b1"))
    nodes.update("cam", ready("c1"))
    nodes.forget()
    assert (set(nodes.lost), set(nodes.present), nodes.boot("pi5")) == ({"pi5", "cam"}, set(), None)
    assert nodes.update("pi5", ready("b2"))
    assert (set(nodes.lost), set(nodes.ready)) == ({"cam"}, {"pi5"})
    nodes.update("cam", None)
    assert set(nodes.lost) == set()


def test_a_state_that_comes_while_another_thread_sorts_the_nodes_is_seen_by_the_next_reader() -> None:
    class Overtaken(dict[str, NodeState]):
        """States that change as soon as they are read once."""

        def items(self) -> Any:
            found = list(super().items())
            nodes.update("pi5", lost("b1"))
            return found

        def copy(self) -> dict[str, NodeState]:
            return dict(self.items())

    nodes = NodeStates(Overtaken(pi5=ready("b1")))
    assert nodes.present == {"pi5"}
    assert (set(nodes.present), set(nodes.lost)) == (set(), {"pi5"})
