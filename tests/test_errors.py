# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from segan_monai.errors import missing_file, unreadable


def test_missing_file():
    assert str(missing_file("a.nii")) == (
        "a.nii: there is no such file. Correct the path in the datalist or copy the file there."
    )
    assert str(missing_file("a.nii", "Train first.")) == "a.nii: there is no such file. Train first."


def test_unreadable():
    assert str(unreadable("a.nii", EOFError("no\nmore"))) == (
        "a.nii cannot be read (EOFError: no more). It is truncated or damaged; copy or download it again."
    )
    of_itk = RuntimeError("/tmp/SimpleITK/itkReader.cxx:97:\nsitk::ERROR: " + 300 * "x")
    assert str(unreadable("a.mha", of_itk, "Try.")) == f"a.mha cannot be read (RuntimeError: {200 * 'x'}). Try."
