# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
