"""How many pieces may this pool hold, on which device? Known before anything is loaded."""

from collections.abc import Callable

from expert_svc.config import ExpertConfig
from moe_model.config import ModelConfig
from moe_model.formats import piece_bytes
from moe_model.gpus import Gpu, Gpus, free_bytes, read_gpus
from moe_model.memory_need import (
    MemoryNeed,
    formats_that_fit,
    gib,
    pieces_that_fit,
    pool_need,
    room_on,
)
from moe_model.weights.held_formats import HeldFormats, held_formats
from moe_model.weights.place import choose_place
from rpc.config import max_rows_per_message
from rpc.mesh.pieces import Pieces


class Capacity:
    """The device of a pool, and what fits there."""

    def __init__(
        self,
        config: ExpertConfig,
        model: ModelConfig,
        pieces: Pieces,
        *,
        gpus: Callable[[], Gpus] = read_gpus,
        free: Callable[[str], int] = free_bytes,
    ):
        """Chooses the device. `pieces`: what it has to hold; none where a router decides.

        Raises ValueError with a one-line reason.
        """
        self._config, self._model, self._pieces, self._free = config, model, pieces, free
        self.place = choose_place(config.device, self._formats_on, self._why_too_small, read=gpus)
        self.num_pieces = self._num_pieces()
        """What --memory and the device allow; 0: no limit."""

    def __str__(self) -> str:
        """For the log."""
        experts, device = self.place.formats.experts, self.place.device
        if self._pieces:
            return f"memory on {device}: {self._need(experts, device)}"
        most = f"at most {self.num_pieces:,} pieces" if self.num_pieces else "any number of pieces"
        piece = gib(piece_bytes(self._model, experts, device))
        return f"memory on {device}: {most} of {piece}, which the router chooses"

    def _num_pieces(self) -> int:
        limits = []
        piece = piece_bytes(self._model, self.place.formats.experts, self.place.device)
        budget = self._config.memory_bytes
        if budget is not None:
            wanted = max(1, len(self._pieces) if self._config.layers or self._config.experts else 0)
            limits.append(budget // piece)
            if limits[0] < wanted:
                raise ValueError(
                    f"--memory {self._config.memory} holds {limits[0]} pieces of {piece} bytes;"
                    f" {wanted} are needed"
                )
        if self.place.gpu is not None:
            limits.append(self._that_fit(self.place.gpu, self.place.formats.experts))
        return min(limits, default=0)

    def _need(self, experts: str, device: str) -> MemoryNeed:
        """With its pieces, or with one, and room for any layer, where a router decides."""
        per_layer = [self._pieces.count(layer) for layer in self._pieces.layers]
        return pool_need(
            self._model,
            experts,
            device,
            num_pieces=max(1, len(self._pieces)),
            most_in_a_layer=max(per_layer, default=self._model.num_experts),
            most_rows=max_rows_per_message(self._model.hidden_size, self._model.top_k),
        )

    def _formats_on(self, device: str) -> HeldFormats:
        return held_formats(
            self._config.model,
            self._model,
            dtype=self._config.dtype,
            expert_dtype=self._config.expert_dtype,
            device=device,
        )

    def _why_too_small(self, gpu: Gpu, formats: HeldFormats) -> str:
        def need(experts: str) -> MemoryNeed:
            return self._need(experts, gpu.device)

        room = room_on(gpu, self._config.gpu_memory, self._free)
        hints = formats_that_fit("--expert-dtype", formats.experts, need, room.size)
        fitting = self._that_fit(gpu, formats.experts)
        if fitting:
            layers = fitting // self._model.num_experts
            hints.append(f"{fitting:,} pieces ({layers} whole layers)")
        return room.why_not(need(formats.experts), 0, hints)

    def _that_fit(self, gpu: Gpu, experts: str) -> int:
        """Beside the room in which the largest layer is put together."""
        room = room_on(gpu, self._config.gpu_memory, self._free)
        piece = piece_bytes(self._model, experts, gpu.device)
        return pieces_that_fit(self._need(experts, gpu.device), piece, room.size)
