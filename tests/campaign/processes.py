"""Commands that are killed, run into a full disk, or meet another writer; a host whose queue is interrupted."""

import io
import multiprocessing
import os
import random
import signal
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from cil_pack.bench import kills as bench

from .graphs import prompt_of, watched
from .verdict import RAW, judge, outcome


def made_ready(place):
    """-> (the commands of bench.kills, what each makes undisturbed, the size of its largest file)."""
    torch.set_num_threads(1)
    os.environ["CIL_SAVE_EVERY"] = "0"
    place.mkdir()
    source, clips = bench.videos(place / "videos", 3), place / "clips" / "set"
    todo = bench.commands(source, clips)
    todo[1].finish(clips.parent)
    right, sizes = {}, {}
    for command in todo:
        folder = place / f"{command.name}-whole"
        command.finish(folder)
        right[command.name] = command.made(folder)
        sizes[command.name] = max(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return todo, right, sizes


def _child(pipe, command, folder, size):
    if size is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    words, code = "", 0
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            command.arguments(folder)()
    except SystemExit as ending:
        words, code = str(ending), 1
    except BaseException as error:
        words, code = f"Traceback: {error!r}", 2
    pipe.send((code, words))
    os._exit(code)


def begun(command, folder, size=None):
    """The command in a process of its own -> (process, pipe)."""
    folder.mkdir(exist_ok=True)
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=_child, args=(there, command, folder, size))
    process.start()
    there.close()
    return process, here


def ended(process, pipe, seconds=60):
    """-> (exit code or None for a hang, the words)."""
    if pipe.poll(seconds):
        try:
            code, words = pipe.recv()
        except EOFError:
            code, words = -signal.SIGKILL, "no word"
        process.join()
        return code, words
    process.kill()
    process.join()
    return None, "no end"


def same(command, folder, right):
    made = command.made(folder)
    return made.keys() == right.keys() and all(torch.equal(made[k], right[k]) for k in right)


def spoken(words):
    return bool(words) and len(words) <= 600 and not RAW.search(words) and "\n" not in words.strip()


def disk(table, place, seed):
    """Full at random sizes, twice into the same folder, then with room: the result is the undisturbed one."""
    todo, right, sizes = made_ready(place)
    chance = random.Random(seed)
    for command in todo:
        for n in range(8):
            folder, size = place / f"{command.name}{n}", chance.randrange(1, sizes[command.name])
            code, words = ended(*begun(command, folder, size))
            left = bench.strange(folder)
            verdict = "hang" if code is None else "clear" if code == 1 and spoken(words) and "could not be written" in words and not left else "unclear"
            table.add("disk", verdict, f"{command.name}, at most {size} bytes", f"{words} {left}")
            command.finish(folder)
            whole = same(command, folder, right[command.name]) and not bench.strange(folder)
            table.add("disk", "clear" if whole else "silent", f"{command.name} afterwards", "another result, or a file that stays")
            if command.name != "train":  # a whole result there, run again into no room: it stays
                code, words = ended(*begun(command, folder, 1))
                table.add("disk", "clear" if same(command, folder, right[command.name]) else "silent", f"{command.name} again without room", words)


def writers(table, place, seed):
    """Two at once, one of them up to a run's length later."""
    todo, right, _ = made_ready(place)
    chance = random.Random(seed)
    for command in todo:
        for n in range(6):
            folder = place / f"{command.name}{n}"
            first = begun(command, folder)
            time.sleep(chance.uniform(0, 1.0))
            second = begun(command, folder)
            results = [ended(*first), ended(*second)]
            refused = [words for code, words in results if code]
            verdict = "clear"
            if any(code is None for code, _ in results):
                verdict = "hang"
            elif len(refused) > 1 or any(not spoken(words) or "is being written by" not in words for words in refused):
                verdict = "unclear"
            elif not same(command, folder, right[command.name]) or bench.strange(folder):
                verdict = "silent"
            table.add("writers", verdict, f"two of {command.name}", "; ".join(refused) or "another result, or a file that stays")


def kills(table, place, seed):
    """bench.kills, fewer of them."""
    todo, right, _ = made_ready(place)
    chance = random.Random(seed)
    for command in todo:
        (place / command.name).mkdir()
        row = bench.campaign(command, 10, place / command.name, chance)
        for n in range(row["kills"]):
            table.add("kills", "clear", f"{command.name} {n}")
        if row["same"] < row["results"] or row["left"]:
            table.add("kills", "silent", command.name, str(row))


def queue(host, info, table, seed, count=20):
    """Long work queued and interrupted at random moments; then the host does what it did before."""
    chance = random.Random(seed)
    usual = watched(info, prompt_of(info, "AnalyticInitLatent", {}, cheap=True))
    works = [
        ("CILStartSweep", {"seeds": 64, "steps": 50, "starts": "1:0.5:20"}),
        ("CILTimeNoiseTrain", {"steps": 10000, "precision": "fp32"}),
        ("LeakageProbe", {"levels": 16, "draws": 8}),
        ("CILFreeInit", {"runs": 20}),
        ("CILMotionScore", {}),
    ]
    for n in range(count):
        name, changed = works[n % len(works)]
        changed = changed | ({"seed": n} if "seed" in info[name]["input"]["required"] else {})
        prompt = prompt_of(info, name, changed, cheap=True)
        if name == "CILMotionScore":
            prompt["s"]["inputs"] |= {"frames": 64, "seed": n}
        host.get("/prompt", {"prompt": prompt})
        time.sleep(chance.uniform(0, 3))
        host.request("/interrupt", {})
        until = time.monotonic() + 30
        while time.monotonic() < until and host.process.poll() is None and (lambda q: q["queue_running"] or q["queue_pending"])(host.get("/queue")):
            time.sleep(0.1)
        late = time.monotonic() >= until
        verdict = "crash" if host.process.poll() is not None else "hang" if late else "clear"
        table.add("queue", verdict, f"{name} interrupted", "still there 30 s after the interrupt")
        if late:
            host.request("/interrupt", {})
    verdict, told = judge(*outcome(host, usual), False, [])
    left = [p.name for part in ("output", "models", "input") for p in (Path(host.base) / part).rglob("*.lock*")]
    table.add("queue", "silent" if left else verdict, "the usual graph afterwards", f"{told} {left}")
