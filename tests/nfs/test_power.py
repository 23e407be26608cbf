"""Power cuts and frozen machines: acknowledged writes are there in the next boot.

And a client can lose power alone.
"""

import pytest

pytestmark = pytest.mark.nfs

WRITER = """
import os, sys
for i in range(10**6):
    fd = os.open("{folder}/new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.write(fd, b"%d" % i)
    os.close(fd)
    try:
        os.rename("{folder}/new", "{folder}/last")
    except FileNotFoundError:
        # The server did it just before the cut; the client asked again, for it had no answer.
        if open("{folder}/last").read() != str(i):
            raise
    print(i)
"""
READ = "print(open('{folder}/last').read())"


def lines(process, n):
    return [process.readline() for _ in range(n)]


def test_acknowledged_renames_survive_a_power_cut_of_the_server(boot):
    lab = boot()
    writer = lab.python(WRITER.format(folder="/mnt/a"))
    acknowledged = int([*lines(writer, 30), *writer.lines()][-1])
    lab.kill()
    lab.boot()
    assert int(lab.python(READ.format(folder="/mnt/b")).output()) >= acknowledged


@pytest.mark.slow
def test_a_disk_that_does_not_mount_is_repaired(boot):
    """Its superblock was torn by the cut: what was acknowledged is there all the same."""
    lab = boot()
    acknowledged = int(lines(lab.python(WRITER.format(folder="/mnt/a")), 5)[-1])
    lab.kill()
    with open(lab.disk, "r+b") as file:
        file.seek(1024 + 512)  # the second sector of the superblock
        file.write(bytes(512))
    lab.boot()
    assert int(lab.python(READ.format(folder="/mnt/b")).output()) >= acknowledged


def test_a_client_outlives_the_server_and_can_lose_power_alone(boot):
    lab = boot(alone=["c"])
    client = lab.client("c")
    writer = client.python(WRITER.format(folder="/mnt/c"))
    lines(writer, 5)
    lab.kill()
    lab.boot()
    after = lines(writer, 50)
    assert after[-1], writer.stderr
    acknowledged = int(after[-1])  # it goes on, after the grace
    client.kill()
    assert int(lab.python(READ.format(folder="/mnt/b")).output()) >= acknowledged


HOLD = """
import errno, fcntl, os, sys
fd = os.open("/mnt/c/lock", os.O_CREAT | os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held")
sys.stdin.readline()
try:
    os.write(fd, b"late")
    os.fsync(fd)
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("written")
"""
TAKE = """
import fcntl, os, time
fd = os.open("/mnt/a/lock", os.O_CREAT | os.O_RDWR)
start = time.monotonic()
while True:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        time.sleep(0.2)
print(time.monotonic() - start)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["freeze", "cut", "kill"])
def test_a_machine_gone_for_longer_than_the_lease_loses_its_lock(boot, fault):
    lab = boot(disk=False, alone=["c"])
    client = lab.client("c")
    holder = client.python(HOLD)
    assert holder.readline() == "held\n"
    if fault == "cut":
        lab.cut("c")
    else:
        getattr(client, fault)()
    taker = lab.python(TAKE)
    assert float(taker.readline()) > 5
    if fault == "kill":
        return
    if fault == "cut":
        lab.heal("c")
    else:
        client.thaw()
    holder.write("go on\n")
    assert holder.readline(120) == "EIO\n"
