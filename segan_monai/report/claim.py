# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Items of CLAIM 2024 to which the fields of a model card belong.

CLAIM is the Checklist for Artificial Intelligence in Medical Imaging, 2024 update (Tejani et al. 2024, Radiology:
Artificial Intelligence 6(4):e240300, doi:10.1148/ryai.240300). Its 44 items are numbered as in the publishers'
checklist (github.com/RSNA/CLAIM, docs/checklist.md).
"""

from __future__ import annotations

ITEMS: dict[str, dict[str, tuple[int, ...]]] = {
    "Model": {"category of AI": (1,), "intended use and clinical role": (3, 41)},
    "Study": {
        "scientific and clinical background": (3,),
        "objectives and hypotheses": (4,),
        "prospective or retrospective": (5,),
        "goal": (6,),
    },
    "Data": {
        "sources": (7,),
        "simulated": (7,),
        "inclusion and exclusion criteria": (8,),
        "preprocessing": (9,),
        "selection of data subsets": (10,),
        "de-identification": (11,),
        "missing data": (12,),
        "acquisition: scanners and protocols": (13,),
        "demographic and clinical characteristics": (36,),
    },
    "Reference standard": {
        "definition and rationale": (14, 15),
        "annotators and their qualification": (16,),
        "annotation tools": (17,),
        "variability within and between annotators": (18,),
    },
    "Partitions": {
        "cases": (35,),
        "sample size and its reason": (21,),
        "assignment": (19,),
        "level at which partitions are disjoint": (20,),
    },
    "Network": {
        "architecture": (22,),
        "settings": (22,),
        "output": (22,),
        "software": (23,),
        "initial weights": (24,),
    },
    "Training": {
        "hyperparameters": (25,),
        "command": (25,),
        "selection of the final model": (26,),
        "ensemble": (27,),
    },
    "Evaluation": {
        "cases": (32,),
        "subset": (32,),
        "metrics": (28,),
        "uncertainty and significance": (29, 37),
        "robustness": (30,),
        "explainability": (31,),
        "validation on external data": (33,),
        "failures per region": (39,),
    },
    "Discussion": {"limitations and known biases": (40,), "implications for practice": (41,)},
    "Other information": {"registration and protocol": (34, 42), "code and weights": (43,), "funding": (44,)},
}
"""Numbers by section and field of the card; fields of the model zoo alone are absent."""
OF_RESULTS = (37, 38)
"""Items of the table of results."""
OF_ARTICLES = (2,)
"""Items that a card has no field for: the abstract."""


def items_of(section: str, field: str) -> str:
    """Return the numbers of a field as text, such as ``34, 42``; empty for a field of the model zoo alone."""
    return ", ".join(map(str, ITEMS[section].get(field, ())))
