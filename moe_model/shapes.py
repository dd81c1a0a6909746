"""Which letter means which tensor dimension? The only legend of the repository.

Tensor names carry logical shape suffixes (`hidden_TD`, `w1_EFD`). A slice or a
shard keeps its letters. Values in brackets are MiniMax-M2's.

    T  tokens in this call, packed over sequences
    D  hidden size (3072)
    H  query heads (48)
    G  key/value heads (8)
    P  head dimension (128)
    E  experts of a layer (256)
    K  experts per token (8)
    F  expert intermediate size (1536)
    V  vocabulary (200064)
    B  sequences in the batch
    S  cached positions
    N  rows in one message to a pool
    M  (row, expert) pairs in one message
"""
