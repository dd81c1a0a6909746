"""What is sent instead of rows that are not finite?

A pool refuses a whole call for one NaN, and a call holds the rows of many sequences. Such a row
is sent as zeros and comes back as NaN: only its own sequence fails, as with experts in process.
"""

from torch import Tensor

Rows = tuple[Tensor, Tensor, Tensor]
"""hidden_TD, topk_ids_TK, topk_weights_TK."""


def set_apart(rows: Rows) -> tuple[Rows, Tensor]:
    """(the rows with zeros where a hidden number or a weight is not finite, bool [T]: which).

    The expert ids stay, and with them the plan of the call.
    """
    hidden_TD, topk_ids_TK, topk_weights_TK = rows
    bad_T = ~(hidden_TD.isfinite().all(dim=1) & topk_weights_TK.isfinite().all(dim=1))
    hidden_TD = hidden_TD.masked_fill(bad_T[:, None], 0)
    return (hidden_TD, topk_ids_TK, topk_weights_TK.masked_fill(bad_T[:, None], 0)), bad_T
