"""Pictures of every page of the console, for the documentation: wide and narrow, light and dark.

    python tests/browser/pictures.py http://127.0.0.1:8600 TOKEN build/pictures [--versions 2 4] [--task 4]

The service must be running, over a state with a version that waits (docs/console.md says how). Needs Chromium. The few
that the documentation shows lie in docs/pictures/console.
"""

import argparse
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

COLOURS = 64
"""Of a picture's palette: a quarter of the bytes, and nobody sees it."""
SIZES, SCHEMES = (1280, 360), ("light", "dark")


def pages(versions: tuple[str, str], task: str) -> dict[str, str]:
    """Name of a picture -> address."""
    earlier, newest = versions
    return {
        "overview": "/", "tasks": "/tasks", "task": f"/tasks/{task}", "version": f"/versions/{newest}",
        "flips": f"/versions/{earlier}/flips", "versions": "/versions", "compare": f"/compare?before=1&after={newest}",
        "in-use": "/in-use", "try": "/try", "numbers": "/numbers", "policy": "/policy", "log": "/log",
        "log-entry": "/log/5", "people": "/people",
    }  # fmt: skip


def taken(browser: Browser, address: str, token: str, wanted: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Every picture as PNG, by file name."""
    for scheme in SCHEMES:
        for width in SIZES:
            context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page = context.new_page()
            page.goto(f"{address}/login/token")
            yield f"sign-in-{width}-{scheme}", page.screenshot(full_page=True)
            page.fill("input[name=token]", token)
            page.click("button.main")
            for name, path in wanted.items():
                page.goto(address + path)
                page.wait_for_timeout(800)  # parts that the page asks for itself
                yield f"{name}-{width}-{scheme}", page.screenshot(full_page=True)
            context.close()


def main() -> None:
    """Take them and write them, with a palette."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address")
    parser.add_argument("token", help="of somebody who may see everything")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--versions", nargs=2, default=("2", "4"), metavar=("EARLIER", "WAITING"))
    parser.add_argument("--task", default="4")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, png in taken(browser, told.address, told.token, pages(tuple(told.versions), told.task)):
            picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS)
            picture.save(told.folder / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
