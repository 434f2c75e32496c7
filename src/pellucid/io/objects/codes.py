"""The standard's own codes for visual explanations, and units as UCUM writes them; private only what neither has."""

import re

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pellucid.core.card import Ask, Card, Family

PRIVATE = "99PELLUCID"
VISUAL_EXPLANATION = Code("130401", "DCM", "Visual explanation")
CLASS_ACTIVATION = Code("130402", "DCM", "Class activation")  # CID 217, and CID 7180 for a parametric map
GRADIENT_WEIGHTED = Code("130403", "DCM", "Gradient-weighted class activation")
SALIENCY = Code("130404", "DCM", "Saliency")
ARTIFICIAL_INTELLIGENCE: Code = codes.DCM.ArtificialIntelligence  # CID 7162
ATTRIBUTION_REGION = Code("attribution", PRIVATE, "Model attribution region")
_NO_SIDE = """
ABDOMEN ABDOMENPELVIS AORTA BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS COCCYX COLON
CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART ILEUM JAW JEJUNUM LARYNX LIVER LSPINE
LSSPINE MAXILLA MEDIASTINUM NECK NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE RECTUM SKULL SPINE SPLEEN SSPINE
STERNUM STOMACH THYROID TLSPINE TONGUE TRACHEA TSPINE URETHRA UTERUS VAGINA WHOLEBODY
"""
UNPAIRED = frozenset(_NO_SIDE.split())  # body parts without a side, by the names of PS3.16 annex L
NO_UNITS = Code("1", "UCUM", "no units")

_LONGEST = 16  # characters of a code value (PS3.5 SH)
_MEANING = 64  # of a code meaning (LO)


def explanation_code(card: Card) -> Code:
    """Which kind of visual explanation a method makes (CID 217).

    The standard knows three. What is no class activation is a saliency map: gradients, paths, perturbations,
    relevance, surrogates and attention have no code of their own, and their name is in the algorithm identification.
    """
    if card.family is not Family.CAM:
        return SALIENCY
    return GRADIENT_WEIGHTED if Ask.LAYER_GRADIENT in card.asks else CLASS_ACTIVATION


def unit_code(unit: str) -> Code:
    """A map's unit as UCUM: a named quantity without dimension is an annotation in braces, as ``{logit}``.

    Example:
        >>> unit_code("logit").value, unit_code("score").value, unit_code("logit per network unit").value
        ('{logit}', '{score}', '1')
    """
    word = re.sub(r"[^\x21-\x7a]", "_", unit.strip())
    if unit in ("1", "") or len(word) + 2 > _LONGEST:
        meaning = f"no units ({unit})"[:_MEANING] if len(unit) > 1 else NO_UNITS.meaning
        return Code(NO_UNITS.value, NO_UNITS.scheme_designator, meaning)
    return Code(f"{{{word}}}", "UCUM", unit[:_MEANING])


def concept(code: Code) -> CodedConcept:
    """A code as the item of a sequence."""
    return CodedConcept(code.value, code.scheme_designator, code.meaning, code.scheme_version)
