"""NVlabs/edm, EDM-ES and DG: their samplers, generators and commands, on fastdiff's plans and kernels.

    before: from generate import edm_sampler, ablation_sampler, StackedRandomGenerator
    after:  from fastdiff.compat.edm import edm_sampler, ablation_sampler, StackedRandomGenerator

    before: torchrun --standalone --nproc_per_node=2 generate.py --outdir=out --seeds=0-999 --network=net.pkl
    after:  torchrun --standalone --nproc_per_node=2 -m fastdiff.compat.edm.generate --outdir=out --seeds=0-999 --network=net.pkl

`generate`, `fid` and `classifier_lib` are modules here as there; `dg` has edm_sampler with the order of arguments of DG.
"""

from .generators import PhiloxGenerator, StackedRandomGenerator
from .samplers import ablation_sampler, edm_sampler

__all__ = ["PhiloxGenerator", "StackedRandomGenerator", "ablation_sampler", "edm_sampler"]
