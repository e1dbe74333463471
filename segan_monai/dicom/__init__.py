# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""DICOM studies in, DICOM results out: series as volumes, label maps as DICOM-SEG and RTSTRUCT.

Every module imports pydicom and highdicom where they are used, because only this package needs them (extra ``dicom``).
"""
