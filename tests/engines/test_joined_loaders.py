# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from segan_monai.engines.joined_loaders import JoinedLoaders
from segan_monai.errors import DataError


def loader(values, workers=0, **settings):
    data = [{"image": float(value)} for value in values]
    return DataLoader(data, shuffle=True, num_workers=workers, **settings)


def seen(batches, key="unlabeled"):
    return [batch[key]["image"].tolist() for batch in batches]


def test_a_short_loader_begins_again_in_another_order():
    torch.manual_seed(0)
    joined = JoinedLoaders(loader(range(12)), {"unlabeled": loader(range(5))})
    batches = list(joined)
    assert len(batches) == len(joined) == 12
    order = [values[0] for values in seen(batches)]
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order[:5] != order[5:10]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_all_follows_from_the_random_state_when_the_epoch_begins(workers):
    joined = JoinedLoaders(loader(range(9), workers), {"unlabeled": loader(range(4), workers)})
    torch.manual_seed(3)
    whole = seen(joined)
    torch.manual_seed(3)
    disturbed = []
    for batch in joined:
        disturbed.append(batch["unlabeled"]["image"].tolist())
        torch.rand(7)  # as noise or dropout would
    assert disturbed == whole
    assert seen(joined) != whole


def test_the_main_loader_is_as_without_others():
    torch.manual_seed(1)
    torch.randint(2**31, ())  # the seed of the others
    alone = [batch["image"].tolist() for batch in loader(range(9))]
    torch.manual_seed(1)
    joined = JoinedLoaders(loader(range(9)), {"unlabeled": loader(range(4))})
    assert [batch["image"].tolist() for batch in joined] == alone


def test_transforms_in_this_process_are_found_for_seeding():
    here, elsewhere = loader([1]), loader([2], workers=1)
    joined = JoinedLoaders(elsewhere, {"unlabeled": here})
    assert joined.num_workers == 0
    assert joined.dataset.unlabeled is here.dataset
    assert not hasattr(joined.dataset, "main")
    assert len(joined.dataset) == 1, "cases of the main loader"
    assert JoinedLoaders(elsewhere, {"unlabeled": elsewhere}).num_workers is None


def test_distributed_samplers_learn_the_epoch():
    data = [1, 2, 3]
    loaders = [DataLoader(data, sampler=DistributedSampler(data, 2, 0)) for _ in range(2)]
    JoinedLoaders(loaders[0], {"unlabeled": loaders[1]}).set_epoch(7)
    assert [each.sampler.epoch for each in loaders] == [7, 7]


def test_a_loader_without_batches():
    joined = JoinedLoaders(loader([1]), {"unlabeled": loader([1], batch_size=2, drop_last=True)})
    with pytest.raises(DataError, match=r"the loader of 'unlabeled' has no batch\. It needs at least as many samples"):
        next(iter(joined))
