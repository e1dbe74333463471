# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.errors import ConfigError
from segan_monai.export.single_weights import single_weights


@pytest.fixture
def folds(tmp_path):
    for name in ("fold_0", "fold_1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").touch()
    return tmp_path


def test_weights_of_one_network(folds):
    assert single_weights(None, folds / "fold_1") == folds / "fold_1" / "model.pt"
    assert single_weights(folds / "fold_0", "unused") == folds / "fold_0" / "model.pt"
    assert single_weights(folds / "other.pt", "unused") == folds / "other.pt", "loading it says what to do"
    assert single_weights(None, folds / "models") == folds / "models" / "model.pt"
    (folds / "a,b.pt").touch()
    assert single_weights(folds / "a,b.pt", "unused") == folds / "a,b.pt"


@pytest.mark.parametrize("given", [None, "", "fold_0,fold_1", "['fold_0', 'fold_1/model.pt']"])
def test_an_ensemble_where_one_network_is_expected(folds, given):
    weights = folds if given == "" else given
    message = (
        r"fold_0.*fold_1.*: 2 files of weights, an ensemble; expected one, because an exported file has one network\. "
        r"Export each member, such as --weights \S*fold_0(/model.pt)?, and"
    )
    with pytest.raises(ConfigError, match=message):
        single_weights(weights, folds)
