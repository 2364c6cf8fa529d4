"""Who takes part in a piece of work: one process, several with all the weights each (DDP), or several with a share each (FSDP).

`command` sets up whatever process a command runs in; torchrun starts several. A team is what
`Training` asks wherever the others matter.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(minutes=30)  # for the others, in one exchange: one of them may be writing a large state
BEAT, GRACE = 2.0, 4.0  # seconds between two looks at the others; seconds that this process gets to end by itself
ENDED = "so this one ends too; the same command goes on from what was saved last"


# ---- the processes of a command -------------------------------------------------------


@contextmanager
def command(patience: timedelta = PATIENCE) -> Iterator[None]:
    """Run a command's work: torchrun's processes set up and watched, and what goes wrong said in one sentence.

    Each process gets a graphics card of its own where there are any (CIL_CPU: none). When the
    launcher or another process ends, this one ends within seconds. patience: how long this one
    waits for the others in one exchange.
    """
    watch = None
    try:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            cuda = torch.cuda.is_available() and not os.environ.get("CIL_CPU")
            if cuda:
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
            dist.init_process_group("nccl" if cuda else "gloo", timeout=patience)
            watch = TeamWatch.begin()
        yield
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from None
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise SystemExit(
            f"there is not enough memory ({str(error).splitlines()[0] if str(error) else 'main memory'}): take smaller clips or a smaller batch, or close other programs"
        ) from None
    except KeyboardInterrupt:
        raise SystemExit("\nstopped; the same command goes on from there") from None
    except RuntimeError:
        if watch is not None and watch.someone_ends():  # what a broken exchange raises is no news then
            watch.end()
        raise
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
        if watch is not None:
            watch.stop()


def disband() -> None:
    """The processes have met for the last time: from here on each may end when it likes."""
    if dist.is_available() and dist.is_initialized():
        TeamWatch.running.stop() if TeamWatch.running else None
        dist.barrier()
        dist.destroy_process_group()


def alive(pid: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be told."""
    try:
        import psutil  # which ComfyUI brings
    except ImportError:
        return not os.path.isdir("/proc/self") or os.path.exists(f"/proc/{pid}")
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TeamWatch(threading.Thread):
    """Looks at the launcher and at the other processes of this machine, and ends this one when one of them is gone."""

    running = None

    def __init__(self, peers: dict[int, int], launcher: int | None):
        """peers: {rank: process id} of this machine's others; launcher: torchrun's, None where there is none."""
        super().__init__(daemon=True)
        self.peers, self.launcher, self.stopped, self.telling = peers, launcher, threading.Event(), threading.Lock()

    @classmethod
    def begin(cls) -> "TeamWatch":
        """Watch over the processes that have just met."""
        mine = (_machine(), os.getpid())
        everyone: list = dist.get_world_size() * [None]
        dist.all_gather_object(everyone, mine)
        peers = {rank: other[1] for rank, other in enumerate(everyone) if other[0] == mine[0] and other != mine}
        cls.running = cls(peers, os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None)
        cls.running.start()
        return cls.running

    def gone(self) -> str:
        """Who is gone, in words; empty while all are there."""
        if self.launcher is not None and (os.getppid() != self.launcher or not alive(self.launcher)):
            return "the launcher of this process has ended"
        return next((f"process {rank} of this work has ended" for rank, pid in self.peers.items() if not alive(pid)), "")

    def run(self) -> None:
        while not self.stopped.wait(BEAT):
            if self.gone():
                if not self.stopped.wait(GRACE):  # the main thread may be about to say more
                    self.end()
                return

    def someone_ends(self) -> bool:
        """Whether one of the others is gone, now or in a moment."""
        waiting = threading.Event()
        for _ in range(int(GRACE / 0.1)):
            if self.gone():
                return True
            waiting.wait(0.1)
        return False

    def end(self) -> None:
        """End this process at once, whatever it waits for, with one sentence."""
        with self.telling:
            with suppress(OSError, ValueError):  # nobody may be listening any more
                print(f"{self.gone()}, {ENDED}", file=sys.stderr, flush=True)
            os._exit(1)

    def stop(self) -> None:
        self.stopped.set()
        TeamWatch.running = None


def _machine():
    """Where a process id means the same process."""
    namespace = "/proc/self/ns/pid"
    return socket.gethostname(), os.readlink(namespace) if os.path.islink(namespace) else ""


# ---- teams ----------------------------------------------------------------------------


class Alone:
    """One process."""

    rank, world = 0, 1
    saves_alone = True  # False: saving needs all processes at the same step

    def wrap_loss(self, loss: Callable, parameters: Iterable[torch.nn.Parameter]) -> Callable:
        """The loss of one pass with the gradients' mean over the processes in its backward pass."""
        return loss

    def accumulating(self, loss: Callable, more: bool) -> AbstractContextManager:
        """A context for a pass, of what `wrap_loss` gave: the processes exchange gradients unless `more` passes of this update follow."""
        return nullcontext()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """A scalar tensor's mean over the processes."""
        return value

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """All of a tensor of which this process may hold a share."""
        return tensor

    def shard(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This process's share of a whole tensor, cut as `like` is."""
        return tensor

    def share_held(self, tensors: Iterable[torch.Tensor]) -> float:
        """How much of these tensors this process holds: 1 = all."""
        return 1.0

    def should_save(self, now: bool) -> bool:
        """Whether this process takes part in saving, where by its own clock it is time to."""
        return now


class Replicas(Alone):
    """Processes that each hold all the weights."""

    def __init__(self):
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def wrap_loss(self, loss: Callable, parameters: Iterable[torch.nn.Parameter]) -> Callable:
        return DistributedDataParallel(_Replica(parameters, loss))

    def accumulating(self, loss: Any, more: bool) -> AbstractContextManager:
        return loss.no_sync() if more else nullcontext()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world

    def should_save(self, now: bool) -> bool:
        return now and self.rank == 0


class Shards(Replicas):
    """Processes that each hold a share of every weight, and of what AdamW and the average keep of it."""

    saves_alone = False

    def split(self, network: torch.nn.Module, blocks: Iterable[torch.nn.Module], device: torch.device | str) -> None:
        """Cut a network's weights in place; each of `blocks` is put together only while it computes."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.device = torch.device(device)
        mesh = init_device_mesh(self.device.type, (self.world,))
        for module in [*blocks, network]:
            fully_shard(module, mesh=mesh)

    def wrap_loss(self, loss: Callable, parameters: Iterable[torch.nn.Parameter]) -> Callable:
        return loss  # fully_shard's own backward pass averages

    def accumulating(self, loss: Callable, more: bool) -> AbstractContextManager:
        return nullcontext()  # gradients that wait are whole ones, and would not fit

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    def shard(self, tensor: torch.Tensor, like: Any) -> torch.Tensor:
        if not hasattr(like, "full_tensor"):
            return tensor
        return dist.tensor.distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)

    def share_held(self, tensors: Iterable[Any]) -> float:
        return sum(t.to_local().numel() for t in tensors) / sum(t.numel() for t in tensors)

    def should_save(self, now: bool) -> bool:
        flag = torch.tensor(float(now), device=self.device)
        dist.broadcast(flag, src=0)
        return bool(flag)


class _Replica(torch.nn.Module):
    """A loss and the parameters that it depends on, as DDP wants them."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], loss: Callable):
        super().__init__()
        self.held, self.loss = torch.nn.ParameterList(parameters), loss

    def forward(self, step, part):
        return self.loss(step, part)


def team(shards: bool = False) -> Alone:
    """The team of the processes that torchrun has started, or of this one alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return Alone()
    return Shards() if shards else Replicas()
