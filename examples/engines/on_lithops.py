"""Run a job by Lithops functions: python on_lithops.py job:count --input '{"run": …}'.

Here on Lithops' own executor for this machine. On Lambda its configuration names the access point:
`aws_lambda: {efs: [{access_point: ARN, mount_path: /mnt/efs}]}`.
"""

import json
import sys

from launcher import arguments, one_part
from lithops import FunctionExecutor

CONFIG = {
    "lithops": {"backend": "localhost", "storage": "localhost", "log_level": "ERROR"},
    "localhost": {"runtime": sys.executable},
}


def main():
    options = arguments(__doc__)
    with FunctionExecutor(config={**CONFIG, **options.engine}) as executor:
        parts = [(options.function, options.job)] * options.workers
        finished = any(executor.get_result(executor.map(one_part, parts)))
    print(json.dumps({"engine": "lithops", "finished": finished}))
    return 0 if finished else 75


if __name__ == "__main__":
    sys.exit(main())
