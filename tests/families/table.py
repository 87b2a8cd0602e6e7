"""All rows of the table of families."""

from tests.families.captioning import CAPTIONING
from tests.families.causal_lm import CAUSAL_LM
from tests.families.detection import DETECTION
from tests.families.dual import DUAL
from tests.families.family import Family
from tests.families.image_classification import IMAGE_CLASSIFICATION
from tests.families.open_clip import OPEN_CLIP
from tests.families.picture import PICTURE
from tests.families.picture_maps import PICTURE_MAPS
from tests.families.speech import SPEECH
from tests.families.texts import TEXTS
from tests.families.vision_language import VISION_LANGUAGE

__all__ = ["FAMILIES"]

FAMILIES: list[Family] = [
    *VISION_LANGUAGE,
    *CAPTIONING,
    *CAUSAL_LM,
    *SPEECH,
    *DUAL,
    *OPEN_CLIP,
    *DETECTION,
    *TEXTS,
    *IMAGE_CLASSIFICATION,
    *PICTURE_MAPS,
    *PICTURE,
]
