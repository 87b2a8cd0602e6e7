"""`s2m3 ask --save` writes the sound that a task speaks, as its seed decides."""

from pathlib import Path

from s2m3.client import Client
from s2m3.cluster import Cluster
from tests.command import s2m3_here
from tests.families.conftest import checkpoint, serve
from tests.families.speech import SPEECH, sound

ROWS = {row.name: row for row in SPEECH}


def test_the_speech_of_a_task_is_saved_as_a_file(site: Cluster, client: Client, folder: Path, tmp_path: Path) -> None:
    serve(site, "voice", checkpoint(folder, ROWS["vits"]))
    said = client.ask("voice", text="the door", options={"seed": 8}).value
    assert isinstance(said, bytes)
    file = tmp_path / "door.wav"
    done = s2m3_here("ask", "voice", "--text", "the door", "--seed", "8", "--save", str(file), port=site.settings.port)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == said
    assert f"a file of {len(said):,} bytes" in done.stdout
    assert client.ask("voice", text="the door").value != client.ask("voice", text="the door").value


def test_an_answer_that_is_no_file_is_not_saved(site: Cluster, folder: Path, tmp_path: Path) -> None:
    serve(site, "words", checkpoint(folder, ROWS["hubert-ctc"]))
    heard = tmp_path / "sound.wav"
    heard.write_bytes(sound(1))
    file = tmp_path / "no.wav"
    done = s2m3_here("ask", "words", "--audio", str(heard), "--save", str(file), port=site.settings.port)
    assert done.returncode == 2
    assert "the answer is no file" in done.stderr
    assert not file.exists()
