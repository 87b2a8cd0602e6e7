"""When a plain request is requeued, what its copy is, and which messages are acknowledged. The test is the clock."""

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from s2m3.agents.gateway import gateway as gateway_module
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import BusyError, TooLargeError, UnauthorisedError, UndeliverableError
from tests.agents.test_gateway import REQUEST, Desk
from tests.recorders import LinkFactory, Published

TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Desk]:
    links = LinkFactory()
    monkeypatch.setattr(gateway_module, "Link", links)
    return lambda **options: Desk(links, **{"inflight": 64, **options})


def copies(desk: Desk) -> list[Published]:
    return [sent for sent in desk.agent.published if sent.message.topic == REQUEST]


def confirm(sent: Published) -> None:
    assert sent.on_delivered is not None
    sent.on_delivered()


def bring(desk: Desk, sent: Published, mid: int) -> Message:
    """The broker delivers a copy."""
    copy = sent.message
    return desk.session.deliver(
        copy.topic,
        copy.payload,
        mid=mid,
        reply_to=copy.reply_to,
        correlation=copy.correlation,
        user=dict(copy.user),
        user_properties=copy.user,
    )


def answered_behind(desk: Desk, many: int) -> None:
    """So many requests come after the first, and are answered."""
    for n in range(many):
        desk.ask(f"fast {n}", mid=100 + n)
        desk.answer(desk.work[-1])
        desk.deliver_answer()


def empty_behind(desk: Desk, many: int) -> None:
    """So many empty messages come, which are acknowledged at once."""
    for n in range(many):
        desk.session.deliver(REQUEST, b"", mid=100 + n)


def come_back(desk: Desk) -> None:
    """The task's session is connected again."""
    desk.gateway.connect()
    desk.session.connect()


def acknowledged(desk: Desk) -> list[int]:
    return [message.mid for message in desk.session.acknowledged]


def test_32_the_ninth_is_not_waited_for_and_the_copy_is_what_the_caller_sent(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1, reply_to="callers/1", correlation=b"7", user={"traceparent": TRACE})
    answered_behind(made, 7)
    assert copies(made) == []
    answered_behind(made, 1)
    (sent,) = copies(made)
    assert (sent.message.reply_to, sent.message.correlation, sent.message.retain) == ("callers/1", b"7", False)
    assert sent.message.payload == b'{"inputs": {"x": "slow"}}'
    assert sent.message.user[0] == ("traceparent", TRACE)
    assert [name for name, _ in sent.message.user] == ["traceparent", "requeued"]
    assert 1 not in acknowledged(made)
    confirm(sent)
    assert acknowledged(made)[-1] == 1


def test_32_fewer_are_held_up_for_a_second_then_for_twice_as_long(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    made.loop.advance(60.0)
    assert copies(made) == []  # nobody is held up
    answered_behind(made, 1)
    made.loop.advance(0.9)
    assert copies(made) == []
    made.loop.advance(0.1)
    (sent,) = copies(made)
    confirm(sent)
    bring(made, sent, 2)
    answered_behind(made, 1)
    made.loop.advance(1.9)
    assert len(copies(made)) == 1
    made.loop.advance(0.1)
    assert len(copies(made)) == 2


@pytest.mark.parametrize("comes_first", [True, False], ids=["before its PUBACK", "after its PUBACK"])
def test_32_a_copy_continues_the_request_and_is_acknowledged_with_its_answer(
    desk: Callable[..., Desk],
    comes_first: bool,  # noqa: FBT001  # a parameter
) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    if comes_first:
        bring(made, sent, 2)
        confirm(sent)
    else:
        confirm(sent)
        bring(made, sent, 2)
    assert len(made.work) == 9  # not run again
    assert acknowledged(made)[-1] == 1
    made.answer(slow)
    made.deliver_answer()
    assert acknowledged(made)[-1] == 2
    assert len(made.answers()) == 9


def test_a_copy_that_comes_after_the_answer_is_acknowledged_and_nothing_more(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.answer(slow)
    made.deliver_answer()
    assert acknowledged(made).count(1) == 1
    confirm(sent)
    assert acknowledged(made).count(1) == 1  # packet ids are used again: twice would acknowledge another message
    bring(made, sent, 2)
    assert acknowledged(made)[-1] == 2
    assert len(made.work) == 9


def test_a_copy_of_a_gateway_before_is_a_request_like_any_other(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1, user={"requeued": "0123"}, user_properties=(("requeued", "0123"),))
    assert len(made.work) == 1
    answered_behind(made, 8)
    (sent,) = copies(made)
    assert [name for name, _ in sent.message.user] == ["requeued"]
    assert sent.message.user[0][1] != "0123"


def test_a_lost_session_brings_the_copy_back_to_the_request_that_goes_on(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    confirm(sent)
    made.session.lose()
    come_back(made)
    bring(made, sent, 5)
    assert len(made.work) == 9
    made.answer(slow)
    made.deliver_answer()
    assert acknowledged(made) == [5]


def test_after_the_session_was_left_to_the_next_gateway_its_copy_is_nobodys_here(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.session.lose()
    made.gateway.give_up()
    confirm(sent)
    come_back(made)
    bring(made, sent, 5)
    assert len(made.work) == 10  # it is answered again: nobody else has it


def test_an_access_list_that_forbids_it_costs_nothing_but_the_requeueing(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 8)
    (sent,) = copies(made)
    assert sent.on_refused is not None
    sent.on_refused(UnauthorisedError("not an agent's"))
    answered_behind(made, 8)
    made.loop.advance(60.0)
    assert len(copies(made)) == 1
    made.answer(made.work[0])
    made.deliver_answer()
    assert acknowledged(made)[-1] == 1


def test_a_request_of_qos_0_holds_nobody_up(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=0)
    answered_behind(made, 20)
    made.loop.advance(60.0)
    assert copies(made) == []


def test_a_full_outgoing_queue_is_tried_again(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 1)
    made.agent.error = BusyError("full")
    made.loop.advance(1.0)
    assert copies(made) == []
    made.loop.advance(2.0)
    assert len(copies(made)) == 1


def test_the_messages_of_a_connection_that_is_gone_are_forgotten(desk: Callable[..., Desk]) -> None:
    made = desk()
    first = made.ask("slow", mid=1)
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.session.lose()
    come_back(made)
    again = dataclasses.replace(first, mid=1, generation=2)
    made.session.deliver(again.topic, again.payload, mid=again.mid)
    confirm(sent)  # of the connection before: it acknowledges nothing on this one
    assert acknowledged(made) == []


def test_29_a_copy_over_which_every_connection_is_lost_is_forgotten_and_others_are_requeued(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[-1]
    answered_behind(made, 8)
    (sent,) = copies(made)
    assert sent.on_dropped is not None
    sent.on_dropped(UndeliverableError("cut"))
    made.loop.advance(60.0)
    assert len(copies(made)) == 1
    made.answer(slow)
    made.deliver_answer()
    assert 1 in acknowledged(made)
    made.ask("slow too", mid=2)
    answered_behind(made, 8)
    assert len(copies(made)) == 2


# ---- what is passed over ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [True, False], ids=["retained", "empty"])
def test_32_messages_that_ask_nothing_are_held_up_too_and_count_behind_a_slow_one(
    desk: Callable[..., Desk],
    retain: bool,  # noqa: FBT001  # a parameter
) -> None:
    made = desk()
    made.ask("slow", mid=1)
    for mid in range(2, 21):
        made.session.deliver(REQUEST, b"old" if retain else b"", mid=mid, retain=retain)
    (sent,) = copies(made)
    confirm(sent)
    assert acknowledged(made) == [*range(2, 21), 1]


def test_32_a_copy_that_comes_after_its_answer_counts_behind_a_slow_one(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("first", mid=1)
    first = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.answer(first)
    made.deliver_answer()
    made.ask("slow", mid=2)
    bring(made, sent, 3)
    made.loop.advance(1.0)
    assert [copy.message.payload for copy in copies(made)[1:]] == [b'{"inputs": {"x": "slow"}}']


# ---- when a request is copied again --------------------------------------------------------------------------------


def test_32_the_wait_for_another_copy_ends_at_four_seconds(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    waits = []
    for n in range(6):
        answered_behind(made, 1)
        began = made.loop.now
        while len(copies(made)) == n:
            made.loop.advance(0.5)
        waits.append(made.loop.now - began)
        confirm(copies(made)[-1])
        bring(made, copies(made)[-1], 10 + n)
    assert waits == [1, 2, 4, 4, 4, 4]


class Broker:
    """A session whose broker sends at most `window` messages without a PUBACK, in order."""

    def __init__(self, desk: Desk, window: int = 20) -> None:
        self.desk, self.window = desk, window
        self.waiting: deque[tuple[str, bytes, dict[str, Any]]] = deque()
        self.sent: deque[int] = deque()
        self.mid = self.copies = self.works = 0

    def ask(self, text: str) -> None:
        self.waiting.append((REQUEST, f'{{"inputs": {{"x": "{text}"}}}}'.encode(), {}))

    def run(self) -> int:
        """Goes on until nothing happens any more without the clock; returns how many fast requests were answered."""
        fast, moved = 0, True
        while moved:
            moved = False
            while self.sent and self.sent[0] in set(acknowledged(self.desk)):
                self.sent.popleft()
            while self.waiting and len(self.sent) < self.window:
                topic, payload, fields = self.waiting.popleft()
                self.mid, moved = self.mid + 1, True
                self.sent.append(self.mid)
                self.desk.session.deliver(topic, payload, mid=self.mid, **fields)
            for work in self.desk.work[self.works :]:
                self.works, moved = self.works + 1, True
                if work.inputs["x"] != "slow":
                    self.desk.answer(work)
                    self.desk.deliver_answer()
                    fast += 1
            for sent in copies(self.desk)[self.copies :]:
                self.copies, moved = self.copies + 1, True
                self.waiting.append((REQUEST, sent.message.payload, {"user": dict(sent.message.user)}))
                confirm(sent)
        return fast


@pytest.mark.parametrize("slow", [1, 7, 12, 13, 16, 19])
def test_32_as_many_slow_requests_as_the_brokers_window_less_one_stop_nobody(
    desk: Callable[..., Desk], slow: int
) -> None:
    made = desk()
    broker = Broker(made)
    for _ in range(slow):
        broker.ask("slow")
    for n in range(60):
        broker.ask(f"fast {n}")
    assert broker.run() == 60  # without waiting for the clock
    assert len(made.work) == slow + 60
    room = min(8, 20 - slow)
    assert broker.copies <= slow * (60 // room + 1)


def test_32_slow_requests_among_fast_ones_stop_nobody(desk: Callable[..., Desk]) -> None:
    made = desk()
    broker = Broker(made)
    for n in range(90):
        broker.ask("slow" if n % 6 == 5 else f"fast {n}")
    answered = 0
    for _ in range(10):
        answered += broker.run()
        made.loop.advance(1.0)
    assert answered == 75


def test_32_with_a_window_of_ten_the_clock_moves_all_slow_ones_at_once(desk: Callable[..., Desk]) -> None:
    made = desk()
    broker = Broker(made, window=10)
    for _ in range(8):
        broker.ask("slow")
    for n in range(6):
        broker.ask(f"fast {n}")
    assert broker.run() == 2
    answered = 2
    for _ in range(6):
        made.loop.advance(1.0)
        answered += broker.run()
    assert answered == 6


def test_32_a_large_payload_is_copied_once_a_second_at_most(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow" * 20_000, mid=1)
    for n in range(3):
        empty_behind(made, 8)
        assert len(copies(made)) == 2 * n + 1
        confirm(copies(made)[-1])
        bring(made, copies(made)[-1], 1_000 + n)
        empty_behind(made, 30)
        made.loop.advance(0.9)
        assert len(copies(made)) == 2 * n + 1
        made.loop.advance(0.1)
        assert len(copies(made)) == 2 * n + 2
        confirm(copies(made)[-1])
        bring(made, copies(made)[-1], 2_000 + n)
        made.loop.advance(5.0)  # nobody is held up


def test_32_a_small_payload_is_copied_whenever_eight_are_answered(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    for n in range(5):
        empty_behind(made, 8)
        assert len(copies(made)) == n + 1
        confirm(copies(made)[-1])
        bring(made, copies(made)[-1], 1_000 + n)


# ---- what a copy is ------------------------------------------------------------------------------------------------


def test_32_a_message_that_was_cut_is_refused_at_once_and_never_copied(desk: Callable[..., Desk]) -> None:
    made = desk(inflight=9)
    for mid in range(1, 10):
        made.ask("slow", mid=mid)
    made.session.deliver(REQUEST, b'{"transaction": 7, "inp', mid=10, oversize=40_000_000)  # all places are taken
    (answer,) = made.answers()
    assert (answer["error"]["code"], answer["transaction"]) == ("too_large", 7)
    for work in made.work[:9]:
        made.answer(work)
        made.deliver_answer()
    answered_behind(made, 20)
    made.loop.advance(60.0)
    assert copies(made) == []


def test_32_only_what_a_gateway_reads_is_copied_of_the_user_properties(desk: Callable[..., Desk]) -> None:
    made = desk()
    user = {"long": "x" * 60_000, "traceparent": TRACE}
    made.ask("slow", mid=1, user=user, user_properties=tuple(user.items()))
    answered_behind(made, 8)
    (sent,) = copies(made)
    assert [name for name, _ in sent.message.user] == ["traceparent", "requeued"]


def test_32_a_copy_that_failed_does_not_count_and_is_tried_again_while_nothing_else_comes(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("slow", mid=1)
    made.agent.error = TooLargeError("too large", size=2, limit=1)
    empty_behind(made, 8)
    made.loop.advance(0.9)
    assert made.agent.error is None
    assert copies(made) == []
    made.loop.advance(0.1)
    (sent,) = copies(made)
    confirm(sent)
    bring(made, sent, 2)
    empty_behind(made, 1)
    made.loop.advance(2.0)  # as after one copy
    assert len(copies(made)) == 2


def test_32_a_copy_expires_when_its_request_would_have(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1, expiry_s=60)
    made.ask("slow too", mid=2, expiry_s=5)
    made.loop.advance(20.0)
    answered_behind(made, 8)
    assert copies(made)[0].message.expiry_s == 40
    confirm(copies(made)[0])
    assert copies(made)[1].message.expiry_s == 1


# ---- the same copy twice, and what ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_answered", [True, False])
def test_32_a_copy_that_a_lost_session_brings_twice_is_answered_once(
    desk: Callable[..., Desk],
    is_answered: bool,  # noqa: FBT001  # a parameter
) -> None:
    made = desk()
    original = made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    confirm(sent)
    bring(made, sent, 2)
    if is_answered:
        made.answer(slow)
        made.deliver_answer()
    made.session.lose()  # the broker has not read the PUBACKs
    come_back(made)
    if not is_answered:
        made.session.deliver(original.topic, original.payload, mid=1)
    bring(made, sent, 2)
    assert len(made.work) == 9
    if not is_answered:
        assert acknowledged(made) == [1]  # the broker has the request in its copy
        made.answer(slow)
        made.deliver_answer()
    assert len(made.answers()) == 9
    assert acknowledged(made)[-1] == 2


def test_32_another_message_under_a_copys_name_is_a_request_of_its_own(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.ask("other", mid=2, user=dict(sent.message.user))
    assert [work.inputs["x"] for work in made.work[-1:]] == ["other"]


def test_32_of_the_copies_of_one_request_the_newest_are_known(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    for n in range(70):
        empty_behind(made, 8)
        confirm(copies(made)[-1])
        bring(made, copies(made)[-1], 1_000 + n)
    assert held(made)[:2] == (1, 64)
    work = len(made.work)
    for sent in copies(made)[-64:]:
        bring(made, sent, 5_000)
    assert len(made.work) == work


@pytest.mark.parametrize("behind", [1, 7, 8])
def test_32_a_closed_gateway_copies_nothing(desk: Callable[..., Desk], behind: int) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, behind)
    before = len(copies(made))
    assert before == (behind == 8)
    made.ask("last", mid=3)
    made.answer(made.work[-1])
    late = made.last().on_delivered
    made.gateway.close()
    assert late is not None
    late()
    assert acknowledged(made)[-1] == 3  # or the next gateway would answer it too
    for sent in copies(made):
        confirm(sent)
        assert acknowledged(made)[-1] == 1
    made.loop.advance(60.0)
    assert len(copies(made)) == before
    assert made.loop.waiting == []


def test_32_after_ten_minutes_or_a_new_connection_what_was_forbidden_is_tried_again(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 8)
    for count, wait_s in ((2, 600.0), (3, None)):
        refused = copies(made)[-1].on_refused
        assert refused is not None
        refused(UnauthorisedError("not an agent's"))
        if wait_s is not None:
            made.loop.advance(wait_s - 1.0)
            assert len(copies(made)) == count - 1
            made.loop.advance(1.0)
        else:
            made.session.lose()
            come_back(made)
            made.ask("slow", mid=1)
            answered_behind(made, 8)
        assert len(copies(made)) == count


def held(made: Desk) -> tuple[int, int, int]:
    """Messages and copies that the requeueing knows, and bytes of their payloads and answers."""
    requeue = made.gateway._requeue  # noqa: SLF001  # what it holds is what this is about
    messages, known = requeue._messages, requeue._expected.values()  # noqa: SLF001
    answers = sum(len(plain.message.payload) + len(plain.answer or b"") for plain in known)
    return len(messages), len(known), answers + sum(len(message.message.payload) for message in messages)


def test_32_an_answered_request_keeps_no_payload(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    size = len(b'{"inputs": {"x": "slow"}}')
    assert held(made) == (9, 1, 2 * size)  # the first message, and the request of its copy
    made.answer(slow)
    made.deliver_answer()
    assert held(made) == (0, 1, 0)
    made.ask("slow", mid=2)
    assert held(made) == (1, 1, size)
    made.gateway.close()
    assert held(made)[1:] == (0, 0)


def test_32_what_is_answered_behind_a_slow_request_keeps_no_payload(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 7)
    assert held(made) == (8, 0, len(b'{"inputs": {"x": "slow"}}'))


def one_by_one(desk: Callable[..., Desk], **options: Any) -> Desk:
    """The broker sends a message only when the one before is acknowledged, as ejabberd does."""
    made = desk(**options)
    made.session.sends_one_by_one = True
    return made


def test_where_one_message_is_sent_at_a_time_each_request_is_copied_at_once_so_that_the_next_one_comes(
    desk: Callable[..., Desk],
) -> None:
    made = one_by_one(desk)
    for n in range(5):
        made.ask(f"slow {n}", mid=n + 1)
        confirm(copies(made)[n])
        assert acknowledged(made) == list(range(1, n + 2))
    assert len(made.work) == 5  # all under way together, as where the broker has a window of many
    bring(made, copies(made)[0], 6)
    assert acknowledged(made)[-1] == 5  # its only message now
    made.answer(made.work[0])
    made.deliver_answer()
    assert acknowledged(made)[-1] == 6
    assert len(made.answers()) == 1


def test_copies_come_round_so_often_that_a_new_request_between_them_is_read_soon(desk: Callable[..., Desk]) -> None:
    made = one_by_one(desk)
    for n in range(5):
        made.ask(f"slow {n}", mid=n + 1)
        confirm(copies(made)[n])
    began = made.loop.now
    for n in range(5):
        bring(made, copies(made)[n], 6 + n)
        made.loop.advance(0.1)
        confirm(copies(made)[5 + n])
    assert made.loop.now - began == pytest.approx(0.5)
    assert acknowledged(made) == list(range(1, 11))
    made.ask("new", mid=11)
    assert len(made.work) == 6


def test_where_one_message_is_sent_at_a_time_no_more_are_taken_than_may_be_under_way(desk: Callable[..., Desk]) -> None:
    made = one_by_one(desk, inflight=2)
    for n in range(2):
        made.ask(f"slow {n}", mid=n + 1)
        confirm(copies(made)[n])
    made.ask("waits", mid=3)
    made.loop.advance(60.0)
    assert len(copies(made)) == 2  # the third stays in the broker
    made.answer(made.work[0])
    made.deliver_answer()
    made.loop.advance(0.1)
    assert len(copies(made)) == 3


def test_where_one_message_is_sent_at_a_time_a_copy_that_could_not_be_queued_is_tried_again(
    desk: Callable[..., Desk],
) -> None:
    made = one_by_one(desk)
    made.agent.error = BusyError("full")
    made.ask("slow", mid=1)
    assert copies(made) == []
    made.loop.advance(1.0)
    confirm(copies(made)[0])
    assert acknowledged(made) == [1]
