"""Run in the guest: a pytest session that runs the items the host names, one at a time.

Their reports come back as lines of JSON.
"""

import json
import os
import sys
import traceback

import pytest


class Inside:
    """The plugin that makes a session the host's.

    Item ids come on `orders`, events go to `events`.
    """

    def __init__(self, orders, events, folders):
        self.orders, self.events, self.folders = orders, events, folders
        self.config = None

    def tell(self, **event):
        self.events.write(json.dumps(event) + "\n")
        self.events.flush()

    def pytest_configure(self, config):
        self.config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        items = {item.nodeid: item for item in session.items}
        self.tell(ready=True)
        for line in self.orders:
            order = json.loads(line)
            if (item := items.get(order["run"])) is None:
                self.tell(lost=order["run"])
                continue
            self.config.hook.pytest_runtest_protocol(item=item, nextitem=items.get(order["next"]))
            self.tell(done=order["run"])
        return True

    def pytest_runtest_logreport(self, report):
        self.tell(
            report=self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        )

    def pytest_collectreport(self, report):
        if report.failed:
            self.tell(broken=report.longreprtext)

    def pytest_internalerror(self, excrepr):
        self.tell(broken=str(excrepr))


def main():
    """Run pytest with `sys.argv[1:]`.

    Standard input has the orders, standard output gets the events and nothing else.
    """
    # On descriptors of our own, for pytest's capture takes 0, 1 and 2.
    orders, events = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    inside = Inside(orders, events, ("/mnt/a", "/mnt/b"))
    try:
        pytest.main(sys.argv[1:], plugins=[inside])
    except BaseException:
        inside.tell(broken=traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
