"""docs/protocol.md lists the formats that are read; each is made by ffmpeg or Pillow and tried."""

import re
import shutil
import subprocess
from pathlib import Path

import pillow_heif
import pytest

from s2m3.agents.media.pictures import decode_picture
from s2m3.agents.media.sounds import decode_sound
from tests.media.files import encoded, file_of, picture, speech
from tests.zoo.samples import FOLDER

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
_ROW = re.compile(
    r"^\| ([A-Za-z0-9, ]+) \|([^|]*)\| (Pillow|pillow-heif|libsndfile|libsndfile, PyAV|PyAV) \|$", re.MULTILINE
)
#: Format of the document -> what ffmpeg is told, once for each kind that the document names.
PICTURES = {
    "JPEG": ["mjpeg"],
    "PNG": ["png", "apng"],
    "WebP": ["libwebp"],
    "GIF": ["gif"],
    "BMP": ["bmp"],
    "TIFF": ["tiff"],
}
#: What Debian's ffmpeg cannot write.
BY_PILLOW = {"AVIF": "AVIF", "HEIC": "HEIF"}
SOUNDS = {
    "WAV": [
        "-f wav",
        "-c:a pcm_f32le -f wav",
        "-c:a pcm_alaw -f wav",
        "-c:a pcm_mulaw -f wav",
        "-c:a adpcm_ms -f wav",
        "-f wav -rf64 always",
    ],
    "FLAC": ["-f flac"],
    "Ogg": ["-c:a libvorbis -f ogg", "-c:a libopus -f ogg", "-c:a flac -f ogg", "-c:a libspeex -f ogg"],
    "MP3": ["-f mp3"],
    "AIFF": ["-f aiff"],
    "AU": ["-f au"],
    "CAF": ["-f caf"],
    "m4a, MP4, 3GP": [
        "-f ipod -movflags frag_keyframe+empty_moov",
        "-f mp4 -movflags frag_keyframe+empty_moov",
        "-c:a aac -f 3gp -movflags frag_keyframe+empty_moov",
        "-c:a alac -f mov -movflags frag_keyframe+empty_moov",
    ],
    "AAC": ["-f adts"],
    "WebM, Matroska": ["-c:a libopus -f webm", "-c:a libvorbis -f webm", "-c:a flac -f matroska"],
}


def _made(source: Path, words: str) -> bytes:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(source), *words.split(), "-"], capture_output=True, check=True
    )
    return done.stdout


def documented() -> set[str]:
    return {row[0] for row in _ROW.findall(DOCUMENT.read_text(encoding="utf-8"))}


def test_the_document_lists_what_is_tried_here_and_nothing_else() -> None:
    assert documented() == {*PICTURES, *BY_PILLOW, *SOUNDS, "AMR"}


@pytest.mark.parametrize("name", PICTURES)
def test_13_each_documented_picture_format_is_read(name: str) -> None:
    for codec in PICTURES[name]:
        form = "apng" if codec == "apng" else "image2pipe"
        data = _made(FOLDER / "red-triangle.png", f"-frames:v 1 -c:v {codec} -f {form}")
        assert data
        assert decode_picture(data, 65_535).size == (64, 64)


@pytest.mark.parametrize("name", BY_PILLOW)
def test_13_each_documented_picture_format_that_ffmpeg_does_not_write_is_read(name: str) -> None:
    pillow_heif.register_heif_opener()
    assert decode_picture(file_of(picture(), BY_PILLOW[name]), 65_535).size == (403, 269)


@pytest.mark.parametrize("name", SOUNDS)
def test_13_each_documented_sound_format_is_read(name: str) -> None:
    for words in SOUNDS[name]:
        data = _made(FOLDER / "kitchen-light.flac", words)
        assert len(decode_sound(data)) == pytest.approx(len(speech()), abs=3_000), words


def test_13_amr_is_read() -> None:
    data = encoded(speech(), "amr", "libopencore_amrnb", 8_000)
    assert len(decode_sound(data)) == pytest.approx(len(speech()), abs=1_000)
