"""What status and task add say while a part comes: how much of how much, from where, and who is refused."""

from s2m3.commands.fetched import fetched_text, fetches_of, refused_texts
from s2m3.schemas.messages import ModuleReport, NodeState, Reported
from s2m3.schemas.parts import PartProgress
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site

WHY = "it sent wrong bytes: piece 7 of model.safetensors"
COMING = PartProgress(bytes=120_400_000, of=346_000_000, nodes=["laptop", "nas"], refused={"old-pi": WHY})


def site(**reports: ModuleReport) -> Site:
    seen = Site(BrokerSettings())
    seen.nodes.update("pi", NodeState(state="ready", boot="1"))
    seen.reported = {
        "pi": Reported(boot="1", modules={name.replace("_", "-"): report for name, report in reports.items()}),
        "gone": Reported(boot="1", modules={"clip-vision": ModuleReport(state="loading", fetched=COMING)}),
    }
    return seen


def test_progress_is_bytes_of_bytes_and_from_whom() -> None:
    assert fetched_text(COMING) == "fetching 120 of 346 MB from laptop, nas"
    assert fetched_text(COMING.model_copy(update={"nodes": []})) == "fetching 120 of 346 MB from nobody at the moment"
    assert fetched_text(PartProgress(bytes=0, of=0)) == "looking for a node that has its part"
    assert fetched_text(PartProgress(bytes=0, of=0, nodes=["laptop"])) == "laptop makes its part ready"


def test_only_what_a_present_node_fetches_for_the_task_is_told() -> None:
    loading, ready = ModuleReport(state="loading"), ModuleReport(state="ready", fetched=COMING)
    coming = loading.model_copy(update={"fetched": COMING})
    seen = site(clip_vision=coming, clip_text=loading, clip_head=ready, other=coming)
    told = fetches_of(seen, {"clip-vision", "clip-text", "clip-head"})
    assert told == ["clip-vision on pi: fetching 120 of 346 MB from laptop, nas"]


def test_a_holder_of_wrong_bytes_is_named_with_the_reason() -> None:
    for state in ("loading", "ready"):
        seen = site(clip_vision=ModuleReport.model_validate({"state": state, "fetched": COMING}))
        assert refused_texts(seen) == [f"pi takes nothing more of clip-vision from old-pi: {WHY}"]
