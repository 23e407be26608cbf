"""One publication, from a source that is opened and judged to the version that is served."""

from __future__ import annotations

import stat

from efsstate import events
from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.format import layout
from efsstate.modelstore import activation, catalog, completeness, publishing, reader
from efsstate.modelstore import manifest as manifests
from efsstate.mount import root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from efsstate.modelstore.publishing import Meta, Progress, Source
    from efsstate.mount.files import Mount


def publish(
    name: str,
    open_source: Callable[[Mount, str], Source],
    *,
    version: str | None,
    is_activated: bool,
    meta: Meta,
    progress: Progress | None,
    root: str | os.PathLike[str] | None,
) -> str:
    """Publish what `open_source` returns for a mount and a model's folder; return the id."""
    model = layout.model_folder(name)
    if meta:
        manifests.encode_meta(meta)
    if version is not None:
        manifests.require_version(version)
    mount = roots.resolve(root, durable=True)
    try:
        source = open_source(mount, model)
        meta = {**(meta or {}), **source.meta}
        completeness.require_complete(
            source.path, source.sizes, lambda file: reader.whole(source.open(file))
        )
        manifest = publishing.run(mount, model, source, version, meta, progress)
    except CorruptEntryError:
        mode = catalog.kind(mount, model)
        if not mode or stat.S_ISDIR(mode):
            raise
        raise EfsStateError(
            f"{mount.path_of(model)}: can't be published: an unmanaged file or link has this name;"
            " move it away, or publish under another name"
        ) from None
    if is_activated:
        activation.activate(mount, name, model, manifest)
    else:
        activation.stamp(mount, model, manifest.version)  # it may be old: its grace begins again
        activation.wait_for(mount, name, model, manifest.version)
    if events.listeners:
        events.emit("model", "publish", name, version=manifest.version, bytes=manifest.size)
    return manifest.version
