"""A module of somebody's own in the place of one of ours, as adapters of large models put it there."""

from torch import nn


class Adapted(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, z):
        return self.inner(z) + 1
