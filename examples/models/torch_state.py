"""Load with torch.load, weights only, mapped from a local copy that all processes share."""

import torch

from efsstate import model


@model("my-network")
def network(files):
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    state = torch.load(
        files.stage(), weights_only=True, mmap=True
    )  # never without weights_only: a pickle runs code
    net.load_state_dict(
        state, assign=True
    )  # assign: the mapped tensors themselves, not a copy of them
    return net.eval()
