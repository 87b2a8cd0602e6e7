"""A doorbell: when its button says something on MQTT, a camera's picture is asked about. Any MQTT client can do this.

It uses nothing of S2M3 but the topics of the plain door (docs/protocol.md). Needs `s2m3 up` beside it.

Run: python examples/answer_doorbell.py snapshot.jpg --button home/doorbell/pressed
     mosquitto_pub -t home/doorbell/pressed -m 1
"""

import argparse
import base64
import json
import threading
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

WHO = ("a person at the door", "a parcel", "a cat looking at you", "nobody")


def main() -> None:
    """Answers each press of the button on `s2m3/v1/response/retrieval`, and prints the answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the camera's newest picture")
    parser.add_argument("--button", default="home/doorbell/pressed", help="topic on which the button publishes")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--times", type=int, help="answers, then it ends")
    given = parser.parse_args()
    answered: list[str] = []
    done = threading.Event()

    def on_connect(client: paho.Client, *_: Any) -> None:
        client.subscribe([(given.button, 1), ("s2m3/v1/response/retrieval", 1)])

    def on_message(client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if message.topic == given.button:
            picture = base64.b64encode(given.picture.read_bytes()).decode()
            asked = {"transaction": "doorbell", "inputs": {"image": {"base64": picture}, "text": WHO}}
            client.publish("s2m3/v1/request/retrieval", json.dumps(asked), qos=1)
            return
        answer = json.loads(message.payload)
        if answer.get("transaction") == "doorbell":  # others ask the same task
            print(answer.get("answer", answer.get("error")), flush=True)
            answered.append(message.topic)
            if given.times is not None and len(answered) >= given.times:
                done.set()

    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect, client.on_message = on_connect, on_message
    client.connect(given.host, given.port)
    client.loop_start()
    done.wait()
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
