# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The OHIF viewer shows a segmentation over its series: scripts/test_ohif.sh.

A real browser, in front of a real server. The screenshot is kept in the folder that ``SEGAN_MONAI_ARTEFACTS`` names.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

if not os.environ.get("SEGAN_MONAI_OHIF"):
    pytest.skip("OHIF: bash scripts/test_ohif.sh", allow_module_level=True)

import requests
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from tests.dicom.ohif import ohif
from tests.dicom.orthanc import needs_orthanc, orthanc
from tests.dicom.studies import SPACING, STUDY, write_series

pytestmark = [pytest.mark.slow, needs_orthanc]
SHAPE, CENTRE, RADIUS = (96, 96, 10), np.array([36, 56]), 18


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--window-size=1400,900",
        "--use-gl=angle",
        "--use-angle=swiftshader",  # WebGL without a graphics card
        "--enable-unsafe-swiftshader",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(240)
    yield driver
    if folder := os.environ.get("SEGAN_MONAI_ARTEFACTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(folder, "ohif.png")))
    driver.quit()


def test_the_segmentation_lies_on_its_series(browser, read, write_seg, tmp_path):
    x, y, _ = np.mgrid[tuple(slice(size) for size in SHAPE)]
    cylinder = (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 <= RADIUS**2  # the same in every slice
    values = np.where(cylinder, 700, 40).astype(np.int16)
    files = write_series(tmp_path / "study", values)
    source = read(tmp_path / "study")
    result = write_seg(source, (source.volume.values > 300).astype(np.uint8), regions={"Cylinder": [1]})

    with orthanc(tmp_path) as pacs, ohif(Path(os.environ["SEGAN_MONAI_OHIF"]), pacs.web) as url:
        for file in (*files, result):
            answer = requests.post(pacs.web.replace("dicom-web", "instances"), file.read_bytes(), timeout=30)
            answer.raise_for_status()
        (series,) = requests.get(f"{pacs.web}/series?Modality=SEG", timeout=30).json()
        segmentation = series["0020000E"]["Value"][0]
        browser.get(f"{url}/viewer?StudyInstanceUIDs={STUDY}&initialSeriesInstanceUID={segmentation}")
        wait = WebDriverWait(browser, 120)
        for text in ("Skip all", "Confirm and hide", "Yes"):  # "Do you want to open this Segmentation?"
            place = (By.XPATH, f"//*[normalize-space(.)='{text}' and not(*)]")
            button = wait.until(presence_of_element_located(place), f"no button {text}")
            browser.execute_script("arguments[0].click()", button)  # whatever lies above it
        wait.until(lambda _: "Do you want to open" not in browser.find_element(By.TAG_NAME, "body").text)
        wait = WebDriverWait(browser, 120, ignored_exceptions=[StaleElementReferenceException])
        found = wait.until(lambda _: coloured(browser, tmp_path), "no segment in the image")[0]

    # the viewer shows the centre of the image at the centre of the canvas, and columns to the right, rows down
    rows, columns = np.nonzero(found)
    per_mm = (np.ptp(columns) + 1) / (2 * RADIUS + 1) / SPACING[0]
    assert (np.ptp(rows) + 1) / (2 * RADIUS + 1) / SPACING[1] == pytest.approx(per_mm, rel=0.03)
    middle = (np.array([columns.min() + columns.max(), rows.min() + rows.max()]) - found.shape[::-1]) / 2 / per_mm
    expected = (CENTRE + 0.5 - np.array(SHAPE[:2]) / 2) * SPACING[:2]
    np.testing.assert_allclose(middle, expected, atol=1)


def coloured(browser, folder):
    """Return where the canvas is yellow, as the segment, if anywhere. The series is grey, and the buttons are blue."""
    canvas = browser.find_element(By.CSS_SELECTOR, "canvas.cornerstone-canvas")
    canvas.screenshot(str(folder / "canvas.png"))
    pixels = np.asarray(Image.open(folder / "canvas.png").convert("RGB")).astype(int)
    found = pixels[..., 0] > pixels[..., 2] + 40
    return [found] if found.any() else None
