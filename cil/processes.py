"""Who takes part in a training: one process, several with all the weights each (DDP), or several with a share each (FSDP).

A team is what `Training` asks wherever the others matter. torchrun starts the processes.
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


class Alone:
    """One process."""

    rank, world = 0, 1
    saves_alone = True  # False: saving needs all processes at the same step

    def spread(self, loss, parameters):
        """The loss of one pass with the gradients' mean over the processes in its backward pass."""
        return loss

    def mean(self, value):
        """A scalar tensor's mean over the processes."""
        return value

    def whole(self, tensor):
        """All of a tensor of which this process may hold a share."""
        return tensor

    def share(self, tensor, like):
        """This process's share of a whole tensor, cut as `like` is."""
        return tensor

    def held(self, tensors):
        """How much of these tensors this process holds: 1 = all."""
        return 1.0

    def due(self, now):
        """Whether this process takes part in saving, where by its own clock it is time to."""
        return now


class Replicas(Alone):
    """Processes that each hold all the weights."""

    def __init__(self):
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def spread(self, loss, parameters):
        return DistributedDataParallel(_Replica(parameters, loss), find_unused_parameters=True)

    def mean(self, value):
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world

    def due(self, now):
        return now and self.rank == 0


class Shards(Replicas):
    """Processes that each hold a share of every weight, and of what AdamW and the average keep of it."""

    saves_alone = False

    def split(self, network, blocks, device):
        """Cut a network's weights in place; each of `blocks` is put together only while it computes."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.device = torch.device(device)
        mesh = init_device_mesh(self.device.type, (self.world,))
        for module in [*blocks, network]:
            fully_shard(module, mesh=mesh)

    def spread(self, loss, parameters):
        return loss  # fully_shard's own backward pass averages

    def whole(self, tensor):
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    def share(self, tensor, like):
        if not hasattr(like, "full_tensor"):
            return tensor
        return dist.tensor.distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)

    def held(self, tensors):
        return sum(t.to_local().numel() for t in tensors) / sum(t.numel() for t in tensors)

    def due(self, now):
        flag = torch.tensor(float(now), device=self.device)
        dist.broadcast(flag, src=0)
        return bool(flag)


class _Replica(torch.nn.Module):
    """A loss and the parameters that it depends on, as DDP wants them."""

    def __init__(self, parameters, loss):
        super().__init__()
        self.held, self.loss = torch.nn.ParameterList(parameters), loss

    def forward(self, step, part):
        return self.loss(step, part)


def team(shards=False):
    """The team of the processes that torchrun has started, or of this one alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return Alone()
    return Shards() if shards else Replicas()
