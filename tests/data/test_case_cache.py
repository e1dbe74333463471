# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Prepared cases on disk: kept exactly, and made again when anything that they depend on has changed."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, RandFlipd, SpatialPadd

from segan_monai.data import CaseCacheDataset
from segan_monai.data.case_cache import describe
from segan_monai.errors import OutputError, user_error_in
from segan_monai.transforms import (
    LabelToRegionsd,
    LoadCased,
    LoadCTd,
    RandSlicesd,
    ScaleForegroundd,
    SlicesWithContentd,
)

KEYS = ["image", "label"]


def preparation(regions=None, size=(20, 20, 12)):
    return [
        LoadCased(KEYS),
        Orientationd(KEYS, "RAS", labels=None),
        LabelToRegionsd("label", regions or {"any": [1, 2], "two": [2]}),
        SpatialPadd(KEYS, size),
        ScaleForegroundd("image"),
        SlicesWithContentd(KEYS),
    ]


@pytest.fixture
def cases(tmp_path, write_volume):
    generator = np.random.default_rng(0)
    found = []
    for name in ("a", "b[1]", "c"):
        label = np.zeros((18, 16, 10), np.uint8)
        label[4:9, 3:9, 2:7] = 1
        label[6:9, 3:9, 2:7] = 2
        image = generator.normal(100, 10, label.shape).astype(np.float32)
        files = {key: tmp_path / "data" / f"{name}_{key}.nii.gz" for key in KEYS}
        for key, array in (("image", image), ("label", label)):
            write_volume(files[key], array)
        found.append({"case": name, "subject": name, **{key: str(file) for key, file in files.items()}})
    return found


def dataset(cases, tmp_path, transforms=None, cache_dir="cache", **settings):
    folder = tmp_path / cache_dir if cache_dir else None
    made = CaseCacheDataset(
        cases,
        transforms if isinstance(transforms, Compose) else Compose(transforms or preparation()),
        report=tmp_path / "skipped.csv",
        cache_dir=folder,
        progress=False,
        **{"as_contiguous": False, "copy_cache": False, **settings},
    )
    return made, (made.files.read, made.files.made) if folder else None


def entries(tmp_path):
    return sorted((tmp_path / "cache").glob("*/*.pt"))


def test_what_is_kept_is_exactly_what_was_prepared(cases, tmp_path):
    plain, _ = dataset(cases, tmp_path, cache_dir=None)
    assert dataset(cases, tmp_path)[1] == (0, 3)
    kept, counts = dataset(cases, tmp_path)
    assert counts == (3, 0)
    for expected, found in zip(plain, kept, strict=True):
        assert found.keys() == expected.keys()
        for key, dtype in (("image", torch.float32), ("label", torch.uint8)):
            assert isinstance(found[key], MetaTensor)
            assert found[key].dtype == dtype
            assert torch.equal(found[key].as_tensor(), expected[key].as_tensor())
            assert found[key].stride() == expected[key].stride()
            assert torch.equal(found[key].affine, expected[key].affine)
            assert found[key].meta["filename_or_obj"] == expected[key].meta["filename_or_obj"]
            np.testing.assert_array_equal(found[f"{key}_slices"][2], expected[f"{key}_slices"][2])


def test_random_transforms_draw_the_same_from_files(cases, tmp_path):
    draws = []
    for cache_dir in (None, "cache", "cache"):
        random = [RandSlicesd(KEYS, "label", num_samples=4, roi_size=(8, 8)), RandFlipd(KEYS, prob=0.5, spatial_axis=0)]
        made, _ = dataset(cases, tmp_path, Compose([*preparation(), *random]).set_random_state(3), cache_dir)
        draws.append([sample for case in made for sample in case])
    for expected, *others in zip(*draws, strict=True):
        for found in others:
            assert torch.equal(found["image"], expected["image"])
            assert torch.equal(found["label"], expected["label"])


def test_what_was_done_to_a_volume_can_be_undone(cases, tmp_path):
    steps = preparation()[:4]
    dataset(cases, tmp_path, steps)
    made, counts = dataset(cases, tmp_path, transforms := preparation()[:4])
    assert counts == (3, 0)
    case = {**made[0], "pred": made[0]["image"]}
    undone = Invertd("pred", Compose(transforms), orig_keys="image", nearest_interp=True)(case)["pred"]
    assert torch.equal(undone.as_tensor(), LoadCased("image")(cases[0])["image"].as_tensor())


def test_voxels_are_mapped_from_the_file_and_writing_to_them_does_not_reach_it(cases, tmp_path):
    dataset(cases, tmp_path)
    made, _ = dataset(cases, tmp_path)
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert all(str(file) in mapped for file in entries(tmp_path))
    made[0]["image"].mul_(0)
    again, counts = dataset(cases, tmp_path)
    assert counts == (3, 0)
    assert again[0]["image"].abs().sum() > 0


def test_a_changed_voxel_prepares_that_case_again_and_leaves_no_old_file(cases, tmp_path, write_volume):
    dataset(cases, tmp_path)
    before = dataset(cases, tmp_path)[0][1]["image"].as_tensor().clone()
    image = np.full((18, 16, 10), 7, np.float32)
    image[0, 0, 0] = 9
    write_volume(tmp_path / "data" / "b[1]_image.nii.gz", image)
    made, counts = dataset(cases, tmp_path)
    assert counts == (2, 1)
    assert not torch.equal(made[1]["image"].as_tensor(), before)
    assert len(entries(tmp_path)) == 3
    assert dataset(cases, tmp_path)[1] == (3, 0)


def test_a_changed_label_file_of_the_same_size_prepares_that_case_again(cases, tmp_path):
    dataset(cases, tmp_path)
    state = Path(cases[2]["label"]).stat()
    os.utime(cases[2]["label"], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert dataset(cases, tmp_path)[1] == (2, 1)


@pytest.mark.parametrize(("header", "voxels"), [("a.mhd", "a.raw"), ("a.hdr", "a.img")])
def test_changed_voxels_beside_the_same_header_prepare_that_case_again(cases, tmp_path, header, voxels):
    image = SimpleITK.GetImageFromArray(np.full((10, 16, 18), 7, np.int16))
    SimpleITK.WriteImage(image, str(tmp_path / header))
    cases[0] |= {"image": str(tmp_path / header)}
    before = dataset(cases, tmp_path, steps := [LoadCased("image")])[0][0]["image"].as_tensor().clone()
    state = (tmp_path / header).stat()
    SimpleITK.WriteImage(image + 1, str(tmp_path / header))
    os.utime(tmp_path / header, ns=(state.st_atime_ns, state.st_mtime_ns))  # as if only the voxels were copied
    made, counts = dataset(cases, tmp_path, steps)
    assert counts == (2, 1)
    assert torch.equal(made[0]["image"].as_tensor(), before + 1)
    os.utime(tmp_path / voxels, ns=(0, 0))
    assert dataset(cases, tmp_path, steps)[1] == (2, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"regions": {"any": [1, 2], "two": [1]}},
        {"regions": {"two": [1, 2], "any": [2]}},
        {"size": (24, 20, 12)},
    ],
)
def test_another_preprocessing_has_files_of_its_own(cases, tmp_path, changed):
    dataset(cases, tmp_path)
    assert dataset(cases, tmp_path, preparation(**changed))[1] == (0, 3)
    assert len(list((tmp_path / "cache").glob("*/preprocessing.json"))) == 2
    assert dataset(cases, tmp_path)[1] == (3, 0), "both stay"


def test_a_transform_that_has_been_used_is_the_same_preprocessing(cases, tmp_path):
    transforms = preparation()
    assert dataset(cases, tmp_path, transforms)[1] == (0, 3)
    assert dataset(cases, tmp_path, transforms)[1] == (3, 0)


def test_a_transform_more_or_in_another_order_is_another_preprocessing(cases, tmp_path):
    dataset(cases, tmp_path)
    steps = preparation()
    assert dataset(cases, tmp_path, steps[:-1])[1] == (0, 3)
    assert dataset(cases, tmp_path, [*steps[:3], steps[4], steps[3], steps[5]])[1] == (0, 3)


def test_a_random_transform_is_no_part_of_the_preprocessing(cases, tmp_path):
    dataset(cases, tmp_path)
    random = RandSlicesd(KEYS, "label", num_samples=4, roi_size=(8, 8))
    assert dataset(cases, tmp_path, [*preparation(), random])[1] == (3, 0)


@pytest.mark.parametrize("version", ["monai.__version__", "segan_monai.data.case_cache.__version__"])
def test_another_version_prepares_again(cases, tmp_path, monkeypatch, version):
    dataset(cases, tmp_path)
    monkeypatch.setattr(version, "0.0.1")
    assert dataset(cases, tmp_path)[1] == (0, 3)


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_a_damaged_file_is_made_again_with_a_warning(cases, tmp_path, caplog, damage):
    expected = dataset(cases, tmp_path)[0][0]["image"].as_tensor().clone()
    file = entries(tmp_path)[0]
    content = file.read_bytes()
    # in a new file: the mapped pages of the old one are still in use
    file.unlink()
    file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "garbage": b"\x17" * len(content)}[damage])
    made, counts = dataset(cases, tmp_path)
    assert counts == (2, 1)
    assert f"{file} is damaged and is created again" in caplog.text
    assert torch.equal(made[0]["image"].as_tensor(), expected)
    assert dataset(cases, tmp_path)[1] == (3, 0)


def test_a_bad_case_is_skipped_in_every_run_and_never_kept(cases, tmp_path):
    bad = tmp_path / "data" / "a_image.nii.gz"
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        dataset(cases, tmp_path)
    assert "a_image.nii.gz" in str(user_error_in(caught.value))
    assert len(entries(tmp_path)) <= 2
    for _ in range(2):
        made, counts = dataset(cases, tmp_path, skip_unreadable=True)
        assert [item["case"] for item in made] == ["b[1]", "c"]
    assert counts == (2, 0)


def test_what_killed_processes_left_is_removed_when_it_is_old(cases, tmp_path):
    dataset(cases, tmp_path)
    folder = entries(tmp_path)[0].parent
    for name, age in ((".old.part", 2 * 24 * 3600), (".new.part", 60)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    dataset(cases, tmp_path)
    assert [file.name for file in folder.glob(".*.part")] == [".new.part"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_files_have_the_permissions_that_the_umask_leaves(cases, tmp_path):
    before = os.umask(0o027)
    try:
        dataset(cases, tmp_path)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "cache").glob("*/*")} == {0o640}


def test_many_threads_read_and_what_pytorch_loads_elsewhere_stays_as_it_was(cases, tmp_path):
    dataset(cases, tmp_path)
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([np.dtype]):  # which a prepared case needs too
        made, _ = dataset(cases, tmp_path)
        with ThreadPool(8) as pool:
            read = pool.map(lambda _: made.files.get(cases[0], pytest.fail), range(64))
        assert set(torch.serialization.get_safe_globals()) == before | {np.dtype}
    assert set(torch.serialization.get_safe_globals()) == before
    assert all(torch.equal(item["image"].as_tensor(), read[0]["image"].as_tensor()) for item in read)


def test_a_folder_that_cannot_be_written_is_named(cases, tmp_path):
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match=r"cache.* cannot be written"):
        dataset(cases, tmp_path)


def _fill(cases, tmp_path, start, counts):
    start.wait()
    made, found = dataset(cases, tmp_path)
    counts.put((found, [float(item["image"].sum()) for item in made]))


def test_two_processes_at_once(cases, tmp_path):
    """They begin together with nothing there; each has whole cases, and nothing but these is left."""
    context = multiprocessing.get_context("fork")
    start, counts = context.Barrier(2), context.Queue()
    both = [context.Process(target=_fill, args=(cases, tmp_path, start, counts)) for _ in range(2)]
    for process in both:
        process.start()
    (first, first_sums), (second, second_sums) = counts.get(timeout=60), counts.get(timeout=60)
    for process in both:
        process.join(60)
    assert first_sums == second_sums
    assert sum(first) == sum(second) == 3
    assert len(entries(tmp_path)) == 3
    assert not list((tmp_path / "cache").glob("*/.*.part"))


class Step:
    def __init__(self, **settings):
        self.__dict__.update(settings)


def doubled(values, factor=2):
    return [factor * value for value in values]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        ([1, 2], [2, 1]),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64)),
        (Step(a=1), Step(a=2)),
        (Step(a=Step(b=1)), Step(a=Step(b=2))),
        (functools.partial(doubled, factor=2), functools.partial(doubled, factor=3)),
        (lambda value: value + 1, lambda value: value + 2),
        (lambda value: value.min(), lambda value: value.max()),
        (lambda: [v * 2 for v in range(3)], lambda: [v * 3 for v in range(3)]),
    ],
)
def test_descriptions_of_different_things_differ(one, other):
    assert repr(describe(one)) != repr(describe(other))


def test_functions_that_a_config_writes(cases, tmp_path):
    steps = ConfigParser({"steps": [{"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x * 2"}]})
    doubled_image = [LoadCased("image"), *steps.get_parsed_content("steps")]
    plain = dataset(cases, tmp_path / "plain", [LoadCased("image")])[0][0]["image"]
    made, counts = dataset(cases, tmp_path, doubled_image)
    assert counts == (0, 3)
    assert torch.equal(made[0]["image"], plain * 2)


def test_what_a_loader_has_warned_of_is_no_setting():
    used = LoadCTd(["image"])
    used.warned.add("a")
    assert describe(used) == describe(LoadCTd(["image"]))


def test_descriptions_of_equal_things_are_equal():
    def adds(number):
        return lambda value: value + number

    for make in (
        lambda: Step(a=[1, {"b": np.arange(3)}], device=torch.device("cpu"), kind=torch.uint8, call=doubled),
        lambda: adds(3),
        object,
    ):
        assert describe(make()) == describe(make())
    assert repr(describe(adds(3))) != repr(describe(adds(4)))
    endless = Step()
    endless.own = endless
    assert describe(endless)[2] == {"own": "itself"}
