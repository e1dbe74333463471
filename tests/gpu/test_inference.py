# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inference and exports on each device, also with too little memory."""

from __future__ import annotations

import gc
import logging

import pytest
import torch
from torch.export.passes import move_to_device_pass

from segan_monai.export import ExportedBundle
from segan_monai.inferers import RoISliceInferer, VolumeSliceInferer
from segan_monai.networks import LocalizationNet, LSNet, ResNetSegmentor, SegANSegmentor
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS
from tests.gpu.devices import DEVICES


@pytest.fixture(autouse=True)
def exact_float32():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def little_memory():
    """Allow this process so many bytes of the GPU beyond what it has now."""

    def allow(more):
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)

    yield allow
    torch.cuda.set_per_process_memory_fraction(1.0)


def network_and_volume():
    torch.manual_seed(0)
    network = SegANSegmentor(1, 2, base_channels=16).eval()
    return network, torch.rand(1, 1, 256, 256, 64)


@pytest.mark.parametrize("device", DEVICES)
def test_logits_are_those_of_the_cpu(device):
    network, volume = network_and_volume()
    volume = volume[:, :, :80, :64, :9]
    with torch.inference_mode():
        expected = VolumeSliceInferer(channels_last=False, batch_size=2)(volume, network)
        for axis in (2, [2, 0]):
            found = VolumeSliceInferer(axis=axis)(volume.to(device), network.to(device))
            assert found.device.type == device
            if axis == 2:
                torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
        mixed = VolumeSliceInferer(amp=True)(volume.to(device), network)
    assert mixed.dtype is torch.float32
    torch.testing.assert_close(mixed.cpu(), expected, atol=0.05, rtol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("mib", "where", "messages"),
    [
        (160, "cuda", ["out of memory on cuda"]),
        (1, "cpu", ["with a single one of the slices: trying again on the CPU"]),
    ],
)
def test_too_little_memory_takes_smaller_batches_and_at_last_the_cpu(mib, where, messages, little_memory, caplog):
    network, volume = network_and_volume()
    with torch.inference_mode():
        expected = VolumeSliceInferer(batch_size=4)(volume, network)
        network.cuda()
        on_gpu = volume.cuda()
        VolumeSliceInferer(batch_size=1)(on_gpu[..., :1], network)  # libraries take their memory
        little_memory(mib * 2**20)
        with caplog.at_level(logging.WARNING):
            found = VolumeSliceInferer(batch_size=64)(on_gpu, network)
    assert found.device.type == where
    text = " ".join(record.getMessage() for record in caplog.records)
    assert all(message in text for message in messages)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
    assert next(network.parameters()).device.type == "cuda", "the next volume may fit"


@pytest.mark.parametrize("device", DEVICES)
def test_rois_are_those_of_the_cpu(device):
    torch.manual_seed(0)
    localizer = LocalizationNet(1, 1, base_channels=4, threshold=0.01)
    network = LSNet(localizer, ResNetSegmentor(1, 1, 18, 4), 1, margin=2).eval()
    volume = torch.rand(1, 1, 64, 64, 3)
    inferer = RoISliceInferer(batch_size=2, channels_last=False)
    with torch.inference_mode():
        expected = inferer(volume, network)
        rois = inferer.found
        found = inferer(volume.to(device), network.to(device))
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(inferer.found, rois, atol=1e-2, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["torchscript", "torch-export"])
def test_exported_networks_run_on_the_device(kind, device, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "model.pt"
    torch.save(SegANSegmentor(7, 2, 4, full_resolution_channels=8).state_dict(), weights)
    bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, weights, overrides={"base_channels": 4})
    file = bundle.export(kind, tmp_path / "exported" / "model.ts")
    image = bundle.example(other=True)
    expected = bundle.network(image)
    if kind == "torchscript":
        exported = torch.jit.load(file, map_location=device)
    else:
        exported = move_to_device_pass(torch.export.load(file), device).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(image.to(device)).cpu(), expected, atol=1e-4, rtol=1e-4)
