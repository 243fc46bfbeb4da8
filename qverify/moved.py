"""Former paths of modules and names, which go on working, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

MOVED = {
    "architectures": "training.architectures",
    "arguments": "verification.arguments",
    "attack": "verification.attack",
    "augmentation": "training.augmentation",
    "batch": "runs.verify",
    "batch_directory": "runs.batch",
    "batchnorm": "family.batchnorm",
    "bounds.model": "bounds.tensors",
    "bounds.rounding": "rounding",
    "brief": "text.brief",
    "cascade": "verification.cascade",
    "cluster": "workers.cluster",
    "csv_rows": "runs.csv_rows",
    "data_files": "datasets.formats",
    "data_sources": "datasets.sources",
    "discrepancy": "analysis.discrepancies",
    "dispatch": "workers.dispatch",
    "escapes": "text.escapes",
    "exact_step": "verification.exact_step",
    "file_names": "files.names",
    "hints": "verification.hints",
    "kernels": "family.kernels",
    "layer_radius": "analysis.layers",
    "live_family": "training.live_family",
    "members": "family.members",
    "model_files": "training.model_files",
    "modules": "training.live_network",
    "onnx_check": "onnx.check",
    "onnx_export": "onnx.writer",
    "onnx_file": "onnx.file",
    "onnx_functions": "onnx.functions",
    "onnx_graph": "onnx.graph",
    "onnx_hints": "onnx.ways_out",
    "onnx_images": "onnx.image_operators",
    "onnx_io": "onnx.reader",
    "onnx_operators": "onnx.operators",
    "onnx_order": "onnx.order",
    "onnx_session": "onnx.session",
    "onnx_views": "onnx.views",
    "paths": "files.paths",
    "places": "files.places",
    "plan": "runs.plan",
    "plot_layout": "report.plot_layout",
    "plots": "report.plots",
    "quantisation": "family.family",
    "radius": "analysis.factors",
    "radius_arrays": "family.radius_arrays",
    "radius_directory": "runs.radius",
    "records": "runs.folder",
    "refusals": "onnx.refusals",
    "replay": "report.replay",
    "report_curves": "report.curves",
    "report_layers": "report.layers",
    "report_page": "report.page",
    "report_pictures": "report.pictures",
    "report_rows": "report.page_rows",
    "report_runs": "runs.reading",
    "report_sources": "report.sources",
    "report_table": "report.table",
    "report_text": "report.text",
    "schemes": "family.schemes",
    "steps": "family.steps",
    "stored": "runs.stored",
    "strict_json": "files.strict_json",
    "sweep": "analysis.sweeps",
    "sweep_directory": "runs.sweep",
    "toml_files": "files.toml",
    "undecided": "verification.undecided",
    "units": "datasets.units",
    "unstable": "analysis.unstable",
    "user_files": "files.user",
    "verdict": "verification.verdict",
    "work": "workers.tasks",
    "worker": "workers.worker",
}
"""Old path: new path, both below `qverify`."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under its old path: the very module, not a second one."""

    def __init__(self) -> None:
        self._specs: dict[str, Any] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if not name.startswith("qverify.") or name.removeprefix("qverify.") not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new = f"qverify.{MOVED[spec.name.removeprefix('qverify.')]}"
        warnings.warn(f"{spec.name} is {new} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Python has put the old path into the module as its own; put it right."""
        if module.__spec__ is not None:
            module.__spec__ = self._specs.pop(module.__spec__.name)


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module from which names have moved; `names`: old name -> `qverify.package.module:name`."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        warnings.warn(f"{module}.{name} is {home}.{new} now", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), new)

    return find


def install() -> None:
    """Find old paths from now on, where nothing else is found."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
