"""Chromium, with what a person does on the page."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.harness.gateway import Gateway

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1200,900",
)  # fmt: skip


# The values that are on more than one line, and whether something is wider than the screen.
BROKEN = """
const wraps = (each) => {
  const range = document.createRange();
  range.selectNodeContents(each);
  const lines = [...range.getClientRects()].filter((box) => box.width > 1).map((box) => box.bottom);
  return lines.length && Math.max(...lines) - Math.min(...lines) > 6;
};
const values = [...document.querySelectorAll(".state, .number, .disk .muted, #nodes td:first-child, button:not(.plain), .when, h1, h2")];
const broken = values.filter(wraps).map((each) => each.innerText);
return document.documentElement.scrollWidth > innerWidth ? [...broken, "the page"] : broken;
"""  # noqa: E501


class Browser(webdriver.Chrome):
    """Chromium, with what a person does on the page."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.add_experimental_option(
            "prefs", {"download.default_directory": str(self.downloads)}
        )
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        super().__init__(options, webdriver.ChromeService("/usr/bin/chromedriver"))

    def look(self, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Be a screen of this width, in pixels, of a person who likes it light or dark."""
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def text(self, id: str) -> str:
        return self.find_element(By.ID, id).text

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page where SCREENSHOTS says, if it does."""
        if folder := os.environ.get("SCREENSHOTS"):
            metrics = self.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            clip = {
                "x": 0,
                "y": 0,
                "width": metrics["width"],
                "height": metrics["height"],
                "scale": 1,
            }
            shot = self.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
            )
            (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def shoot_all(self, name: str) -> None:
        """The same in light and dark, and on a phone, where it looks whether a value is broken."""
        for scheme in ("light", "dark"):
            self.look(scheme=scheme)
            self.shoot(f"{name}-{scheme}")
        self.look(390, 844)
        assert self.execute_script(BROKEN) == []
        self.shoot(f"{name}-390")
        self.look()

    def complaints(self) -> list[str]:
        """The console's errors and violations of the policy; no refusals of the gateway, no advice
        to use HTTPS.
        """
        messages = [entry["message"] for entry in self.get_log("browser")]  # type: ignore[no-untyped-call]
        return [
            each
            for each in messages
            if not re.search("responded with a status|insecure connection", each)
        ]

    def leave(self) -> None:
        """Goes to an empty page, and forgets what there was to complain of."""
        self.get("about:blank")
        self.complaints()

    def downloaded(self, id: str) -> bytes:
        """What was saved; the browser adds to the name what the type calls for."""
        return next((file.read_bytes() for file in self.downloads.glob(f"{id}*")), b"")


def open_page(browser: Browser, gateway: Gateway) -> None:
    browser.get(f"http://{gateway.address}:3000/")


def row_of(browser: Browser, node: str) -> str:
    """The text of the node's row; empty before the page has drawn it."""
    script = "return [...document.querySelectorAll('#nodes tr')].map((row) => row.innerText)"
    rows: list[str] = browser.execute_script(script)
    return next((row for row in rows if node in row), "")
