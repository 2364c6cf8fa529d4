"""The host's real page in headless Chromium, for the help pages' pictures and for the tests."""

import shutil
from contextlib import contextmanager

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def chromium():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        made = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield made
        made.close()


def opened(browser, url, width=2800, height=1500):
    """A new tab with the host's page, once it is ready; its console's errors gather in `problems`."""
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.problems = []
    tab.on("console", lambda m: tab.problems.append(f"{m.text} {m.location.get('url', '')}".strip()) if m.type == "error" else None)
    tab.on("pageerror", lambda e: tab.problems.append(str(e)))
    # to a new user the page shows its templates, on top of everything else
    tab.request.post(f"{url}/settings/Comfy.TutorialCompleted", data="true", headers={"Content-Type": "application/json"})
    tab.goto(url, timeout=120_000)
    tab.wait_for_function("window.app && window.app.graph && window.app.extensionManager", timeout=120_000)
    tab.wait_for_timeout(3000)
    return tab
