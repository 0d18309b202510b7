"""Other programs' names, signatures and semantics on fastdiff's plans and kernels: change one import.

    fastdiff.compat.edm           NVlabs/edm, EDM-ES and DG
    fastdiff.compat.score_sde     yang-song/score_sde_pytorch
    fastdiff.compat.diffusers     Hugging Face diffusers' schedulers
    fastdiff.compat.k_diffusion   crowsonkb/k-diffusion

The adapters translate to plans and ops and hold no mathematics of their own. docs/compat.md says of every upstream name whether it is
the same here, more, handed over, or missing.
"""
