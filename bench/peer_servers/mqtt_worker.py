"""A worker for one model on MQTT, as one would write it: a topic, JSON with base64, MQTT v5's response topic.

Run: python -m peer_servers.mqtt_worker PORT TASK. Each worker holds all that its model needs; nothing is shared.
"""

import base64
import json
import sys
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from peer_servers.modules import TASKS, TorchModules


def main() -> None:
    """Serves until the process is ended."""
    port, task = int(sys.argv[1]), sys.argv[2]
    models = TorchModules([task])
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe(f"peer/{task}", qos=1)
        client.publish(f"peer/{task}/ready", "1", qos=1, retain=True)

    def on_message(client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        asked = json.loads(message.payload)
        inputs = {TASKS[task]: base64.b64decode(asked["file"])} | ({"text": asked["text"]} if asked["text"] else {})
        reply: Any = message.properties
        answer = json.dumps({"value": models.ask(task, inputs), "id": asked["id"]})
        client.publish(reply.ResponseTopic, answer, qos=1)

    client.on_connect, client.on_message = on_connect, on_message
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main()
