# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import nibabel
import numpy as np
import pytest
import torch

import segan_monai
from segan_monai.errors import ConfigError, DataError
from tests.docs.pages import TOP

BRATS, HIPPOCAMPUS = (TOP / "bundles" / f"{name}_mri_segan_segmentation" for name in ("brats", "hippocampus"))


def write(file, voxels, affine=None):
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4) if affine is None else affine), file)
    return file


def test_a_network_has_the_weights_of_its_bundle():
    network = segan_monai.load_network(HIPPOCAMPUS)
    assert not network.training
    files = [HIPPOCAMPUS / "models" / "folds" / f"fold_{number}" / "model.pt" for number in range(5)]
    alone = HIPPOCAMPUS / "models" / "model.pt"
    networks = [*network.members, segan_monai.load_network(HIPPOCAMPUS, alone)]
    for loaded, file in zip(networks, [*files, alone], strict=True):
        weights = torch.load(file, weights_only=True)  # float16
        assert loaded.state_dict().keys() == weights.keys()
        assert all(torch.equal(value, weights[name].to(value.dtype)) for name, value in loaded.state_dict().items())


def test_other_weights_and_settings(tmp_path):
    small = segan_monai.SegANSegmentor(in_channels=3, out_channels=3, base_channels=4)
    torch.save(small.state_dict(), tmp_path / "model.pt")
    network = segan_monai.load_network(BRATS, tmp_path / "model.pt", base_channels=4)
    assert torch.equal(next(network.parameters()), next(small.parameters()))
    with pytest.raises(ConfigError, match="in the file and"):
        segan_monai.load_network(BRATS, tmp_path / "model.pt")


def test_modalities_are_stacked_in_order_scaled_and_reoriented(tmp_path):
    voxels = np.arange(1, 4 * 5 * 6 + 1).reshape(4, 5, 6)
    flipped = np.diag([-1.0, 1, 1, 1])
    names = ("t1c.nii.gz", "t2.nii.gz", "flair.nii.gz")
    files = [write(tmp_path / name, voxels * scale, flipped) for name, scale in zip(names, (1, 2, -3), strict=True)]
    image = segan_monai.load_preprocessing(BRATS)([str(file) for file in files])
    assert image.shape == (3, 4, 5, 6)
    assert image[0].max() == pytest.approx(1)
    assert image[0, 0].mean() > image[0, -1].mean()  # the first axis grows to the right now
    torch.testing.assert_close(image[0].as_tensor(), image[1].as_tensor())
    assert image[2, 0].mean() < image[2, -1].mean()


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.nii\.gz"):
        segan_monai.load_preprocessing(HIPPOCAMPUS)(tmp_path / "nothing.nii.gz")


@pytest.mark.parametrize("load", ["load_network", "load_preprocessing", "load_inferer"])
def test_a_folder_that_is_no_bundle(load, tmp_path):
    with pytest.raises(ConfigError, match="expected the folder of a bundle, with configs/ in it"):
        getattr(segan_monai, load)(tmp_path)


def test_the_probabilities_of_different_members_are_averaged(tmp_path):
    shutil.copytree(HIPPOCAMPUS / "configs", tmp_path / "configs")
    files = [tmp_path / "models" / f"fold_{number}" / "model.pt" for number in (0, 1)]
    weights = torch.load(HIPPOCAMPUS / "models" / "model.pt", weights_only=True)
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True)
        torch.save({name: v + number if name.endswith("bias") else v for name, v in weights.items()}, file)
    image = torch.rand(1, 7, 64, 48, generator=torch.Generator().manual_seed(0))
    one, other = (segan_monai.load_network(tmp_path, file)(image).sigmoid() for file in files)
    assert (one - other).abs().max() > 0.1
    both = segan_monai.load_network(tmp_path)(image).sigmoid()
    torch.testing.assert_close(both, (one + other) / 2, atol=1e-5, rtol=0)


def test_a_bundle_that_includes_an_ensemble_has_an_inferer_and_averages_its_members(tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(HIPPOCAMPUS / "configs", bundle / "configs")
    weights = HIPPOCAMPUS / "models" / "model.pt"
    for member in ("fold_0", "fold_1"):
        (bundle / "models" / member).mkdir(parents=True)
        for file in (weights, weights.with_suffix(".json")):
            shutil.copy(file, bundle / "models" / member)
    assert segan_monai.load_inferer(bundle).axes == segan_monai.load_inferer(HIPPOCAMPUS).axes
    image = torch.rand(1, 7, 64, 48, generator=torch.Generator().manual_seed(0))
    networks = segan_monai.load_network(HIPPOCAMPUS, weights), segan_monai.load_network(bundle)
    alone, both = (network(image).sigmoid() for network in networks)
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)
