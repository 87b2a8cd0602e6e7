"""With a paho whose private names are other ones, requests are answered over stock paho, and one line says so."""

import json
import re
import subprocess
import sys
from pathlib import Path

import paho.mqtt
import pytest

from s2m3.broker.mqtt.fast_path import ATTRIBUTES, METHODS
from s2m3.broker.servers.launch import BrokerKind

ROOT = Path(__file__).parents[2]
_WAIT_S = 150.0
#: Broker, planner, one agent, a Client and a plain caller, on the paho that is first on the path. All processes start
#: at once, and stock paho is slower: the site has the whole time of the test to come up.
_SITE = """
import json, sys
import paho.mqtt.client as paho
from s2m3.broker.mqtt import connection
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.system.plain import PlainCaller

with Cluster({"a": 150.0}, kind=sys.argv[1], threads=1) as cluster:
    with Site(cluster.settings) as site:
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=60))
        assert site.wait(lambda site: site.ready("noop") and "a" in site.plans, float(sys.argv[2])), cluster.log("a")
    with Client(settings=cluster.settings) as client:
        answer = client.ask("noop", left=b"a" * 200_000, right="b")
        replies = [client.submit("noop", left=i, right=i) for i in range(50)]
        direct = [reply.result().value for reply in replies]
    with PlainCaller(cluster.broker.port_v3, paho.MQTTv311, ("s2m3/v1/response/noop",)) as caller:
        caller.send("s2m3/v1/request/noop", json.dumps({"transaction": 7, "inputs": {"left": 1, "right": 2}}).encode())
        plain = caller.answer()
    logs = {node: cluster.log(node).count("paho_changed") for node in ("planner", "a")}
print(json.dumps({
    "changed": connection._CHANGED, "large": len(answer.value[0]), "direct": direct, "plain": plain["answer"],
    "logs": logs,
}))
"""


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """A folder with a paho that works, and in which each private name that we use is another one."""
    stock = Path(paho.mqtt.__file__).parent
    folder = tmp_path / "paho" / "mqtt"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    names = "|".join([*METHODS, *ATTRIBUTES])
    for path in stock.glob("*.py"):
        text = re.sub(rf"\b({names})\b", r"\1_of_old", path.read_text())
        (folder / path.name).write_text(text)
    return tmp_path


def test_requests_are_answered_over_stock_paho(
    renamed: Path, kind: BrokerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{renamed}:{ROOT}")
    ran = subprocess.run(
        [sys.executable, "-c", _SITE, kind, str(_WAIT_S)],
        capture_output=True,
        text=True,
        timeout=_WAIT_S,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["changed"] == [*METHODS, *ATTRIBUTES]
    assert found["large"] == 200_000
    assert found["direct"] == [[i, i] for i in range(50)]
    assert found["plain"] == [1, 2]
    assert found["logs"] == {"planner": 1, "a": 1}
