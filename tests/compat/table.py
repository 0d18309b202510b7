"""The compatibility table: what becomes of every upstream public name, checked by test_table.py and rendered as docs/compat.md.

python -m tests.compat.table docs/compat.md
"""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from fastdiff.files import write_atomically

Status = Literal["same", "superset", "handed over", "missing"]
ECOSYSTEMS = ("edm", "score_sde", "diffusers", "k_diffusion")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Entry:
    """One upstream name.

    Attributes:
        name: as upstream's users write it, with its module: "sampling.get_pc_sampler", "DDPMScheduler.step"; after a space, when.
        status: "same": upstream's parameters, in its order, with its defaults; "superset": those and more; "handed over": upstream's own
            code runs; "missing": not here.
        reason: why it is not the same, or what is more.
        parameters: upstream's, as `signature` writes them; None for what is not called (a constant, a module).
        proof: the test that shows the numbers, "tests/compat/test_edm.py::test_golden"; "" only where it is missing.
    """

    name: str
    status: Status
    reason: str = ""
    parameters: str | None = None
    proof: str = ""


def signature(function: object) -> str:
    """Parameters as text, names, kinds and defaults, without annotations: "(net, latents, num_steps=18, *, rho=7)"."""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(function).parameters.values()]  # type: ignore[arg-type]
    return str(inspect.Signature(parameters))


def entries(ecosystem: str) -> list[Entry]:
    """The rows of tests/compat/entries/<ecosystem>.py."""
    return importlib.import_module(f"tests.compat.entries.{ecosystem}").ENTRIES


def module(ecosystem: str) -> ModuleType:
    """fastdiff.compat.<ecosystem>."""
    return importlib.import_module(f"fastdiff.compat.{ecosystem}")


def resolve(root: ModuleType, name: str) -> object:
    """The object behind a dotted name, submodules included.

    Raises:
        AttributeError: it is not there.
    """
    found: object = root
    for part in name.split(" ")[0].split("."):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            try:
                found = importlib.import_module(f"{found.__name__}.{part}")
                continue
            except ModuleNotFoundError:
                pass
        found = getattr(found, part)
    return found


def render() -> str:
    """docs/compat.md."""
    head = (ROOT / "tests" / "compat" / "compat_head.md").read_text(encoding="utf-8").rstrip()
    lines = [head, ""]
    for ecosystem in ECOSYSTEMS:
        rows = entries(ecosystem)
        count = {status: sum(row.status == status for row in rows) for status in ("same", "superset", "handed over", "missing")}
        lines += [f"## fastdiff.compat.{ecosystem}", "", ", ".join(f"{n} {status}" for status, n in count.items() if n) + ".", ""]
        lines += ["| upstream name | status | why | shown by |", "| --- | --- | --- | --- |"]
        for row in rows:
            proof = f"`{row.proof.removeprefix('tests/compat/')}`" if row.proof else ""
            lines.append(f"| `{row.name}` | {row.status} | {row.reason} | {proof} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    write_atomically(sys.argv[1], lambda file: file.write(render().encode()))
