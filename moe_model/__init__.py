"""The model: config, checkpoint, maths, tokenizer, chat format, reference. No gRPC.

Importing this package, `config` or `chat` never imports torch, so that the
gateway and the router stay small.

Reading weights from 4 KiB pages costs a decode step a third of its time on Linux
(`bench/LOG.md`), so torch is asked here, before its first allocation, to put what is
larger than a huge page into huge pages. Set THP_MEM_ALLOC_ENABLE yourself to choose otherwise.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
