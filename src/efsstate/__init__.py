"""State on a shared file system, safe and fast, for AWS Lambda functions."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.cache.decorator import Cache, cached
    from efsstate.cache.keys import register
    from efsstate.checkpoints.checkpoint import Checkpoint, checkpoint
    from efsstate.cleanup.sweep import SweepReport, sweep
    from efsstate.deadline import invocation
    from efsstate.deploy.diagnosis.doctor import doctor
    from efsstate.errors import (
        ClaimedError,
        ClaimLost,
        CorruptEntryError,
        EfsStateError,
        EncodeError,
        ModelNotFound,
        RootError,
        ShardsError,
        SignatureError,
        UnknownFormatError,
    )
    from efsstate.events import on_event
    from efsstate.modelstore.loader import Model, model
    from efsstate.modelstore.versions import activate, models, prune, publish, verify, versions

__version__ = "0.1.0"

# No module or folder here has the name of a public function: importing it would put the module in the function's place.
# A public name, and the module that has it: imported when the name is first used, so that a handler pays at its cold
# start for what it uses and nothing else.
_LAZY = {
    "Cache": "cache.decorator",
    "Checkpoint": "checkpoints.checkpoint",
    "ClaimLost": "errors",
    "ClaimedError": "errors",
    "CorruptEntryError": "errors",
    "EfsStateError": "errors",
    "EncodeError": "errors",
    "Model": "modelstore.loader",
    "ModelNotFound": "errors",
    "RootError": "errors",
    "ShardsError": "errors",
    "SignatureError": "errors",
    "SweepReport": "cleanup.sweep",
    "UnknownFormatError": "errors",
    "activate": "modelstore.versions",
    "cached": "cache.decorator",
    "checkpoint": "checkpoints.checkpoint",
    "doctor": "deploy.diagnosis.doctor",
    "invocation": "deadline",
    "model": "modelstore.loader",
    "models": "modelstore.versions",
    "on_event": "events",
    "prune": "modelstore.versions",
    "publish": "modelstore.versions",
    "register": "cache.keys",
    "sweep": "cleanup.sweep",
    "verify": "modelstore.versions",
    "versions": "modelstore.versions",
}

__all__ = [  # noqa: PLE0604 - the table above
    "__version__",
    *sorted(_LAZY),
]

if not TYPE_CHECKING:

    def __getattr__(name):  # noqa: ANN001, ANN202 - hidden from type checkers, which see the imports above
        """The public name, from its module (PEP 562)."""
        where = _LAZY.get(name)
        if where is None:
            raise AttributeError(f"module 'efsstate' has no attribute {name!r}")
        module = __import__(f"efsstate.{where}", fromlist=[name])
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__():  # noqa: ANN202
        return sorted({*globals(), *_LAZY})
