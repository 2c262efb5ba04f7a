"""Do the tests notice? Each small change of the package's arithmetic must make a test fail.

`make mutation` runs this. Cosmic Ray makes the mutants, one change each; a process that has torch
in memory forks for each of them, loads the mutant in place of the module, and runs the tests of
that module until the first failure. A survivor needs a test, or a reason in survivors.toml: a
survivor without a reason, or a reason without its survivor, is an error. A reason may say that a
mutant is equivalent: it computes the same, if at another speed, so that no test can notice.

Results are kept in runs/mutation.json, so that a second run tries only what changed: the mutants of
a function, a class or a constant that changed, and survivors whose tests did, if no reason says
that they are equivalent. Delete that file to try all again.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.metadata
import itertools
import json
import logging
import os
import re
import resource
import signal
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure  # noqa: F401 - in memory before the forks
import pycocotools.cocoeval  # noqa: F401 - in memory before the forks
import pytest
import torch
import torchvision.models.detection  # noqa: F401 - in memory before the forks
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "retinanet_edu"
CACHE = ROOT / "runs" / "mutation.json"
RECORD = ROOT / "data" / "results" / "mutation.json"
REASONS = Path(__file__).with_name("survivors.toml")

# The tests that run for a module's mutants, the nearest first.
TESTS = {
    "boxes.py": "boxes suppression",
    "coding.py": "coding",
    "anchors.py": "anchors",
    "matching.py": "matching",
    "losses.py": "losses",
    "suppression.py": "suppression",
    "detection.py": "detection",
    "evaluation/voc.py": "evaluation",
    "evaluation/coco.py": "evaluation",
    "evaluation/report.py": "evaluation",
}
# Of Cosmic Ray's operators, those whose mutants compute something else. Left out are a variable in
# place of another, and an operator of another kind (`<<` for `+`): on tensors of floats that is a
# TypeError, which any test notices and which would only flatter the score.
INCLUDED = re.compile(
    r"core/(ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Mul_Add|Div_Mul|Div_FloorDiv|"
    r"FloorDiv_Div|FloorDiv_Mul|Mod_FloorDiv|Mod_Mul|Pow_Mul|BitOr_BitAnd|BitAnd_BitOr)|"
    r"ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|Gt_GtE|Gt_LtE|LtE_Lt|LtE_Gt|"
    r"GtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is|In_NotIn|NotIn_In)|"
    r"ReplaceUnaryOperator_(USub_UAdd|Invert_.*|Delete_.*)|AddNot|Replace(True|False|And|Or|Break|"
    r"Continue).*|ExceptionReplacer|NumberReplacer|RemoveDecorator|ZeroIterationForLoop)"
)
GIB = 2**30


class _Behaviour(ast.NodeTransformer):
    """A module without what does not count.

    That is docstrings, type hints and stubs of overloads, texts of errors, what is passed by place
    or by name (Cosmic Ray takes a bare `*` among the parameters for an operator), and `@cache`.
    """

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults = [*node.defaults, *filter(None, node.kw_defaults)]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if ast.unparse(node.body) == "...":
            return None
        node.returns = None
        node.decorator_list = [d for d in node.decorator_list if ast.unparse(d) != "cache"]
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node


def behaviour(source: str) -> str:
    """What a module does, as text; two modules of one behaviour give the same."""
    return ast.dump(_Behaviour().visit(ast.parse(source)))


class Mutant(NamedTuple):
    """A module with one change, and what the changed statement did before and does after."""

    source: str
    before: str
    after: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module that counts, each once."""
    lines = source.splitlines(keepends=True)
    for statement in ast.parse(source).body:
        first = min(d.lineno for d in (*getattr(statement, "decorator_list", ()), statement)) - 1
        text = "".join(lines[first : statement.end_lineno])
        before = behaviour(text)
        seen = {before}
        for changed in mutate(text):
            try:
                after = behaviour(changed)
                compile(changed, "mutant", "exec")
            except SyntaxError:
                continue  # Python itself refuses it
            if after not in seen:
                seen.add(after)
                whole = "".join([*lines[:first], changed, *lines[statement.end_lineno :]])
                yield Mutant(whole, before, after)


def mutate(text: str) -> Iterator[str]:
    """What Cosmic Ray makes of a statement, one change each."""
    for name in filter(INCLUDED.fullmatch, operator_names()):
        operator = get_operator(name)()
        for occurrence in itertools.count():
            if not (mutant := mutate_code(text, operator, occurrence)):
                break
            yield mutant


def changed_line(source: str, mutant: str) -> tuple[str, str]:
    """The one line that differs, before and after."""
    pairs = zip(source.splitlines(), mutant.splitlines())
    before, after = next((a, b) for a, b in pairs if a != b)
    return " ".join(before.split()), " ".join(after.split())


def run_tests(module: str, source: str, seconds: int) -> None:
    """In a forked process: the tests with a module of this source. Does not return."""
    # Of processor time: on a busy machine a clock on the wall would call any mutant too slow.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (24 * GIB, 24 * GIB))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.dont_write_bytecode = True
    load = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> Any:
        path = str(PACKAGE / module)
        return compile(source, path, "exec") if self.path == path else load(self, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    files = [str(ROOT / "tests" / f"test_{name}.py") for name in TESTS[module].split()]
    flags = ["-x", "-q", "--tb=no", "-W", "ignore", "-p", "no:cacheprovider", "-p", "no:xdist"]
    os._exit(int(pytest.main([*flags, "-p", "no:nbval", *files])))


def outcome(status: int) -> str:
    if os.WIFSIGNALED(status):
        return "timed out" if os.WTERMSIG(status) == signal.SIGXCPU else "killed"
    return "killed" if os.WEXITSTATUS(status) else "survived"


def try_all(jobs: list[tuple[str, str]], seconds: dict[str, int], workers: int) -> Iterator[Any]:
    """Each (module, source) with its outcome, as they end."""
    waiting, running = list(reversed(jobs)), {}
    while waiting or running:
        while waiting and len(running) < workers:
            module, source = waiting.pop()
            if not (child := os.fork()):
                run_tests(module, source, seconds[module])
            running[child] = module, source
        child, status = os.wait()
        yield *running.pop(child), outcome(status)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


def test_digest(module: str) -> str:
    return digest(*((ROOT / "tests" / f"test_{t}.py").read_text() for t in TESTS[module].split()))


def main() -> int:
    """Try the mutants, write the record; 1 where a survivor or a reason stands alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", choices=[*TESTS, []], metavar="module")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    arguments = parser.parse_args()
    modules = arguments.modules or list(TESTS)
    logging.disable()
    torch.set_num_threads(1)
    from retinanet_edu.provenance import provenance

    origin = provenance()
    for name in [name for name in sys.modules if name.startswith("retinanet_edu")]:
        del sys.modules[name]  # a fork loads them anew, one of them mutated
    sources = {module: (PACKAGE / module).read_text() for module in modules}
    cache = json.loads(CACHE.read_text()) if CACHE.is_file() else {}
    CACHE.parent.mkdir(exist_ok=True)
    results = []
    for module, source in sources.items():
        results += try_module(module, source, cache, arguments.workers)
    return report(origin, sources, results, arguments.record)


def allowance(module: str, source: str) -> int:
    """Seconds of processor time that the tests of a mutant may take: five times what they need."""
    before = _children_seconds()
    _, _, result = next(try_all([(module, source)], {module: 600}, 1))
    if result != "survived":
        raise SystemExit(f"{module}: its tests fail as it is: {TESTS[module]}")
    return 10 + round(5 * (_children_seconds() - before))


def read_reasons() -> dict[tuple[str, str, str], tuple[bool, str]]:
    """By module and line before and after: is the mutant equivalent, and why does it survive?"""
    return {
        (entry["module"], entry["before"], after): (entry["equivalent"], entry["why"])
        for entry in tomllib.loads(REASONS.read_text())["survivor"]
        for after in entry["after"]
    }


def equivalents(module: str) -> set[tuple[str, str]]:
    """Lines before and after of the mutants that no test can notice, by their reasons."""
    reasons = read_reasons()
    return {(a, b) for (of, a, b), (yes, _) in reasons.items() if of == module and yes}


def try_module(
    module: str, source: str, cache: dict[str, Any], workers: int
) -> list[tuple[str, str, str]]:
    """(module, mutant, outcome) of each mutant of a module, from the cache where it is known."""
    tests, results, jobs = test_digest(module), [], []
    equivalent, keys = equivalents(module), {}
    for mutant in mutants(source):
        key = keys[mutant.source] = digest(module, mutant.before, mutant.after)
        result, of_tests = cache.get(key, (None, None))
        is_known = of_tests == tests or changed_line(source, mutant.source) in equivalent
        if result and (result != "survived" or is_known):
            results.append((module, mutant.source, result))
        else:
            jobs.append((module, mutant.source))
    print(f"{module}: {len(results)} mutants known, {len(jobs)} to try", flush=True)
    seconds = {module: allowance(module, source)} if jobs else {}
    for count, (_, mutant, result) in enumerate(try_all(jobs, seconds, workers), 1):
        results.append((module, mutant, result))
        cache[keys[mutant]] = result, tests
        if result == "survived":
            print(*changed_line(source, mutant), sep="\n  ", flush=True)
        if count % 20 == 0 or count == len(jobs):
            CACHE.write_text(json.dumps(cache))
    return results


def report(
    origin: dict[str, Any],
    sources: dict[str, str],
    results: list[tuple[str, str, str]],
    write: bool,
) -> int:
    """Write the record and say what stands alone."""
    reasons = read_reasons()
    survivors = [
        (m, *changed_line(sources[m], mutant)) for m, mutant, r in results if r == "survived"
    ]
    counts = {module: Counter(r for m, _, r in results if m == module) for module in sources}
    for key in survivors:
        counts[key[0]]["equivalent"] += reasons.get(key, (False, ""))[0]
    origin["versions"] |= {p: importlib.metadata.version(p) for p in ("cosmic-ray", "pytest")}
    record = {
        "what": "Mutation testing: how many small changes of a module make a test fail. Score: "
        "killed and timed out, as a share of all; and as a share of those that are not equivalent, "
        "which no test can notice. Docstrings, type hints, stubs of overloads, texts of errors, "
        "what is passed by place or by name and @cache are not mutated. A mutant of a statement "
        "that has not changed since an earlier run keeps the result of that run",
        **origin,
        "total": {},
        "modules": {
            module: {"commit": origin["commit"], **row(count)} for module, count in counts.items()
        },
        "survivors": [
            {
                "module": m,
                "before": a,
                "after": b,
                **dict(zip(("equivalent", "why"), reasons.get((m, a, b), (None, None)))),
            }
            for m, a, b in survivors
        ],
    }
    if write:
        keep_others(record)
        RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    for module, count in counts.items():
        print(module, row(count))
    print("total", record["total"] or row(sum(counts.values(), Counter())))
    alone = [key for key in survivors if key not in reasons]
    stale = [key for key in reasons if key[0] in sources and key not in survivors]
    for title, keys in (("survives without a reason", alone), ("reason without survivor", stale)):
        for module, before, after in keys:
            print(f"{title}: {module}\n  - {before}\n  + {after}")
    return int(bool(alone or stale))


NAMES = ("mutants", "killed", "timed out", "survived", "equivalent")


def row(count: Mapping[str, int]) -> dict[str, Any]:
    """Counts and scores of a module, or of several."""
    noticed = count["killed"] + count["timed out"]
    total = noticed + count["survived"]
    return {
        "mutants": total,
        **{name: count[name] for name in NAMES[1:]},
        "score": round(noticed / max(1, total), 4),
        "score without equivalent": round(noticed / max(1, total - count["equivalent"]), 4),
    }


def keep_others(record: dict[str, Any]) -> None:
    """Modules that were not tried now stay as they were recorded, each with its commit."""
    before = (
        json.loads(RECORD.read_text()) if RECORD.is_file() else {"modules": {}, "survivors": []}
    )
    new = set(record["modules"])
    for name, values in before["modules"].items():
        if name not in new:
            record["modules"][name] = {"commit": before["commit"], **values}
    record["survivors"] += [s for s in before["survivors"] if s["module"] not in new]
    rows = record["modules"].values()
    record["total"] = row({name: sum(values[name] for values in rows) for name in NAMES})


if __name__ == "__main__":
    sys.exit(main())
