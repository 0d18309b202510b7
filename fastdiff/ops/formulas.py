"""The arithmetic of the ops, once for Python: torch runs it as the reference, and Triton compiles the same lines.

Only +, * and `is not None`, so that both can. (csrc/formulas.h and csrc/cpu/blocks.h hold the C++ side.)
"""

from __future__ import annotations


def perturbed(mean_coef, x0, std, z):
    """x_t = m*x0 + s*z."""
    return mean_coef * x0 + std * z


def denoised(a, x, b, F, b_u, F_u):
    """D before the clip: a*x + b*F + b_u*F_u."""
    D = a * x + b * F
    if F_u is not None:
        D = D + b_u * F_u
    return D


def advanced(c_x, x, c_D, D, c_g, G, c_h1, H1, c_h2, H2, c_h3, H3, c_n, z):
    """y = c_x*x + c_D*D + c_g*G + sum_k c_hk*H_k + c_n*z."""
    y = c_x * x + c_D * D
    if G is not None:
        y = y + c_g * G
    if H1 is not None:
        y = y + c_h1 * H1
    if H2 is not None:
        y = y + c_h2 * H2
    if H3 is not None:
        y = y + c_h3 * H3
    if z is not None:
        y = y + c_n * z
    return y


def blended(y, mask, target):
    """y outside the mask, the target inside it: (1 - m)*y + m*target."""
    return y + mask * (target - y)


def residual(b, F, p, x0, q, z):
    """What a loss squares: b*F + p*x0 + q*z."""
    return b * F + p * x0 + q * z
