# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import os
import shutil
import zlib

import nibabel
import numpy as np
import pytest

from segan_monai.data.case_digest import case_digest

CONTENT = np.random.default_rng(0).integers(0, 9, 300_000, np.uint8).tobytes()


@pytest.fixture
def digest_of(tmp_path):
    """The digest of a case of one file with this content."""

    def digest(content, name="a.nii.gz"):
        file = tmp_path / name
        file.write_bytes(content)
        return case_digest({"case": "a", "image": str(file)})

    return digest


def changed(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def test_the_name_and_the_folder_do_not_count(tmp_path, digest_of):
    first = digest_of(CONTENT)
    (tmp_path / "other").mkdir()
    moved = shutil.copy(tmp_path / "a.nii.gz", tmp_path / "other" / "b.nii")
    assert case_digest({"case": "b", "image": str(moved), "label": "of b", "channels": [1]}) == first
    assert case_digest({"case": "b", "image": [str(moved)]}) == first


@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_volume_that_was_compressed_again_is_the_same(tmp_path, digest_of, level):
    first = digest_of(gzip.compress(CONTENT, 6, mtime=1))
    assert digest_of(gzip.compress(CONTENT, level, mtime=2)) == first
    with gzip.open(tmp_path / "with_its_name_in_the_header.nii.gz", "wb", level) as file:
        file.write(CONTENT)
    assert case_digest({"image": str(tmp_path / "with_its_name_in_the_header.nii.gz")}) == first


@pytest.mark.parametrize("position", [0, 100_000, 299_999])
def test_one_voxel_of_a_compressed_volume_counts(digest_of, position):
    assert digest_of(gzip.compress(changed(CONTENT, position))) != digest_of(gzip.compress(CONTENT))


@pytest.mark.parametrize("size", [1, 65_536, 70_000, 131_073, 196_608])
def test_every_byte_of_a_small_file_counts(digest_of, size):
    """A picture, in blocks without gaps."""
    content = CONTENT[:size]
    positions = {0, size - 1, *range(65_500, size - 1, 3001)}
    positions = {position for position in positions if position < size}
    assert len({digest_of(content), *(digest_of(changed(content, at)) for at in positions)}) == 1 + len(positions)


def test_of_a_large_file_beginning_middle_end_and_size_count(digest_of):
    found = [digest_of(CONTENT), digest_of(CONTENT + b"0")]
    assert len({*found, *(digest_of(changed(CONTENT, at)) for at in (9, 150_000, 299_990))}) == 5
    assert digest_of(changed(CONTENT, 90_000)) == found[0], "not read"


def test_files_of_several_members_are_told_apart(digest_of):
    """bgzip ends each file with an empty member, so that all have the same last 8 bytes."""

    def blocks(content):
        return b"".join(gzip.compress(content[at : at + 60_000], mtime=0) for at in (0, 60_000)) + gzip.compress(b"")

    assert digest_of(blocks(CONTENT)) != digest_of(blocks(changed(CONTENT, 100_000)))


def test_a_damaged_gzip_file_has_a_digest_too(digest_of):
    broken = b"\x1f\x8b" + CONTENT
    with pytest.raises(zlib.error):
        zlib.decompressobj(wbits=31).decompress(broken)
    assert digest_of(broken) != digest_of(changed(broken, 70))


def test_channels_and_the_slices_of_a_folder(tmp_path):
    for name, content in (("0.dcm", b"first"), ("1.dcm", b"second")):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ("0.dcm", "1.dcm")]
    assert case_digest({"image": files}) == case_digest({"image": str(tmp_path)})
    assert case_digest({"image": files[::-1]}) != case_digest({"image": files})
    assert case_digest({"image": files[0]}) != case_digest({"image": files})


@pytest.mark.parametrize(
    ("header", "text", "data"),
    [
        ("T1.hdr", "Analyze", "T1.img"),
        ("T1.mhd", "NDims = 3\nElementDataFile = voxels.raw\n", "voxels.raw"),
        ("T1.nhdr", "NRRD0004\ndata file: voxels.raw.gz\n", "voxels.raw.gz"),
    ],
)
def test_voxels_beside_a_header_that_all_cases_share(tmp_path, header, text, data):
    found = []
    for case, voxels in (("a", b"of a"), ("b", b"of b"), ("renamed", b"of a")):
        (tmp_path / case).mkdir()
        (tmp_path / case / header).write_text(text, encoding="utf-8")
        (tmp_path / case / data).write_bytes(voxels)
        found.append(case_digest({"image": str(tmp_path / case / header)}))
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("data", ["LIST", "LIST 2", "slice%03d.raw 1 9 1"])
def test_one_file_per_slice_beside_a_header_has_no_digest(tmp_path, data):
    """The header alone would be that of other patients too."""
    (tmp_path / "a.mhd").write_text(f"NDims = 3\nElementDataFile = {data}\na.raw\n", encoding="utf-8")
    (tmp_path / "a.raw").write_bytes(b"voxels")
    assert case_digest({"image": str(tmp_path / "a.mhd")}) is None


def test_no_image_no_digest(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.nii").touch()
    assert case_digest({"case": "a", "image": str(tmp_path / "empty.nii")}) is None
    for image in ("", None, [], str(tmp_path / "none.nii"), str(tmp_path / "empty"), "nul\0.nii", os.devnull + "/x"):
        assert case_digest({"case": "a", "image": image}) is None


@pytest.mark.parametrize(
    "values", [np.zeros((4, 5, 6), np.uint8), np.arange(70 * 60 * 50, dtype=np.int32).reshape(70, 60, 50)]
)
def test_a_volume_is_known_whether_it_is_compressed_or_not(tmp_path, values):
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "b.nii").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    assert case_digest({"image": str(tmp_path / "a.nii.gz")}) == case_digest({"image": str(tmp_path / "b.nii")})
    values.flat[-1] += 1
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "c.nii")
    assert case_digest({"image": str(tmp_path / "c.nii")}) != case_digest({"image": str(tmp_path / "b.nii")})
