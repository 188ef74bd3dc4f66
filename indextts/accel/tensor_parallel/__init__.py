"""``--ds-tp-size N``: the blocks of the language model, split over N processes by DeepSpeed (Shoeybi et al. 2019).

Each process has some heads of every attention and some hidden units of every MLP, and the keys and values of its heads.
What the processes have computed of a layer is summed by an all-reduce, so all of them know every layer's output.

The program is process 0. It starts the others (`processes`) and is the only one that knows of texts, codes and beams:
the others hold their share of the blocks, and run them whenever process 0 does, on what it sends them (`worker`).
"""

from indextts.accel.tensor_parallel.backend import TensorParallelBackend

__all__ = ["TensorParallelBackend"]
