"""Scripts of a public source, imported from its checked-out tree and left again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from zeroflaw_engines.errors import EvaluationError


@contextmanager
def imported(
    tree: Path, script: str, stand_ins: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[ModuleType]:
    """Import a script of a public source.

    Its neighbours have names such as `utils` and `test`, so that they are forgotten afterwards.

    Args:
        tree: Directory of the checked-out source.
        script: Path of the script in it.
        stand_ins: Attributes of modules that the script imports and does not need, by name.

    Raises:
        EvaluationError: The script is not there.
    """
    path = tree / script
    if not path.is_file():
        raise EvaluationError(
            f"{tree} has no {script}", "give a checked-out tree of the method's public source"
        )
    before, search = dict(sys.modules), list(sys.path)
    sys.path.insert(0, str(tree))
    # Modules of the standard library and of this environment that the source has its own of.
    own = {one.stem if one.suffix == ".py" else one.name for one in tree.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
    for name, attributes in (stand_ins or {}).items():
        module = ModuleType(name)
        vars(module).update(attributes)
        sys.modules[name] = module
    spec = spec_from_file_location(f"public_source_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise EvaluationError(f"{path} is no Python module", "give the source as it is published")
    try:
        found = module_from_spec(spec)
        spec.loader.exec_module(found)
        yield found
    finally:
        sys.path[:] = search
        for name in set(sys.modules) - set(before):
            origin = getattr(sys.modules[name], "__file__", None)
            if name in (stand_ins or {}) or (origin and Path(origin).is_relative_to(tree)):
                del sys.modules[name]
        sys.modules.update(before)
