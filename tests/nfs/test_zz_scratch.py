import os, fcntl, pytest
pytestmark = pytest.mark.nfs
def test_lockf(lab):
    fd = os.open(f"{lab.a}/LOCK", os.O_RDWR|os.O_CREAT)
    fdb = os.open(f"{lab.b}/LOCK", os.O_RDWR|os.O_CREAT)
    for i in range(3):
        with lab.count("a") as s:
            fcntl.lockf(fd, fcntl.LOCK_EX|fcntl.LOCK_NB, 1, 12345678901234567)
        print("lock", s.ops, s.total)
        def other():
            f = os.open(f"{lab.b}/LOCK", os.O_RDWR)
            try: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 1, 12345678901234567)
            except OSError as e: return repr(e)
            return "got"
        print(lab.run("b", other))
        def other2():
            f = os.open(f"{lab.b}/LOCK", os.O_RDWR)
            try: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 1, 12345678901234568)
            except OSError as e: return repr(e)
            return "got"
        print(lab.run("b", other2))
        with lab.count("a") as s:
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, 12345678901234567)
        print("unlock", s.ops, s.total)
        print(lab.run("b", other))
    # miss flow
    os.makedirs(f"{lab.a}/d")
    d = os.open(f"{lab.a}/d", os.O_RDONLY|os.O_DIRECTORY)
    def look():
        try: os.close(os.open("x", os.O_RDONLY, dir_fd=d))
        except FileNotFoundError: pass
    look()
    for i in range(3):
        with lab.count("a") as s: look()
        print("look", s.ops)
        with lab.count("a") as s: os.close(os.open(".", os.O_RDONLY|os.O_DIRECTORY, dir_fd=d))
        print("refresh", s.ops)
        with lab.count("a") as s: look()
        print("look2", s.ops)
        with lab.count("a") as s:
            f = os.open("t", os.O_WRONLY|os.O_CREAT|os.O_TRUNC, 0o600, dir_fd=d); os.fstat(f); os.write(f, b"x"*1000); os.close(f); os.rename("t", "y%d" % i, src_dir_fd=d, dst_dir_fd=d)
        print("put", s.ops)
        with lab.count("a") as s: os.fstat(fd)
        print("fstat", s.ops)
    with lab.count("a") as s:
        f = os.open("l.lock", os.O_RDWR|os.O_CREAT, 0o600, dir_fd=d); fcntl.flock(f, fcntl.LOCK_EX|fcntl.LOCK_NB); os.close(f); os.unlink("l.lock", dir_fd=d)
    print("flock file", s.ops)
