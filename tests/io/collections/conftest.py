"""Folders of the layouts of public data sets, small and with a truth that is known."""

import json
import plistlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

SHAPE, FLAT = (6, 16, 20), (16, 20)
INSIDE = (slice(4, 9), slice(6, 15))  # rows and columns of what an expert marked


def flat(*values: int) -> np.ndarray:
    """A mask of a picture: the first value inside, the second in a corner."""
    found = np.zeros(FLAT, np.uint8)
    found[INSIDE] = values[0]
    if len(values) > 1:
        found[12:15, 0:3] = values[1]
    return found


def solid(*values: int) -> np.ndarray:
    """Labels of a volume, one slab of the first axis for each value."""
    found = np.zeros((16, 20, 28), np.uint8)
    for n, value in enumerate(values):
        found[2:8, 3:9, 2 * n : 2 * n + 2] = value
    return found


def photo() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 255, (*FLAT, 3), dtype=np.uint8)


def picture(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(photo() if values is None else values).save(path)


def volume(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = np.random.default_rng(6).normal(size=(16, 20, 28)).astype(np.float32) if values is None else values
    nib.save(nib.Nifti1Image(made, np.diag([2.0, 2.0, 3.0, 1.0])), path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def meta_image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = " ".join(str(n) for n in values.shape[::-1])
    kind = "MET_UCHAR" if values.dtype == np.uint8 else "MET_USHORT"
    header = f"ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = {kind}\nElementSpacing = 1 1 1\n"
    path.write_text(header + f"ElementByteOrderMSB = False\nElementDataFile = {path.stem}.raw\n", encoding="ascii")
    path.with_suffix(".raw").write_bytes(values.tobytes())


def roi(z: float, uid: str, points: list[tuple[int, int]], inclusion: str = "TRUE") -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    told = f"<imageZposition>{z}</imageZposition><imageSOP_UID>{uid}</imageSOP_UID>"
    return f"<roi>{told}<inclusion>{inclusion}</inclusion>{edges}</roi>"


def ring(top: int, left: int, bottom: int, right: int) -> list[tuple[int, int]]:
    """The pixels (x, y) of a rectangle's border, clockwise from its first corner and back to it."""
    along = [(x, top) for x in range(left, right)] + [(right, y) for y in range(top, bottom)]
    back = [(x, bottom) for x in range(right, left, -1)] + [(left, y) for y in range(bottom, top, -1)]
    return [*along, *back, (left, top)]


def reading(sessions: list[str]) -> str:
    inner = "".join(f"<readingSession>{s}</readingSession>" for s in sessions)
    return f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{inner}</LidcReadMessage>'


def nodule(rois: str, malignancy: int | None) -> str:
    told = "" if malignancy is None else f"<characteristics><malignancy>{malignancy}</malignancy></characteristics>"
    return f"<unblindedReadNodule><noduleID>1</noduleID>{told}{rois}</unblindedReadNodule>"


class Layouts:
    """One method for each data set, which lays out its folder."""

    def __init__(self, root: Path, phantom: type, write: Callable) -> None:
        self.root, self.phantom, self.write = root, phantom, write

    def make(self, name: str) -> Path:
        getattr(self, name.replace("-", "_"))(self.root / name)
        return self.root / name

    def brats(self, root: Path) -> None:
        for case in ("HGG/Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1", "BraTS2021_00000/BraTS2021_00000"):
            for end in ("flair", "t1", "t1ce", "t2"):
                volume(root / f"{case}_{end}.nii.gz")
            volume(root / f"{case}_seg.nii.gz", solid(1, 2, 4))

    def brats_2023(self, root: Path) -> None:
        for case in ("BraTS-GLI-00005-001", "BraTS-MET-00007-000"):
            for end in ("t2f", "t1n", "t1c", "t2w"):
                volume(root / case / f"{case}-{end}.nii.gz")
            volume(root / case / f"{case}-seg.nii.gz", solid(1, 2, 3, 4))

    def acdc(self, root: Path) -> None:
        here = root / "training" / "patient001"
        for frame in ("01", "12"):
            volume(here / f"patient001_frame{frame}.nii.gz")
            volume(here / f"patient001_frame{frame}_gt.nii.gz", solid(1, 2, 3))
        volume(here / "patient001_4d.nii.gz", np.zeros((4, 4, 3, 5), np.float32))
        text(here / "Info.cfg", "ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")

    def msd(self, root: Path) -> None:
        here = root / "Task05_Prostate"
        volume(here / "imagesTr" / "prostate_00.nii.gz", np.random.default_rng(1).normal(size=(16, 20, 28, 2)))
        volume(here / "labelsTr" / "prostate_00.nii.gz", solid(1, 2))
        volume(here / "imagesTs" / "prostate_03.nii.gz")
        volume(here / "imagesTr" / "._prostate_00.nii.gz")
        told = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "PZ", "2": "TZ"}}
        text(here / "dataset.json", json.dumps(told))

    def lits(self, root: Path) -> None:
        volume(root / "volume-0.nii")
        volume(root / "segmentation-0.nii", solid(1, 2))
        volume(root / "volume_pt2" / "volume-11.nii")
        volume(root / "segmentations" / "segmentation-11.nii", solid(1))  # no tumor

    def _series(self, folder: Path, name: str) -> None:
        """Files whose numbers run against the slices: only their headers tell where they lie."""
        folder.mkdir(parents=True)
        for k, data in enumerate(self.phantom(SHAPE).datasets()):
            data.save_as(folder / name.format(SHAPE[0] - 1 - k), enforce_file_format=True)

    def _ground(self, folder: Path, name: str, values: tuple[int, ...]) -> None:
        for number in range(SHAPE[0]):
            mask = np.zeros(FLAT, np.uint8)
            for n, value in enumerate(values):
                mask[2 + 3 * n : 4 + 3 * n, 5 : 7 + number] = value  # wider with each file
            picture(folder / name.format(number), mask)

    def chaos_ct(self, root: Path) -> None:
        self._series(root / "Train_Sets" / "CT" / "5" / "DICOM_anon", "i{:04d},0000b.dcm")
        self._ground(root / "Train_Sets" / "CT" / "5" / "Ground", "liver_GT_{:03d}.png", (255,))

    def chaos_mr(self, root: Path) -> None:
        here = root / "MR" / "7"
        for part, where in (
            ("T1DUAL", "DICOM_anon/InPhase"),
            ("T1DUAL", "DICOM_anon/OutPhase"),
            ("T2SPIR", "DICOM_anon"),
        ):
            self._series(here / part / where, "IMG-0004-{:05d}.dcm")
            self._ground(here / part / "Ground", "IMG-0004-{:05d}.png", (63, 126, 189, 252))

    def _write(self, folder: Path, datasets: list) -> None:
        for file in list(self.write(folder, datasets).iterdir()):
            file.rename(file.with_suffix(".dcm"))

    def lidc_idri(self, root: Path) -> None:
        made = self.phantom(SHAPE)
        sets = made.datasets()
        self._write(root / "LIDC-IDRI-0001" / "1.3.6.1.30" / "1.3.6.1.31", sets)
        uid, z = [str(d.SOPInstanceUID) for d in sets], [float(made.position(k)[2]) for k in range(SHAPE[0])]
        big = roi(z[2], uid[2], ring(3, 4, 9, 12)) + roi(z[3], uid[3], ring(3, 4, 9, 12))
        holed = big + roi(z[3], uid[3], ring(4, 5, 8, 9), "FALSE")
        small = roi(z[1], uid[1], [(15, 2)])
        other = roi(z[5], "not in the series", ring(10, 12, 15, 18))  # found by its height
        first = nodule(big, 5) + nodule(small, None)
        second = nodule(holed, 3) + nodule(other, 2) + "<nonNodule><nonNoduleID>9</nonNoduleID></nonNodule>"
        text(root / "LIDC-IDRI-0001" / "1.3.6.1.30" / "1.3.6.1.31" / "069.xml", reading([first, second]))
        film = root / "LIDC-IDRI-0001" / "1.3.6.1.32" / "1.3.6.1.33"
        self._write(film, self.phantom((1, 4, 5), bright=(0, 1, 1)).datasets())
        text(film / "070.xml", "<IdriReadMessage/>")

    def isic(self, root: Path) -> None:
        for number in (0, 1):
            picture(root / "ISIC2018_Task1-2_Training_Input" / f"ISIC_000000{number}.jpg")
        ground = root / "ISIC2018_Task1_Training_GroundTruth"
        picture(ground / "ISIC_0000000_segmentation.png", flat(255))
        picture(root / "ISIC2018_Task3_Training_Input" / "ISIC_0024306.jpg")
        header = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
        text(
            root / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv",
            f"{header}\nISIC_0024306,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n",
        )
        text(
            root / "ISIC2018_Task3_Training_LesionGroupings.csv",
            "image,lesion_id,diagnosis_confirm_type\nISIC_0024306,HAM_0000550,follow-up\n",
        )
        text(root / "HAM10000_metadata.csv", "lesion_id,image_id,dx,age\nHAM_0000118,ISIC_0000001,bkl,80.0\n")

    def busi(self, root: Path) -> None:
        picture(root / "normal" / "normal (1).png")
        picture(root / "normal" / "normal (1)_mask.png", flat(0))
        picture(root / "benign" / "benign (4).png")
        picture(root / "benign" / "benign (4)_mask.png", flat(255))
        picture(root / "benign" / "benign (4)_mask_1.png", flat(0, 255))

    def drive(self, root: Path) -> None:
        for part, number in (("training", "21"), ("test", "01")):
            picture(root / part / "images" / f"{number}_{part}.tif")
            picture(root / part / "1st_manual" / f"{number}_manual1.gif", flat(255))
            picture(root / part / "mask" / f"{number}_{part}_mask.gif", flat(255, 255))
        picture(root / "test" / "2nd_manual" / "01_manual2.gif", flat(255))

    def chase_db1(self, root: Path) -> None:
        for name in ("Image_01L", "Image_01R"):
            picture(root / f"{name}.jpg")
            for reader in ("1stHO", "2ndHO"):
                picture(root / f"{name}_{reader}.png", flat(255))

    def chestxray14(self, root: Path) -> None:
        picture(root / "images_001" / "images" / "00000001_000.png", flat(90))
        picture(root / "images_002" / "images" / "00000013_002.png", flat(90))
        text(
            root / "Data_Entry_2017.csv",
            "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
            "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
            "00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
            "00000013_002.png,No Finding,2,13,61,F,AP,2500,2048,0.168,0.168,\n",
        )
        text(
            root / "BBox_List_2017.csv",
            "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Cardiomegaly,512.0,256,256,384.0,,,\n",
        )

    def mimic_cxr(self, root: Path) -> None:
        name = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
        picture(root / "files" / "p10" / "p10000032" / "s50414267" / f"{name}.jpg", flat(80))
        labels = "subject_id,study_id,Atelectasis,Cardiomegaly,Edema,No Finding\n10000032,50414267,1.0,-1.0,1.0,\n"
        text(root / "mimic-cxr-2.0.0-chexpert.csv", labels)
        text(root / "mimic-cxr-2.0.0-metadata.csv", f"dicom_id,subject_id,ViewPosition\n{name},10000032,PA\n")
        text(
            root / "mimic-cxr-2.0.0-split.csv", f"dicom_id,study_id,subject_id,split\n{name},50414267,10000032,train\n"
        )

    def inbreast(self, root: Path) -> None:
        for number, side in (("20586908", "R"), ("20586934", "L")):
            data = self.phantom((1, *FLAT), bright=(0, 1, 1)).datasets(modality="MG")[0]
            for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
                delattr(data, tag)
            (root / "AllDICOMs").mkdir(parents=True, exist_ok=True)
            data.save_as(
                root / "AllDICOMs" / f"{number}_6c613a14b80a8591_MG_{side}_CC_ANON.dcm", enforce_file_format=True
            )
        corners = ["(6.0, 4.0)", "(14.0, 4.0)", "(14.0, 8.0)", "(6.0, 8.0)"]
        rois = [{"Name": "Mass", "Point_px": corners}, {"Name": "Calcifications", "Point_px": ["(2.000, 12.000)"]}]
        (root / "AllXML").mkdir()
        (root / "AllXML" / "20586908.xml").write_bytes(plistlib.dumps({"Images": [{"ImageIndex": 0, "ROIs": rois}]}))
        header = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
        rows = "removed;removed;R;CC;201001;20586908;3;4a\nremoved;removed;L;CC;201001;20586934;   ;1\n"
        text(root / "INbreast.csv", f"{header}\n{rows}")

    def kvasir_seg(self, root: Path) -> None:
        picture(root / "images" / "cju0qkwl35piu0993l0dewei2.jpg")
        picture(root / "masks" / "cju0qkwl35piu0993l0dewei2.jpg", flat(255))
        box = {"label": "polyp", "xmin": 12, "ymin": 8, "xmax": 30, "ymax": 18}
        told = {"cju0qkwl35piu0993l0dewei2": {"height": 32, "width": 40, "bbox": [box]}}
        text(root / "kavsir_bboxes.json", json.dumps(told))

    def kvasir(self, root: Path) -> None:
        for label in ("polyps", "normal-z-line"):
            picture(root / "kvasir-dataset-v2" / label / "0a0c1ee7.jpg")

    def cvc_clinicdb(self, root: Path) -> None:
        picture(root / "PNG" / "Original" / "1.png")
        picture(root / "PNG" / "Ground Truth" / "1.png", flat(255))

    def endoscene(self, root: Path) -> None:
        for part in ("CVC-300", "CVC-612"):
            picture(root / part / "image" / "3.bmp")
            picture(root / part / "gtpolyp" / "3.bmp", flat(255))

    def glas(self, root: Path) -> None:
        picture(root / "train_1.bmp")
        picture(root / "train_1_anno.bmp", flat(1, 2))
        text(
            root / "Grade.csv",
            "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\ntrain_1,8, malignant, moderately\n",
        )

    def kermany_oct(self, root: Path) -> None:
        picture(root / "OCT2017" / "train" / "CNV" / "CNV-1016042-1.jpeg", flat(99))
        picture(root / "OCT2017" / "test" / "NORMAL" / "NORMAL-12494-3.jpeg", flat(99))

    def retouch(self, root: Path) -> None:
        here = root / "RETOUCH-TrainingSet-Cirrus" / "TRAIN001"
        meta_image(here / "oct.mhd", np.random.default_rng(2).integers(0, 999, SHAPE).astype(np.uint16))
        truth = np.zeros(SHAPE, np.uint8)
        for value in (1, 2, 3):
            truth[value, 2:6, 3:9] = value
        meta_image(here / "reference.mhd", truth)

    def tcga_lgg(self, root: Path) -> None:
        here = root / "kaggle_3m" / "TCGA_CS_4941_19960909"
        picture(here / "TCGA_CS_4941_19960909_1.tif")
        picture(here / "TCGA_CS_4941_19960909_1_mask.tif", flat(255))
        text(
            root / "kaggle_3m" / "data.csv",
            "Patient,neoplasm_histologic_grade,age_at_initial_pathologic\nTCGA_CS_4941,2.0,67.0\n",
        )

    def synapse_btcv(self, root: Path) -> None:
        volume(root / "RawData" / "Training" / "img" / "img0001.nii.gz")
        volume(root / "RawData" / "Training" / "label" / "label0001.nii.gz", solid(*range(1, 14)))

    def segthor(self, root: Path) -> None:
        volume(root / "train" / "Patient_01" / "Patient_01.nii.gz")
        volume(root / "train" / "Patient_01" / "GT.nii.gz", solid(1, 2, 3, 4))

    def ph2(self, root: Path) -> None:
        here = root / "PH2 Dataset images" / "IMD002"
        picture(here / "IMD002_Dermoscopic_Image" / "IMD002.bmp")
        picture(here / "IMD002_lesion" / "IMD002_lesion.bmp", flat(255))
        header = "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry |"
        text(
            root / "PH2_dataset.txt",
            f"{header}\n|| IMD002 ||                        ||                  2 ||         0 |\n",
        )


@pytest.fixture
def layouts(tmp_path: Path, phantom: type, write: Callable) -> Layouts:
    return Layouts(tmp_path, phantom, write)
