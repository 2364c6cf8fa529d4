"""What became of a case, decided without a person: see the package's docstring for the words."""

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field

KINDS = ("clear", "unclear", "silent", "hang", "crash", "executed")
LONGEST = 900  # characters of a message that a person reads
SECONDS = 60  # until a case hangs; --seconds sets another
RAW = re.compile(
    r"Traceback|object has no attribute|unsupported operand|not subscriptable|not iterable|not callable|mat1 and mat2|size mismatch|must match the size|"
    r"codec can't|out of range|invalid literal|not implemented for|Expected all tensors|expected scalar type|positional argument|keyword argument|"
    r"must be real number|cannot be interpreted|NoneType|has no len|recursion depth|Given groups|broadcast|shape mismatch|KeyError|Errno (?!\d+\])"
)
INTENDED = {"ValueError", "OSError", "ImportError", "FileNotFoundError", "cil_pack.Claimed", "Claimed"}
PACK = re.compile(r'File "[^"]*(?:comfyui-cil|/wt/|cil_pack)[^"]*"|File "[^"]*/(?:nodes|cil|demo)/[^"]*\.py"')


@dataclass
class Table:
    """Rows of the results, and what a person must look at."""

    rows: dict = field(default_factory=dict)
    dates: dict = field(default_factory=dict)
    listed: list = field(default_factory=list)

    def add(self, part, verdict, case, words=""):
        self.rows.setdefault(part, Counter())[verdict] += 1
        self.dates[part] = time.strftime("%Y-%m-%d")
        if verdict != "clear":
            self.listed.append((part, verdict, case, words))

    def text(self):
        lines = ["| part | cases | " + " | ".join(KINDS) + " | run on |", "|---" * (len(KINDS) + 3) + "|"]
        total = sum(self.rows.values(), Counter())
        for name, row in [*self.rows.items(), ("all", total)]:
            lines.append(f"| {name} | {sum(row.values())} | " + " | ".join(str(row[kind]) for kind in KINDS) + f" | {self.dates.get(name, '')} |")
        return "\n".join(lines)


def keep(path, table, parts, heading, later=()):
    """Write a table and its list as a page; rows of other parts that stand there already stay, in `table` too.

    later: parts that are still to be run; their old rows stay on the page until then, but not in `table`.
    """
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    listed = [line for line in old if line.startswith("- ") and line[2:].split(",")[0] not in parts]
    page = Table()
    for cells in ([cell.strip() for cell in line.strip("| ").split("|")] for line in old if line.startswith("| ")):
        if cells[0] not in (*parts, "part", "all"):
            row, date = Counter({kind: int(n) for kind, n in zip(KINDS, cells[2:])}), cells[2 + len(KINDS)] if len(cells) > 2 + len(KINDS) else ""
            target = page if cells[0] in later else table
            target.rows[cells[0]], target.dates[cells[0]] = row, date
    page = Table({**table.rows, **page.rows}, {**table.dates, **page.dates})
    listed += [f"- {part}, {kind}: `{case}`: {words}".replace("\n", " ") for part, kind, case, words in table.listed]
    words = "What the words mean, and how each case is decided: `tests/campaign/__init__.py`."
    path.write_text(
        f"# The campaign\n\n{heading} {words}\n\n{page.text()}\n\nNot clear, each of them:\n\n" + ("\n".join(listed) or "none") + "\n", encoding="utf-8"
    )


def outcome(host, prompt):
    """Run a graph -> (entry of the history or None, what is wrong with the host or '')."""
    try:
        return host.run(prompt, seconds=SECONDS), ""
    except (asyncio.TimeoutError, TimeoutError):
        host.request("/interrupt", {})
        until = time.monotonic() + 15
        while time.monotonic() < until and host.process.poll() is None:
            queue = host.get("/queue")
            if not queue["queue_running"] and not queue["queue_pending"]:
                return None, "slow"
            time.sleep(0.2)
        return None, "hang" if host.process.poll() is None else "crash"
    except Exception as error:
        alive = host.process.poll() is None
        return None, f"host: {error!r}" if alive else "crash"


def on_purpose(error):
    """Whether an exception was raised by a `raise` of the pack itself, not somewhere below it."""
    lines = [line for line in error.get("traceback", []) if line.strip()]
    last = lines[-1] if lines else ""
    return bool(PACK.search(last)) and re.search(r"^\s*raise\b", last.split("\n")[1] if "\n" in last else "") is not None


def readable(words, names):
    """Whether a message is one that a person can act on: short, without a library's own words, naming what it is about."""
    said = words.lower()
    named = any(form in said for name in names if name for form in (name.lower(), name.lower().replace("_", " ")))  # existing_lora, existing LoRA
    return bool(words.strip()) and len(words) <= LONGEST and not RAW.search(words) and named


def judge(entry, trouble, bad, names):
    """-> (one of KINDS, the words that were told). bad: whether the case must be refused; names: one of these must stand in a refusal."""
    if entry is None:
        return ({"hang": "hang", "slow": "hang", "crash": "crash"}.get(trouble, "unclear"), trouble)
    status = entry["status"]
    if status["status_str"] == "refused":
        words = json.dumps(status["messages"], ensure_ascii=False)
        return ("clear" if status["messages"].get("node_errors") else "unclear", words[:LONGEST])
    errors = [about for kind, about in status["messages"] if kind == "execution_error"]
    if errors:
        words = errors[0]["exception_message"]
        kind = errors[0]["exception_type"].split(".")[-1]
        clear = kind in INTENDED and on_purpose(errors[0]) and readable(words, names)
        return "clear" if clear else "unclear", f"{errors[0]['node_type']}: {errors[0]['exception_type']}: {words}"[:LONGEST]
    if status["status_str"] != "success":
        return "unclear", json.dumps(status)[:LONGEST]
    strange = [name for out in entry["outputs"].values() for name in out.get("strange", [])]
    if bad or strange:
        return "silent", f"taken without a word{f', numbers that are none in {strange}' if strange else ''}"
    return "clear", ""
