"""Run a job by tasks of a Ray cluster: python on_ray.py job:count --input '{"run": …}'.

The cluster is that of RAY_ADDRESS, else a new one on this machine. Ray starts a task again, on
another node if need be, when its process dies.
"""

import json
import os
import sys

import ray
from launcher import arguments, one_part


def main():
    options = arguments(__doc__)
    root = {"env_vars": {"EFSSTATE_ROOT": os.environ["EFSSTATE_ROOT"]}}
    ray.init(log_to_driver=False, runtime_env=root, **options.engine)
    # Each task is a worker until the job is finished; one that dies is run again where it stood.
    worker = ray.remote(max_retries=5)(one_part)
    parts = [worker.remote(options.function, options.job) for _ in range(options.workers)]
    finished = any(ray.get(parts))
    ray.shutdown()
    print(json.dumps({"engine": "ray", "finished": finished}))
    return 0 if finished else 75


if __name__ == "__main__":
    sys.exit(main())
