# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from segan_monai.data.brats import brats_cases
from segan_monai.errors import ConfigError, DataError
from segan_monai.transforms import LoadCased


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def underscore(root: Path, case: str, kinds: str = "flair t1 t1ce t2 seg", folder: str | None = None) -> None:
    touch(root, *(f"{case if folder is None else folder}/{case}_{kind}.nii.gz" for kind in kinds.split()))


def vsd_2015(folder: Path, labelled: bool = True) -> None:
    for number, kind in enumerate(["MR_Flair", "MR_T1", "MR_T1c", "MR_T2"]):
        touch(folder, f"VSD.Brain.XX.O.{kind}.5451{number}/VSD.Brain.XX.O.{kind}.5451{number}.mha")
    if labelled:
        touch(folder, "VSD.Brain_3more.XX.O.OT.54517/VSD.Brain_3more.XX.O.OT.54517.mha")


def test_2015(tmp_path):
    root = tmp_path / "BRATS2015_Training"
    vsd_2015(root / "LGG/brats_2013_pat0001_1")
    vsd_2015(root / "HGG/brats_2013_pat0001_1")
    vsd_2015(root / "HGG/brats_tcia_pat117_0003")
    vsd_2015(root / "HGG/brats_tcia_pat117_0001")
    touch(root, "HGG/brats_2013_pat0001_1/._VSD.Brain.XX.O.MR_T1c.54512.mha", "readme.txt")
    cases = brats_cases(tmp_path)
    assert [case["case"] for case in cases] == [
        "HGG_brats_2013_pat0001_1",  # this folder occurs under both grades: two patients
        "HGG_brats_tcia_pat117_0001",
        "HGG_brats_tcia_pat117_0003",
        "LGG_brats_2013_pat0001_1",
    ]
    assert [case["subject"] for case in cases] == [
        "HGG_brats_2013_pat0001_1",
        "brats_tcia_pat117",
        "brats_tcia_pat117",
        "LGG_brats_2013_pat0001_1",
    ]
    assert [case["grade"] for case in cases] == ["HGG", "HGG", "HGG", "LGG"]
    assert {case["convention"] for case in cases} == {"brats2015"}
    folder = root / "LGG/brats_2013_pat0001_1"
    assert cases[3]["image"] == [
        str(folder / "VSD.Brain.XX.O.MR_T1c.54512/VSD.Brain.XX.O.MR_T1c.54512.mha"),
        str(folder / "VSD.Brain.XX.O.MR_T2.54513/VSD.Brain.XX.O.MR_T2.54513.mha"),
        str(folder / "VSD.Brain.XX.O.MR_Flair.54510/VSD.Brain.XX.O.MR_Flair.54510.mha"),
    ]
    assert cases[3]["label"] == str(folder / "VSD.Brain_3more.XX.O.OT.54517/VSD.Brain_3more.XX.O.OT.54517.mha")
    assert brats_cases(root / "LGG") == [cases[3]]  # names do not depend on where one points


def test_2013(tmp_path):
    for grade in ("HG", "LG"):
        for kind in ("MR_Flair", "MR_T1", "MR_T1c", "MR_T2"):
            touch(tmp_path / "Image_Data" / grade / "0001", f"VSD.Brain.XX.O.{kind}/VSD.Brain.XX.O.{kind}.684.mha")
        label = "VSD.Brain_1more.XX.O.OT/VSD.Brain_1more.XX.O.OT.6560.mha"
        touch(tmp_path / "Image_Data" / grade / "0001", label)
    cases = brats_cases(tmp_path, modalities=("t1",))
    assert [(case["case"], case["subject"], case["grade"]) for case in cases] == [
        ("HG_0001", "HG_0001", "HGG"),
        ("LG_0001", "LG_0001", "LGG"),
    ]
    assert cases[0]["image"][0].endswith("HG/0001/VSD.Brain.XX.O.MR_T1/VSD.Brain.XX.O.MR_T1.684.mha")
    assert cases[0]["label"].endswith("OT.6560.mha")


def test_2018_to_2021(tmp_path):
    underscore(tmp_path / "HGG", "Brats18_2013_2_1")
    underscore(tmp_path / "LGG", "Brats18_2013_0_1")
    underscore(tmp_path, "BraTS2021_00002", kinds="flair t1 t1ce t2")
    cases = {case["case"]: case for case in brats_cases(tmp_path, modalities=("T1gd", "flair"))}
    assert list(cases) == ["BraTS2021_00002", "Brats18_2013_0_1", "Brats18_2013_2_1"]
    folder = tmp_path / "HGG/Brats18_2013_2_1"
    assert cases["Brats18_2013_2_1"] == {
        "case": "Brats18_2013_2_1",
        "subject": "Brats18_2013_2_1",
        "image": [
            str(folder / "Brats18_2013_2_1_t1ce.nii.gz"),
            str(folder / "Brats18_2013_2_1_flair.nii.gz"),
        ],
        "label": str(folder / "Brats18_2013_2_1_seg.nii.gz"),
        "grade": "HGG",
        "convention": "brats2021",
    }
    assert cases["Brats18_2013_0_1"]["grade"] == "LGG"
    assert cases["BraTS2021_00002"].keys() == {"case", "subject", "image", "convention"}  # no label, no grade


def test_flat_folder_and_t1c(tmp_path):
    underscore(tmp_path, "p1", kinds="flair t1c t2 seg", folder=".")
    underscore(tmp_path, "p2", kinds="flair t1c t2", folder=".")
    cases = brats_cases(tmp_path)
    assert [case["case"] for case in cases] == ["p1", "p2"]
    assert cases[0]["image"][0] == str(tmp_path / "p1_t1c.nii.gz")


@pytest.mark.parametrize("year", [2019, 2020])
def test_grades_of_name_mapping(tmp_path, year):
    underscore(tmp_path, "BraTS_Training_001")
    underscore(tmp_path, "BraTS_Training_002")
    (tmp_path / "name_mapping.csv").write_text(
        f"Grade,BraTS_2018_subject_ID,BraTS_{year}_subject_ID\nHGG,NA,BraTS_Training_001\nLGG,NA,BraTS_Training_002\n",
        encoding="utf-8",
    )
    assert [case["grade"] for case in brats_cases(tmp_path)] == ["HGG", "LGG"]


def test_stray_label_name_of_2020(tmp_path):
    underscore(tmp_path, "BraTS20_Training_355", kinds="flair t1 t1ce t2")
    touch(tmp_path, "BraTS20_Training_355/W39_1998.09.19_Segm.nii")
    (case,) = brats_cases(tmp_path)
    assert case["label"].endswith("BraTS20_Training_355/W39_1998.09.19_Segm.nii")


def test_2023(tmp_path):
    names = ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-PED-00001-000"]
    for name in names:
        touch(tmp_path, *(f"{name}/{name}-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "t2f", "seg")))
    cases = brats_cases(tmp_path)
    assert [case["case"] for case in cases] == names
    assert [case["subject"] for case in cases] == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-PED-00001"]
    assert [Path(path).name[-10:-7] for path in cases[0]["image"]] == ["t1c", "t2w", "t2f"]
    assert [case.get("convention") for case in cases] == ["brats2023", "brats2023", None]  # PED labels differ


def test_links_are_followed_once(tmp_path):
    underscore(tmp_path / "elsewhere", "p1")
    data = tmp_path / "data"
    data.mkdir()
    (data / "p1").symlink_to(tmp_path / "elsewhere/p1")
    (data / "loop").symlink_to(data)
    assert [case["case"] for case in brats_cases(data)] == ["p1"]


def test_mha_is_read_in_voxel_order_and_ras(tmp_path, write_volume, oblique):
    rng = np.random.default_rng(0)
    folder = tmp_path / "HGG/brats_2013_pat0001_1"
    arrays = {kind: rng.integers(0, 1000, (5, 4, 3)).astype(np.int16) for kind in ("MR_T1c", "MR_T2", "MR_Flair")}
    for kind, array in arrays.items():
        write_volume(folder / f"VSD.Brain.XX.O.{kind}.1/VSD.Brain.XX.O.{kind}.1.mha", array, oblique)
    label = rng.integers(0, 5, (5, 4, 3)).astype(np.uint8)
    path = write_volume(folder / "VSD.Brain_3more.XX.O.OT.2/VSD.Brain_3more.XX.O.OT.2.mha", label, oblique)
    loaded = LoadCased()(brats_cases(tmp_path)[0])
    np.testing.assert_array_equal(loaded["image"].numpy(), np.stack(list(arrays.values())))
    np.testing.assert_array_equal(loaded["label"].numpy(), label[None])
    np.testing.assert_allclose(loaded["image"].affine.numpy(), oblique, atol=1e-6)
    # one voxel, against SimpleITK: the same place in the patient (LPS there, RAS here)
    point = SimpleITK.ReadImage(str(path)).TransformIndexToPhysicalPoint((4, 1, 2))
    np.testing.assert_allclose(oblique @ [4, 1, 2, 1], [-point[0], -point[1], point[2], 1], atol=1e-6)


def test_volumes_of_other_names_are_named(tmp_path, caplog):
    underscore(tmp_path, "s0")
    touch(tmp_path, "s1/t1.nii.gz", "s2-t1ce.nii.gz", "notes.txt")
    assert [case["case"] for case in brats_cases(tmp_path)] == ["s0"]
    assert f"{tmp_path}: omitted s2-t1ce.nii.gz, t1.nii.gz. Cases are BraTS 2013" in caplog.text


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: there is no such folder\. Set --dataset_dir"):
        brats_cases(tmp_path / "nowhere")


def test_empty_folder(tmp_path):
    with pytest.raises(
        DataError, match=r"no BraTS case in .*VSD\.Brain.*_t1ce\.nii\.gz.*-t1c\.nii\.gz.*no files at all"
    ):
        brats_cases(tmp_path)


def test_folder_of_something_else(tmp_path):
    touch(tmp_path, "a.txt", "sub/scan.nii.gz")
    with pytest.raises(DataError, match=r"found 2 other files, such as a\.txt, scan\.nii\.gz"):
        brats_cases(tmp_path)


def test_case_without_a_modality(tmp_path):
    underscore(tmp_path, "p1", kinds="flair t1 t1ce seg")
    with pytest.raises(DataError, match=r"case p1 in .*p1 has no file for t2; it has p1_flair\.nii\.gz, p1_seg"):
        brats_cases(tmp_path)


def test_two_files_for_a_modality(tmp_path):
    underscore(tmp_path, "p1", kinds="flair t1ce t1c t2")
    with pytest.raises(DataError, match=r"two files for t1c: p1_t1c\.nii\.gz and p1_t1ce\.nii\.gz\. Keep one"):
        brats_cases(tmp_path)


def test_unknown_modality(tmp_path):
    with pytest.raises(ConfigError, match=r"modalities=\['dwi'\]: BraTS has t1, t1c, t2, flair"):
        brats_cases(tmp_path, modalities=("dwi",))


@pytest.mark.real_data
def test_open_ms(data_dir):
    cases = brats_cases(data_dir / "open_ms")
    assert [case["case"] for case in cases] == ["patient19", "patient26"]
    loaded = LoadCased(modalities=("t1c", "t2", "flair"))(cases[0])
    assert loaded["image"].shape == (3, 182, 218, 182)
    assert loaded["label"].unique().tolist() == [0, 1]


def test_a_damaged_table_of_grades_is_named(tmp_path):
    (tmp_path / "name_mapping.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"name_mapping\.csv cannot be read .* only the grades are read from it"):
        brats_cases(tmp_path)
