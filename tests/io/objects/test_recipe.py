"""A recipe survives any object, any transfer syntax and any text, and a changed one is noticed."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pellucid.core.errors import InputError, NonFinite, UnreadableImage
from pellucid.io.objects.recipe import CREATOR, GROUP, MapFacts, Recipe, embed, extract, map_digest

_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_FACTS = st.builds(
    MapFacts,
    digest=st.text("0123456789abcdef", max_size=64),
    shape=st.tuples(st.integers(1, 512), st.integers(1, 512)),
    unit=st.text(),
    low=_NUMBERS,
    high=_NUMBERS,
    mean=_NUMBERS,
    total=_NUMBERS,
    peak=st.tuples(st.integers(0), st.integers(0)),
)
_RECIPES = st.builds(
    Recipe,
    target=st.text(),
    method=st.text(),
    fills=st.lists(st.text()).map(tuple),
    seed=st.integers(),
    crop=st.one_of(st.just(()), st.tuples(_NUMBERS, _NUMBERS, _NUMBERS)),
    override=st.booleans(),
    regions=st.dictionaries(st.text(), st.text()),
    value=st.one_of(st.none(), _NUMBERS),
    versions=st.dictionaries(st.text(), st.text()),
    made=_FACTS,
    scores=st.dictionaries(st.text(), st.one_of(st.none(), _NUMBERS)),
)
RECIPE = Recipe(
    target="Lungenödem>rest",
    method="Occlusion:window=16.0,stride=none,infill=-800.0 image",
    fills=("-800.0 image", "blur:5.0"),
    crop=(1.5, -2.0, 0.1 + 0.2),
    model_digest="a" * 64,
    versions={"pellucid": "1"},
    made=MapFacts.of(np.linspace(-1, 2, 24, dtype=np.float32).reshape(2, 3, 4), "logit"),
    scores={"DeletionAUC": 0.25, "IoU": None},
)


def _sent(dataset: Dataset, syntax: str) -> Dataset:
    """Written and read again."""
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = BytesIO()
    pydicom.dcmwrite(stream, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    stream.seek(0)
    return pydicom.dcmread(stream)


@pytest.fixture
def scan() -> Dataset:
    return pydicom.dcmread(get_testdata_file("CT_small.dcm"))


@settings(max_examples=60, deadline=None)
@given(_RECIPES)
def test_every_recipe_comes_back_equal(recipe: Recipe) -> None:
    assert recipe.text.isascii()
    assert Recipe.parse(recipe.text) == recipe
    assert Recipe.parse(recipe.text).digest == recipe.digest
    assert recipe.words.isascii()
    assert recipe.words.isprintable()
    dataset = Dataset()
    embed(dataset, recipe)
    assert extract(dataset) == recipe


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_it_survives_both_encodings_and_the_second_replaces_the_first(scan, syntax) -> None:
    before = set(scan.keys())
    embed(scan, Recipe("other", "Saliency"))
    embed(scan, RECIPE)
    back = _sent(scan, syntax)
    assert extract(back) == RECIPE
    assert len(back.ContributingEquipmentSequence) == len(back.PrivateDataElementCharacteristicsSequence) == 1
    assert f"weights_sha256={'a' * 64}" in back.ContributingEquipmentSequence[0].ContributionDescription
    assert before < set(back.keys())


def test_what_another_machine_contributed_is_kept(scan) -> None:
    scanner = Dataset()
    scanner.Manufacturer = "Scanner"
    scan.ContributingEquipmentSequence = [scanner]
    embed(scan, RECIPE)
    assert [item.Manufacturer for item in scan.ContributingEquipmentSequence] == ["Scanner", "Pellucid"]


def test_an_object_without_a_recipe_and_one_with_a_changed_recipe_are_told_apart(scan) -> None:
    with pytest.raises(InputError, match="holds no recipe"):
        extract(scan)
    embed(scan, RECIPE)
    element = scan.private_block(GROUP, CREATOR)[0x01]
    element.value = element.value.replace('"seed":0', '"seed":1')
    with pytest.raises(InputError, match="was changed"):
        extract(scan)
    del scan.private_block(GROUP, CREATOR)[0x02]
    with pytest.raises(UnreadableImage, match="damaged"):
        extract(scan)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (('"version":1', '"version":2'), "read it with the Pellucid that wrote it"),
        (('"seed":0', '"seed":"0"'), "fields of a recipe"),
        (('"seed"', '"sneed"'), "fields of a recipe"),
        (('{"background', "{background"), "damaged"),
    ],
)
def test_a_text_that_is_no_recipe_is_refused(changed, error) -> None:
    with pytest.raises(InputError, match=error):
        Recipe.parse(RECIPE.text.replace(*changed))


def test_the_digest_of_a_map_knows_shape_and_every_voxel_and_no_minus_zero() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert map_digest(values) == map_digest(values.astype(np.float64)) == map_digest(np.asfortranarray(values))
    assert map_digest(-values * 0) == map_digest(values * 0)
    assert map_digest(values) != map_digest(values.reshape(3, 2, 4))
    other = values.copy()
    other[1, 2, 3] = np.nextafter(other[1, 2, 3], 99, dtype=np.float32)
    assert map_digest(values) != map_digest(other)
    facts = MapFacts.of(values - 30, "logit")
    assert (facts.low, facts.high, facts.mean, facts.total, facts.peak) == (-30.0, -7.0, -18.5, 444.0, (0, 0, 0))
    with pytest.raises(NonFinite, match="finite values"):
        MapFacts.of(values * np.nan, "logit")
    with pytest.raises(NonFinite, match="finite numbers"):
        _ = Recipe("a", "b", value=float("nan")).text


def test_it_knows_nothing_of_the_patient(scan) -> None:
    embed(scan, RECIPE)
    told = RECIPE.text + scan.ContributingEquipmentSequence[0].ContributionDescription
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID"):
        assert str(scan[keyword].value) not in told
