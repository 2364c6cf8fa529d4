"""Everything that a stranger could do, tried: `python run.py do tests.campaign [--cases N --seed S]`. Results in bench/results/campaign.md.

A real host runs with the pack in it and is given what no graph should hold. Each case ends in
one of six ways, decided by this program alone:

clear      what must be refused was, in words; or what is allowed ran, and every number that came out is one.
           In words: by the host before the run, naming the input; or by the node, and then the exception
           was raised by a `raise` of the pack's own code (its innermost frame), is a ValueError, OSError or
           ImportError, has at most 900 characters, none of a library's own phrases (`verdict.RAW`),
           and names an input of the node, its kind of thing or its file.
unclear    it failed in any other way.
silent     what must be refused ran without a word, or a NaN or an infinity came out; for files and processes also:
           a result that differs from that of an undisturbed run, or a file that stays and belongs to nothing.
hang       no end within 60 s (--seconds).
crash      the host's process ended.
executed   a file's code ran (it would have made a file), or a text's script (it would have set window.ran).

Must be refused: a setting outside the limits and choices that object_info names, a thing of
another kind or with numbers that are none (tests/campaign/things.py says which kinds may take
which), a required input left out, a damaged file, a path outside. The others may run or be
refused in words. One case changes one to three inputs of one node; what it makes is sampled
with for one step where it is a model, a guider or a noise.

Parts: settings (hypothesis over object_info), files (damaged and hostile ones through every loader), paths (outside, through every input that takes
a path or a choice), disk (full at random sizes), writers (two at once), queue (interrupts at random moments), kills (bench.kills), page (script in every
text and choice, and in every text of moments and data sets, in real Chromium).
"""

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.append(str(HERE.parent))  # what the tests share

PARTS = ("settings", "files", "paths", "disk", "writers", "queue", "kills", "page")
ALONE = ("disk", "writers", "kills")  # in processes of their own


def start(base):
    """A host for the campaign."""
    run = sys.modules["cil_run"]
    base = Path(base)
    for folder in ("input", "custom_nodes", "models/cil_moments", "models/loras", "models/checkpoints", "models/cil_flow"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "things.py", base / "custom_nodes" / "campaign_things.py")
    return run.server(base)


def _module(name):
    return importlib.import_module(f"{__name__}.{name}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="tests.campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1500, help="of the part settings; the other parts have theirs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="until a case hangs: more where the machine is shared with other work")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--out", type=Path, help="write the table and the list here, for example bench/results/campaign.md; parts that stand there and were not run now stay"
    )
    o = parser.parse_args(arguments)
    from interface import ours

    from . import files, inputs, paths, verdict

    verdict.SECONDS = o.seconds
    table, began = verdict.Table(), time.monotonic()

    def keep(part, count=""):
        """Tell how far it is, and write it down: a campaign that is stopped has its rows so far."""
        print(part, dict(table.rows.get(part, {})), count, flush=True)
        if o.out:
            words = f"`python run.py do tests.campaign --cases {o.cases} --seed {o.seed}`, in pieces (`--parts`), on a busy core."
            done = [p for p in o.parts if p in table.rows]
            verdict.keep(o.out, table, done, words, [p for p in o.parts if p not in done])

    tell = lambda n: keep("settings", f"{n} of {o.cases}") if n % 50 == 0 else None
    with tempfile.TemporaryDirectory() as place:
        for part in [p for p in o.parts if p in ALONE]:
            getattr(_module("processes"), part)(table, Path(place) / part, o.seed)
            keep(part)
        if set(o.parts) - set(ALONE):
            with start(Path(place) / "base") as host:
                info = host.get("/object_info")
                names = sorted(ours(info))
                work = {
                    "settings": lambda: inputs.run(host, info, names, table, o.cases, o.seed, tell),
                    "files": lambda: files.run(host, info, table, o.seed),
                    "paths": lambda: paths.run(host, info, table, o.seed),
                    "queue": lambda: _module("processes").queue(host, info, table, o.seed),
                    "page": lambda: _module("page").run(host, info, names, table, o.seed),
                }
                for part in [p for p in o.parts if p in work]:
                    work[part]()
                    keep(part)
    print(f"{time.monotonic() - began:.0f} s")
    print(table.text())
    for part, kind, case, words in table.listed:
        print(f"- {part}, {kind}: {case}: {words}")
    if any(kind != "unclear" for _, kind, _, _ in table.listed):
        sys.exit("something was silent, hung, crashed or executed")
