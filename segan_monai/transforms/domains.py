# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Domain indices, and transforms for the cases of one domain."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import set_rnd
from monai.transforms import MapTransform

from segan_monai.errors import ConfigError, DataError


class DomainIndexd(MapTransform):
    """Replace a domain's name by its index, 0 to K - 1.

    Args:
        keys: keys of the domain name.
        domains: names of the K domains. With a single domain, cases need not name it.

    Raises:
        DataError: on call, if a case has no domain or an unknown one.
    """

    def __init__(self, keys: KeysCollection, domains: Sequence[str]) -> None:
        super().__init__(keys)
        self.domains = list(domains)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the name."""
        case = dict(data)
        for key in self.keys:
            name = case.get(key) if len(self.domains) > 1 else self.domains[0]
            if name not in self.domains:
                raise DataError(
                    f"case {case.get('case', 'without name')} has {key} {name!r}; expected one of "
                    f"{', '.join(self.domains)}. Correct it in the datalist."
                )
            case[key] = self.domains.index(str(name))
        return case


class ForDomaind(MapTransform):
    """Apply a transform deterministically to the cases of one domain, such as a simulated scanner.

    MONAI's random transforms in it are seeded with the case's name. A case therefore looks the same in every epoch, in
    training, evaluation and inference, and on every machine. The transform is not inverted for predictions, so it may
    change intensities only.

    Args:
        keys: images (C, ...) to transform.
        domain: name of the domain.
        transform: dictionary transform.
        seed: seed that is combined with the case's name.
        domain_key: key of the domain name.

    Raises:
        ConfigError: on call, if the transform changes the grid.
    """

    def __init__(
        self, keys: KeysCollection, domain: str, transform: Callable, seed: int = 0, domain_key: str = "domain"
    ) -> None:
        super().__init__(keys)
        self.domain = domain
        self.transform = transform
        self.seed = seed
        self.domain_key = domain_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the images if the case belongs to the domain; return other cases unchanged."""
        case = dict(data)
        if case.get(self.domain_key) != self.domain:
            return case
        set_rnd(self.transform, zlib.crc32(f"{self.seed} {case['case']}".encode()))
        changed = self.transform({key: case[key] for key in self.keys})
        for key in self.keys:
            before, after = case[key], changed[key]
            if before.shape != after.shape:
                raise ConfigError(f"the transform for domain {self.domain} changed the grid of {case['case']}.")
            voxels = after.as_tensor() if isinstance(after, MetaTensor) else after
            if isinstance(before, MetaTensor):
                result = before.clone()
                result.set_array(voxels.to(before.dtype))
                case[key] = result
            else:
                case[key] = voxels
        return case
