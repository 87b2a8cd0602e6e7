"""Which of the offered parts is taken: the checkpoint itself before copies, what is here before what is not."""

import pytest

from s2m3.agents.parts.choice import HASHING_WAIT_S, Offers
from s2m3.schemas.parts import PartFile, PartManifest, PartOffer

KEY = "0123456789abcdef"


def part(name: str, runtime: str = "torch", content: str = "c" * 64) -> PartManifest:
    file = PartFile(name=f"{name}.json", bytes=1, sha256="0" * 64, pieces_sha256="0" * 64)
    return PartManifest(content=content, runtime=runtime, dtype="", files=[file])


OLD, NEW = part("old"), part("new")


def offer(manifest: PartManifest | None, *, original: bool = False) -> PartOffer:
    return PartOffer(key=KEY, manifest=manifest, original=original)


def offers(*runtimes: str, content: str | None = None, here: PartManifest | None = None) -> Offers:
    return Offers(runtimes or ("torch",), content, {} if here is None else {here.digest: here})


def test_the_checkpoint_itself_is_taken_at_once_and_before_copies_of_an_older_one() -> None:
    found = offers()
    found.add("copies", offer(OLD))
    found.add("more-copies", offer(OLD))
    assert found.choose(0.0) is None
    found.add("laptop", offer(NEW, original=True))
    assert found.choose(0.0) == NEW
    assert found.holders(NEW.digest) == {"laptop"}
    assert found.holders(OLD.digest) == {"copies", "more-copies"}


def test_copies_are_taken_after_a_moment_those_that_most_nodes_have_first() -> None:
    found = offers()
    for holder, manifest in (("a", OLD), ("b", NEW), ("c", NEW)):
        found.add(holder, offer(manifest))
    assert found.choose(1.4) is None
    assert found.choose(1.5) == NEW
    assert found.choose(1.5, {("b", NEW.digest), ("c", NEW.digest)}) == OLD
    found.gone("b")
    found.gone("c")
    assert found.choose(1.5) == OLD


def test_a_checkpoint_that_is_being_hashed_is_waited_for() -> None:
    found = offers()
    found.add("copy", offer(OLD))
    found.add("laptop", offer(None, original=True))
    assert found.is_hashed
    assert found.choose(HASHING_WAIT_S - 1) is None
    assert found.choose(HASHING_WAIT_S) == OLD
    found.gone("laptop")
    assert found.choose(1.5) == OLD


def test_what_is_here_is_taken_when_nobody_offers_the_checkpoint() -> None:
    found = offers(here=OLD)
    assert found.choose(1.4) is None
    assert found.choose(1.5) == OLD
    found.add("a", offer(NEW))
    found.add("b", offer(NEW))
    assert found.choose(1.5) == OLD
    found.add("laptop", offer(None, original=True))
    assert found.choose(19.9) is None
    assert found.choose(20.0) == OLD
    found.add("laptop", offer(NEW, original=True))
    assert found.choose(0.0) == NEW


def test_a_folder_that_was_saved_anew_replaces_its_own_earlier_offer() -> None:
    found = offers()
    found.add("laptop", offer(OLD, original=True))
    found.add("laptop", offer(NEW, original=True))
    assert found.holders(OLD.digest) == set()
    assert found.choose(0.0) == NEW


def test_the_preferred_runtime_comes_first_and_one_that_is_not_here_counts_nothing() -> None:
    found = offers("onnx", "torch")
    for runtime in ("torch", "onnx", "tflite"):
        found.add("laptop-" + runtime, offer(part(runtime, runtime), original=True))
    assert found.choose(0.0) == part("onnx", "onnx")
    assert found.holders(part("tflite", "tflite").digest) == set()


@pytest.mark.parametrize("where", ["offered", "here"])
def test_a_part_of_another_content_than_the_module_names_counts_nothing(where: str) -> None:
    found = offers(content="d" * 64, here=OLD if where == "here" else None)
    found.add("laptop", offer(OLD, original=True))
    assert found.choose(HASHING_WAIT_S) is None
    right = part("right", content="d" * 64)
    found.add("laptop", offer(right, original=True))
    assert found.choose(0.0) == right


def test_nothing_is_taken_when_all_who_have_it_are_banned() -> None:
    found = offers()
    found.add("liar", offer(NEW, original=True))
    assert found.choose(HASHING_WAIT_S, {("liar", NEW.digest)}) is None


def test_a_node_that_can_make_no_part_of_its_checkpoint_is_not_waited_for_and_its_reason_is_kept() -> None:
    found = offers("onnx")
    found.add("laptop", offer(None, original=True))
    assert found.makers == ["laptop"]
    found.add("laptop", PartOffer(key=KEY, refused="its outputs are 1e-3 from torch's"))
    assert not found.is_hashed
    assert found.refusals == {"laptop": "its outputs are 1e-3 from torch's"}
    copy = part("copy", "onnx")
    found.add("pi", offer(copy))
    assert found.choose(1.5) == copy
    found.add("laptop", offer(copy, original=True))
    assert found.refusals == {}


def test_one_of_the_nodes_that_can_export_a_part_does_it() -> None:
    found = offers("onnx")
    for node in ("laptop", "tower", "server"):
        found.add(node, PartOffer(key=KEY, can_export=True))
    assert found.exporter(KEY, 0.4) is None  # others may still say so
    first = found.exporter(KEY, 0.5)
    assert first in {"laptop", "tower", "server"}
    other_way = offers("onnx")
    for node in ("server", "tower", "laptop"):
        other_way.add(node, PartOffer(key=KEY, can_export=True))
    assert other_way.exporter(KEY, 9.0) == first  # all who ask choose the same
    assert {found.exporter(f"{number:016x}", 1.0) for number in range(99)} == {"laptop", "tower", "server"}
    found.add(first, offer(None, original=True))
    assert found.exporter(KEY, 1.0) is None  # it is being made
    found.add(first, PartOffer(key=KEY, refused="its outputs are 1e-3 from torch's"))
    second = found.exporter(KEY, 1.0)
    assert second not in (None, first)
    found.gone(str(second))
    assert found.exporter(KEY, 1.0) not in (None, first, second)


def test_a_node_that_has_an_export_is_asked_whether_it_still_holds() -> None:
    found = offers("onnx")
    for node in ("laptop", "tower", "server"):
        found.add(node, PartOffer(key=KEY, can_export=True))
    last = next(node for node in ("laptop", "tower", "server") if node != found.exporter(KEY, 1.0))
    found.add(last, offer(part("made", "onnx")))
    assert found.exporter(KEY, 1.0) == last
