"""Script in every text and choice of every node, in real Chromium, run from the page itself."""

import time

from cil_pack.workflows import page as page_of

from .graphs import choices_of, inputs_of, prompt_of
from .inputs import PAYLOADS

OPEN = """async ([prompt, title]) => {
    window.ran = 0;
    window.app.graph.clear();
    await window.app.loadApiJson(prompt, "campaign");
    for (const n of window.app.graph._nodes) n.title = title;
    window.app.queuePrompt(0, 1);
}"""
TOUCH = """() => {
    for (const e of document.querySelectorAll(".dom-widget *, .p-dialog *, .p-toast *, [role=dialog] *")) {
        e.dispatchEvent(new MouseEvent("mouseover", {bubbles: true})); e.dispatchEvent(new Event("error"));
    }
    return window.ran;
}"""


def places(info, names):
    """Every text and every choice: (node, input)."""
    return [(name, one) for name in names for one, (spec, _) in inputs_of(info, name).items() if spec[0] == "STRING" or choices_of(spec) is not None]


def tried(tab, host, prompt, payload):
    """Run a graph from the page -> what its script left in window.ran."""
    before = len(host.get("/history"))
    tab.evaluate(OPEN, [prompt, payload])
    until = time.monotonic() + 20
    tab.wait_for_timeout(150)
    while time.monotonic() < until:
        waiting = host.get("/queue")
        if not waiting["queue_running"] and not waiting["queue_pending"] and (len(host.get("/history")) > before or time.monotonic() > until - 18.5):
            break
        tab.wait_for_timeout(50)
    tab.wait_for_timeout(150)
    ran = tab.evaluate(TOUCH)
    tab.wait_for_timeout(50)
    ran = tab.evaluate("() => window.ran") or ran
    tab.keyboard.press("Escape")
    return ran


def run(host, info, names, table, every=1):
    """every: of the cases each n-th alone."""
    if not page_of.chromium():
        raise SystemExit("the part page needs Chromium: install it, or leave the part out with --parts")
    cases = [(name, one, payload) for name, one in places(info, names) for payload in PAYLOADS][::every]
    with page_of.browser() as browser:
        tab = page_of.opened(browser, host.url)
        for name, one, payload in cases:
            ran = tried(tab, host, prompt_of(info, name, {one: payload}, cheap=True), payload)
            table.add("page", "executed" if ran else "clear", f"{name}.{one} {payload}", "script ran in the page")
