"""State on a shared file system, safe and fast, for AWS Lambda functions."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.cache.async_cache import AsyncCache as AsyncCache
    from efsstate.cache.decorator import Cache as Cache
    from efsstate.cache.decorator import cached as cached
    from efsstate.cache.function_types import AsyncCachedFunction as AsyncCachedFunction
    from efsstate.cache.function_types import CachedFunction as CachedFunction
    from efsstate.cache.info import CacheInfo as CacheInfo
    from efsstate.cache.keys import register as register
    from efsstate.checkpoints.checkpoint import Checkpoint as Checkpoint
    from efsstate.checkpoints.checkpoint import checkpoint as checkpoint
    from efsstate.cleanup.sweep import SweepReport as SweepReport
    from efsstate.cleanup.sweep import sweep as sweep
    from efsstate.datasets.dataset import Dataset as Dataset
    from efsstate.datasets.dataset import dataset as dataset
    from efsstate.datasets.part import Part as Part
    from efsstate.datasets.snapshot import Snapshot as Snapshot
    from efsstate.deadline import current as current
    from efsstate.deadline import invocation as invocation
    from efsstate.deploy.diagnosis.doctor import doctor as doctor
    from efsstate.errors import ClaimedError as ClaimedError
    from efsstate.errors import ClaimLost as ClaimLost
    from efsstate.errors import CorruptEntryError as CorruptEntryError
    from efsstate.errors import DeadlineExceeded as DeadlineExceeded
    from efsstate.errors import EfsStateError as EfsStateError
    from efsstate.errors import EncodeError as EncodeError
    from efsstate.errors import ModelNotFound as ModelNotFound
    from efsstate.errors import NotClaimed as NotClaimed
    from efsstate.errors import PartRemoved as PartRemoved
    from efsstate.errors import RootError as RootError
    from efsstate.errors import ShardsError as ShardsError
    from efsstate.errors import SignatureError as SignatureError
    from efsstate.errors import SnapshotNotFound as SnapshotNotFound
    from efsstate.errors import SourceChanged as SourceChanged
    from efsstate.errors import UnknownFormatError as UnknownFormatError
    from efsstate.events import on_event as on_event
    from efsstate.modelstore.loader import Model as Model
    from efsstate.modelstore.loader import model as model
    from efsstate.modelstore.versions import activate as activate
    from efsstate.modelstore.versions import models as models
    from efsstate.modelstore.versions import prune as prune
    from efsstate.modelstore.versions import publish as publish
    from efsstate.modelstore.versions import remove as remove
    from efsstate.modelstore.versions import rollback as rollback
    from efsstate.modelstore.versions import verify as verify
    from efsstate.modelstore.versions import versions as versions

__version__ = "0.1.0"

# Each public name, and the module that defines it. A module is imported when one of its names is
# first used, so a handler's cold start imports only the modules that it needs. No module or folder
# here may have the name of a public function: importing it would replace the function.
_LAZY = {
    "AsyncCache": "cache.async_cache",
    "AsyncCachedFunction": "cache.function_types",
    "Cache": "cache.decorator",
    "CacheInfo": "cache.info",
    "CachedFunction": "cache.function_types",
    "Checkpoint": "checkpoints.checkpoint",
    "Dataset": "datasets.dataset",
    "ClaimLost": "errors",
    "ClaimedError": "errors",
    "CorruptEntryError": "errors",
    "DeadlineExceeded": "errors",
    "EfsStateError": "errors",
    "EncodeError": "errors",
    "Model": "modelstore.loader",
    "ModelNotFound": "errors",
    "NotClaimed": "errors",
    "Part": "datasets.part",
    "PartRemoved": "errors",
    "RootError": "errors",
    "ShardsError": "errors",
    "SignatureError": "errors",
    "SourceChanged": "errors",
    "Snapshot": "datasets.snapshot",
    "SnapshotNotFound": "errors",
    "SweepReport": "cleanup.sweep",
    "UnknownFormatError": "errors",
    "activate": "modelstore.versions",
    "cached": "cache.decorator",
    "checkpoint": "checkpoints.checkpoint",
    "current": "deadline",
    "dataset": "datasets.dataset",
    "doctor": "deploy.diagnosis.doctor",
    "invocation": "deadline",
    "model": "modelstore.loader",
    "models": "modelstore.versions",
    "on_event": "events",
    "prune": "modelstore.versions",
    "publish": "modelstore.versions",
    "register": "cache.keys",
    "remove": "modelstore.versions",
    "rollback": "modelstore.versions",
    "sweep": "cleanup.sweep",
    "verify": "modelstore.versions",
    "versions": "modelstore.versions",
}

__all__ = [  # noqa: RUF022 - written out, because type checkers read it
    "__version__",
    "AsyncCache",
    "AsyncCachedFunction",
    "Cache",
    "CacheInfo",
    "CachedFunction",
    "Checkpoint",
    "ClaimLost",
    "ClaimedError",
    "CorruptEntryError",
    "Dataset",
    "DeadlineExceeded",
    "EfsStateError",
    "EncodeError",
    "Model",
    "ModelNotFound",
    "NotClaimed",
    "Part",
    "PartRemoved",
    "RootError",
    "ShardsError",
    "SignatureError",
    "Snapshot",
    "SnapshotNotFound",
    "SourceChanged",
    "SweepReport",
    "UnknownFormatError",
    "activate",
    "cached",
    "checkpoint",
    "current",
    "dataset",
    "doctor",
    "invocation",
    "model",
    "models",
    "on_event",
    "prune",
    "publish",
    "register",
    "remove",
    "rollback",
    "sweep",
    "verify",
    "versions",
]

if not TYPE_CHECKING:

    def __getattr__(name):  # noqa: ANN001, ANN202 - type checkers see the imports above
        """Return the public name, imported from its module (PEP 562)."""
        where = _LAZY.get(name)
        if where is None:
            raise AttributeError(f"module 'efsstate' has no attribute {name!r}")
        module = __import__(f"efsstate.{where}", fromlist=[name])
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__():  # noqa: ANN202
        return sorted({*globals(), *_LAZY})
