# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.errors import ConfigError
from segan_monai.parts import Part, parse_part


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 9])
def test_each_item_is_in_one_part(parts):
    items = list(range(7))
    shares = [parse_part(f"{number}/{parts}").of(items) for number in range(1, parts + 1)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_part_has_a_folder_for_its_records(tmp_path):
    assert Part(2, 4).folder(tmp_path) == tmp_path / "parts" / "2_of_4"
    assert parse_part(None) is None


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "$SLURM_ARRAY_TASK_ID/4"])
def test_other_texts_are_refused(text):
    with pytest.raises(ConfigError, match=r"cannot parse the part '.*'; expected its number, from 1, and the number"):
        parse_part(text)
