"""The rows of a snapshot as a data set of PyTorch whose state can be saved and loaded."""

import pyarrow.parquet
from torch.utils.data import IterableDataset, get_worker_info


class Rows(IterableDataset):
    """`state_dict` says how many parts and how many rows of the next one were given."""

    def __init__(self, snapshot):
        self.snapshot, self.parts, self.rows = snapshot, 0, 0

    def __iter__(self):
        info = get_worker_info()
        shard = (info.id, info.num_workers) if info else (0, 1)
        for part in self.snapshot.order(seed=5, after=self.parts, shard=shard):
            for n in pyarrow.parquet.read_table(part.path)["n"].to_pylist()[self.rows :]:
                self.rows += 1
                yield n
            self.parts, self.rows = self.parts + 1, 0

    def state_dict(self):
        return {"parts": self.parts, "rows": self.rows}

    def load_state_dict(self, state):
        self.parts, self.rows = state["parts"], state["rows"]
