"""docs/compat.md says what is true: every upstream name once, its signature checked, its proof a test that exists."""

from __future__ import annotations

import ast
import inspect

import pytest

from tests.compat.table import ECOSYSTEMS, ROOT, Entry, entries, module, render, resolve, signature

ROWS = [pytest.param(eco, row, id=f"{eco}.{row.name}") for eco in ECOSYSTEMS for row in entries(eco)]


def _parameters(text: str) -> list[inspect.Parameter]:
    """The parameters of a signature as text; defaults as their source."""
    function = ast.parse(f"def f{text}: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    a, found = function.args, []
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    pairs = [(p, d, inspect.Parameter.POSITIONAL_OR_KEYWORD) for p, d in zip(positional, defaults, strict=True)]
    pairs += [(p, d, inspect.Parameter.KEYWORD_ONLY) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    for argument, default, kind in pairs:
        found.append(inspect.Parameter(argument.arg, kind, default=inspect.Parameter.empty if default is None else ast.unparse(default)))
    return found


@pytest.mark.parametrize(("ecosystem", "row"), ROWS)
def test_the_row_is_true(ecosystem: str, row: Entry):
    if row.status == "missing":
        assert row.reason, "a missing name needs a reason"
        with pytest.raises(AttributeError):
            resolve(module(ecosystem), row.name)
        return
    ours = resolve(module(ecosystem), row.name)
    assert row.status == "same" or row.reason, f"{row.status} needs a reason"
    if row.parameters is not None:
        theirs, found = _parameters(row.parameters), _parameters(signature(ours))
        kept = [p for p in found if p.name in {q.name for q in theirs}]
        assert kept == theirs, f"expected the parameters {row.parameters}, got {signature(ours)}"
        if row.status == "same":
            assert len(found) == len(theirs), f"more parameters than upstream: {signature(ours)}"
        else:
            required = [p.name for p in found if p not in kept and p.default is inspect.Parameter.empty]
            assert not required, f"a call of upstream's would miss {required}"


@pytest.mark.parametrize(("ecosystem", "row"), [p for p in ROWS if p.values[1].status != "missing"])
def test_the_proof_is_a_test(ecosystem: str, row: Entry):
    file, _, name = row.proof.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name.startswith("test_"), row.proof
    assert name in names, row.proof


@pytest.mark.parametrize("ecosystem", ECOSYSTEMS)
def test_every_name_stands_once(ecosystem: str):
    names = [row.name for row in entries(ecosystem)]
    assert len(names) == len(set(names))


def test_the_page_is_what_the_tests_say():
    assert (ROOT / "docs" / "compat.md").read_text(encoding="utf-8") == render(), "python -m tests.compat.table docs/compat.md"
