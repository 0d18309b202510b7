"""docs/ops.md from the op table: python -m fastdiff.ops.document [path]"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import torch

from . import OPS

_HEADER = """# The ops

Generated from the op table by `make docs`; do not edit. Every op is `torch.ops.fastdiff.<name>`, works under
`torch.compile(fullgraph=True)`, `torch.export`, `torch.func` and (where it has gradients) double backward, and has an `.out`
overload that writes into given tensors. Each backend is tested against the float64 reference over the samples listed here.
"""


def page() -> str:
    """The page as Markdown."""
    lines = [_HEADER]
    for op in OPS.values():
        lines += [f"## {op.name}", "", f"    {op.equation}", "", f"Source: {op.source}.", ""]
        lines += ["```", f"{op.name}({op.args}) -> {op.returns}", f"{op.name}.out({op.out_args}) -> ()", "```", ""]
        lines += [f"Gradients: {'to every floating input, twice differentiable' if op.backward else 'none (noise)'}.", ""]
        lines += ["| dtype of the state | rtol | atol | why |", "| --- | --- | --- | --- |"]
        for dtype, tolerance in op.tolerance.items():
            lines.append(f"| {str(dtype)[6:]} | {tolerance.rtol:.1e} | {tolerance.atol:.1e} | {tolerance.reason} |")
        samples = [sample.label for sample in op.samples("meta", torch.float32)]
        lines += ["", f"Samples: {', '.join(samples)}.", ""]
        lines += [f"Reference: `{Path(inspect.getsourcefile(op.reference) or '').name}` in `fastdiff/ops/`.", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page())
    else:
        print(page(), end="")
