"""Tiny checkpoints of several kinds of folder, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers as t

from tests.checkpoints import tiny as made


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny checkpoints: a sharded one, and one that is not."""
    folder = tmp_path_factory.mktemp("checkpoints")
    t.logging.set_verbosity_error()
    t.logging.disable_progress_bar()
    for name in ("tiny-clip", "tiny-vit", "tiny-clip-resnet"):
        made.MAKERS[name](folder / name)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches are of the tests' own; agents inherit where they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
