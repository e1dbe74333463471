# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: where Chromium and its driver are installed (Debian: chromium, chromium-driver)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from segan_monai.report import write_report

webdriver = pytest.importorskip("selenium.webdriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs chromium and chromedriver"
    ),
]


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1250,2600",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def test_it_opens_scrolls_through_slices_and_sorts(browser, runs):
    browser.get(write_report(runs).as_uri())
    assert browser.title == "tumour segmentation"
    viewers = browser.find_elements("css selector", ".viewer")
    assert [viewer.find_element("tag name", "b").text for viewer in viewers] == ["worst", "median", "best"]
    picture, slider = (viewers[0].find_element("css selector", name) for name in ("img.image", "input[type=range]"))
    assert "slice 2 of 3" in viewers[0].text
    assert browser.execute_script("return arguments[0].naturalWidth", picture) == 900
    browser.execute_script("arguments[0].value = 2; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert "slice 3 of 3" in viewers[0].text
    viewers[0].find_element("css selector", "[data-layer=reference]").click()
    assert not viewers[0].find_element("css selector", "img.reference").is_displayed()

    def column(number: int) -> list[str]:
        return [cell.text for cell in browser.find_elements("css selector", f".cases td:nth-child({number})")]

    header = browser.find_elements("css selector", ".cases th")[2]
    assert header.text == "Dice"
    header.click()
    assert column(1) == ["b", "c", "a", "d"]
    header.click()
    assert column(1) == ["d", "a", "c", "b"]
    browser.find_elements("css selector", ".cases th")[6].click()  # HD95: the infinite one is last
    assert column(1)[-1] == "b"
    assert column(7)[-1] == "∞"
    assert browser.get_log("browser") == []
    if "SEGAN_MONAI_SCREENSHOTS" in os.environ:
        folder = Path(os.environ["SEGAN_MONAI_SCREENSHOTS"])
        folder.mkdir(parents=True, exist_ok=True)
        assert browser.save_screenshot(str(folder / "report.png"))
