"""Which update does each tensor get? Muon for the matrices, AdamW for everything else.

Muon (Jordan et al., 2024): the momentum of a matrix is orthogonalised by a quintic
Newton-Schulz iteration before it is applied; stacked matrices are handled as one batch.
"""

import torch
from torch import Tensor

from demo_model.network import MATRICES, Weights

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
STEPS = 5
MOMENTUM = 0.95
MATRIX_RATE = 0.02
MATRIX_DECAY = 0.02
RATES = {"embed": 4e-3, "head": 2e-3, "gate": 1.5e-3}
NORM_RATE = 3e-3


def orthogonalised(gradient: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices to a batch [..., O, I], in bfloat16 on CUDA."""
    x = gradient.flatten(0, -3)
    x = x.bfloat16() if x.is_cuda else x
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    if tall:
        x = x.mT
    return x.reshape(gradient.shape).to(gradient.dtype)


class Optimiser:
    """Holds the momenta of the float32 masters. It does not update `bias`."""

    def __init__(self, masters: Weights) -> None:
        self.masters = masters
        self.momenta = {name: torch.zeros_like(masters[name]) for name in MATRICES}
        groups = [
            {"params": [masters[name]], "lr": rate, "initial": rate}
            for name, rate in (
                (name, RATES.get(name, NORM_RATE))
                for name in masters
                if name not in MATRICES and name != "bias"
            )
        ]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)

    @torch.no_grad()
    def step(self, gradients: Weights, scale: float) -> None:
        """One update; `scale` in [0, 1] multiplies every learning rate."""
        for name in MATRICES:
            gradient = gradients[name].float()
            momentum = self.momenta[name]
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = orthogonalised(gradient.lerp(momentum, MOMENTUM))
            master = self.masters[name]
            rows, columns = master.shape[-2:]
            rate = MATRIX_RATE * scale
            master.mul_(1 - rate * MATRIX_DECAY)
            master.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)
        for group in self.adam.param_groups:
            group["lr"] = group["initial"] * scale
        for name, master in self.masters.items():
            if name not in MATRICES and name != "bias":
                master.grad = gradients[name].float()
        self.adam.step()

    def state(self) -> dict[str, object]:
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def restore(self, state: dict[str, dict]) -> None:
        for name, value in state["momenta"].items():
            self.momenta[name].copy_(value)
        self.adam.load_state_dict(state["adam"])
