"""For all tests: one compute thread each, so that suites on few cores do not fight themselves."""

import torch

torch.set_num_threads(1)
