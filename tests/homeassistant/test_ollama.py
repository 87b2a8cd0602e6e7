"""Home Assistant's own integration of Ollama, set up by its dialog: a task as conversation agent."""

from pathlib import Path

import pytest

from s2m3.broker.servers.launch import default_kind
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.doors.door import opened
from tests.homeassistant.core import HASS, HomeAssistant
from tests.system.conftest import three_nodes

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not HASS.exists(), reason="Home Assistant is not installed: make homeassistant (Python 3.13)"),
]


def test_a_task_is_its_conversation_agent_and_a_killed_node_is_not_noticed(tmp_path: Path) -> None:
    with three_nodes(default_kind()) as cluster:
        with Site(cluster.settings) as site:
            add_task(site, "words", m.TaskSpec(model="noop-text", deadline_s=60))
            assert site.wait(lambda s: s.ready("words"), WAIT_S)
            (step,) = site.routes["words"].steps.values()
        (tmp_path / "door").mkdir()
        with (
            opened(cluster.settings.port, tmp_path / "door") as door,
            HomeAssistant(tmp_path / "home", cluster.broker.port_v3) as home,
        ):
            asked = home.add_integration("ollama", url=door.url)
            assert asked["type"] == "form", asked
            made = home.continue_flow(asked["flow_id"], model="words:latest")
            assert made["type"] == "create_entry", made
            (agent,) = (name for name in home.states() if name.startswith("conversation.") and "words" in name)
            for number in range(8):
                if number == 4:
                    cluster.kill(step.replicas[0].node)
                assert home.converse(agent, f"sentence {number} of eight") == f"sentence {number} of eight"
