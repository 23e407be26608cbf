"""Train a classifier over several invocations: each continues after the last saved page."""

import hashlib
import os
import tempfile

import numpy as np
from prepare import arrays
from sklearn.linear_model import SGDClassifier

from efsstate import checkpoint, dataset, publish

CLASSES = np.arange(10)
EPOCHS = 3


def handler(event, context):
    """Train on a snapshot, and publish the weights; call it again while `finished` is false."""
    snapshot = dataset("digits/clean").freeze(event["snapshot"])
    with checkpoint(f"training/{event['snapshot']}", context=context) as job:
        state = job.state or {"epoch": 0, "page": "", "weights": None, "seen": ""}
        for epoch in range(state["epoch"], EPOCHS):
            after = state["page"] if epoch == state["epoch"] else ""
            for part, data in snapshot.read(snapshot.order(seed=1, epoch=epoch, after=after or 0)):
                state = learn(state, epoch, part, *arrays(data))
                job.save(state)
        version = publish_weights(state["weights"])
        job.finish({"version": version, "pages": len(snapshot)})
    return {"finished": job.finished, "seen": state["seen"], "version": version}


def learn(state, epoch, part, images, labels):
    """Return the state after one page: the weights, the position, and a digest of the order."""
    model = restored(state["weights"])
    model.partial_fit(images, labels, classes=CLASSES)
    weights = {"coef": model.coef_, "intercept": model.intercept_, "steps": model.t_}
    seen = hashlib.sha256(f"{state['seen']} {epoch} {part.name}".encode()).hexdigest()
    return {"epoch": epoch, "page": part.name, "weights": weights, "seen": seen}


def restored(weights):
    """Return the classifier with the weights of a saved state."""
    model = SGDClassifier(loss="log_loss", alpha=1e-4, shuffle=False, random_state=0)
    if weights is not None:
        model.classes_, model.t_ = CLASSES, float(weights["steps"])
        model.coef_, model.intercept_ = weights["coef"], weights["intercept"]
    return model


def publish_weights(weights):
    """Publish the weights as a version of the model, for `serve`."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.npz")
        np.savez(path, coef=weights["coef"], intercept=weights["intercept"])
        return publish("digits", path)
