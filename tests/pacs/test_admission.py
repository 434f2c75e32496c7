"""What may be sent: explanations with their marks, and nothing of the patient's own images."""

from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)

from pellucid.core.errors import InputError
from pellucid.pacs.admission import admit, doubts
from pellucid.pacs.parcel import Parcel, same_content

Make = Callable[..., Dataset]


def test_ours_are_admitted(make: Make) -> None:
    admit(make(), "x")
    admit(make(kind=ParametricMapStorage), "x")
    admit(make(BurnedInAnnotation="YES"), "x")


@pytest.mark.parametrize(
    ("changes", "word", "any_maker"),
    [
        ({"kind": CTImageStorage}, "images themselves are never sent", True),
        ({"SyntheticData": "YES"}, "synthetic", True),
        ({"SeriesDescription": "RESEARCH: SYNTHETIC nodule"}, "synthetic", True),
        ({"ImageType": ["DERIVED", "SECONDARY", "PLANTED"]}, "planted", True),
        ({"kind": ParametricMapStorage, "BurnedInAnnotation": "YES"}, "burned-in", True),
        ({"Manufacturer": "ACME"}, "not made by Pellucid", False),
        ({"SeriesDescription": "attribution map"}, "research", False),
    ],
)
def test_others_are_not(make: Make, changes: dict[str, object], word: str, any_maker: bool) -> None:
    data = make(**changes)
    with pytest.raises(InputError, match=word):
        admit(data, "x", any_maker)
    if not any_maker:
        admit(data, "x", any_maker=True)


def test_a_map_alone_is_doubted(parcels: list[Parcel]) -> None:
    assert doubts(parcels) == []
    assert "most viewers" in doubts(parcels[3:])[0]
    state = Parcel("s", parcels[0].path, GrayscaleSoftcopyPresentationStateStorage, "1", "2", parcels[0].study, "3", "")
    assert doubts([*parcels[3:], state]) == []
    elsewhere = Parcel("s", parcels[0].path, SecondaryCaptureImageStorage, "1", "2", "9.9", "3", "")
    assert doubts([*parcels[3:], elsewhere])


def test_content_is_pixels_and_attributes(make: Make) -> None:
    assert same_content(make(), make())
    assert same_content(make(), make(PatientName="Other^Name", AccessionNumber="7"))
    assert not same_content(make(), make(PixelData=bytes(144)))
    assert not same_content(make(), make(Rows=7))
    nested, other = make(), make()
    for data, value in ((nested, "one"), (other, "two")):
        item = Dataset()
        item.CodeMeaning = value
        data.ProcedureCodeSequence = [item]
    assert same_content(nested, nested)
    assert not same_content(nested, other)
