"""The floors, read from the code: imports, and the only modules that change the disk or lock."""

import ast
import pathlib

import pytest

import efsstate

SOURCE = pathlib.Path(efsstate.__file__).parent

# Each floor imports only from those below it (listed here from the lowest up), and within itself.
FLOORS = [
    ["process", "callables"],
    ["errors", "generic", "notebook", "units", "events", "parallel", "deadline", "format"],
    ["mount.clock", "mount.environment", "mount.free_memory", "mount.large"],
    ["mount.folders", "mount.readdir"],
    ["mount.listing"],
    ["mount.reading"],
    ["mount.files"],
    ["mount.drafts", "mount.root", "mount.lock", "mount.byte_locks", "mount.links"],
    ["eviction"],
    ["cache", "checkpoints", "modelstore", "records"],
    ["datasets"],
    ["cleanup"],
    ["publishing", "deploy", "planning"],
    ["reporting"],
    ["janitor", "ops", "publisher", "workers", "cli", "testing", "metrics", "adapters"],
    ["worker"],
]
FEATURES = [
    "cache",
    "checkpoints",
    "modelstore",
    "records",
]  # neighbours that know nothing of each other
OPERATOR = (
    "cli",
    "deploy",
    "planning",
    "reporting",
    "testing",
    "ops",
    "publisher",
)  # not in the function's path: they may read their own files

CHANGES = {
    "mkdir",
    "makedirs",
    "rename",
    "renames",
    "replace",
    "unlink",
    "remove",
    "rmdir",
    "removedirs",
    "symlink",
    "link",
    "truncate",
    "ftruncate",
    "utime",
    "chmod",
    "fchmod",
    "chown",
    "write",
    "writev",
    "pwrite",
    "pwritev",
    "mkfifo",
    "mknod",
    "open",
    "fsync",
    "posix_fallocate",
    "copy_file_range",
    "sendfile",
}


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
        name = name.removesuffix(".__init__") if name != "__init__" else ""
        yield name, ast.parse(path.read_text())


MODULES = dict(modules())


def floor(module):
    best = (
        max(
            (len(prefix), level)
            for level, floors in enumerate(FLOORS)
            for prefix in floors
            if module == prefix or module.startswith(prefix + ".")
        )
        if any(
            module == prefix or module.startswith(prefix + ".")
            for floors in FLOORS
            for prefix in floors
        )
        else None
    )
    return best and best[1]


def imports(tree):
    """Yield the package's modules that are imported at run time, and not for type checkers only."""
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If)
        and "TYPE_CHECKING" in ast.unparse(branch.test)
        and not ast.unparse(branch.test).startswith("not ")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("efsstate"):
            base = node.module.removeprefix("efsstate").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in MODULES else base, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("efsstate."):
                    yield alias.name.removeprefix("efsstate."), node.lineno


def test_every_module_has_a_floor():
    packages = {"", "mount", "cache", "checkpoints", "modelstore", "cleanup"}
    assert [m for m in MODULES if m not in packages and floor(m) is None] == []


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_no_module_imports_from_a_floor_below_it(module):
    mine = floor(module)
    for other, line in imports(MODULES[module]):
        if other == "":
            assert module.split(".")[0] in (*OPERATOR, "janitor"), (
                f"{module}:{line} imports the root"
            )
            continue
        if mine is None or other == module.split(".")[0]:
            continue
        assert floor(other) is not None and floor(other) <= mine, (
            f"{module}:{line} imports {other} from a floor below"
        )
        kin = {module.split(".")[0], other.split(".")[0]}
        assert not (len(kin) == 2 and kin <= set(FEATURES)), (
            f"{module}:{line}: {kin} know of each other"
        )


def calls(tree, owner):
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == owner
        ):
            yield node.attr, node.lineno


def names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


CORE = [m for m in MODULES if m and m.split(".")[0] not in OPERATOR]


DISK = [
    "mount.files",
    "mount.reading",
    "mount.folders",
    "mount.drafts",
    "mount.readdir",
    "mount.listing",
]
LOCKS = ["mount.lock", "mount.byte_locks"]


@pytest.mark.parametrize("module", [m for m in CORE if m not in DISK])
def test_only_a_few_modules_change_the_disk(module):
    """And only `free_memory` opens other files: the kernel's own text."""
    allowed = {"mount.root": {"makedirs", "chown"}}.get(module, set())
    found = [
        f"{module}:{line}: os.{name}"
        for name, line in calls(MODULES[module], "os")
        if name in CHANGES - allowed
    ]
    found += [
        f"{module}:{line}: {name}()"
        for name, line in names(MODULES[module])
        if name == "open" and module != "mount.free_memory"
    ]
    assert not found


@pytest.mark.parametrize("module", [m for m in CORE if m not in LOCKS])
def test_only_two_modules_lock(module):
    tree = MODULES[module]
    imported = [
        ast.unparse(n)
        for n in ast.walk(tree)
        if isinstance(n, (ast.Import, ast.ImportFrom))
        and any(w in ast.unparse(n) for w in ("fcntl", "filelock"))
    ]
    assert not imported


def test_no_lock_is_entered_by_its_condition():
    """`Condition.__enter__` is Python code, and a signal handler that raises in it keeps the lock.

    The harness of the tests has no alarms.
    """
    trees = {name: tree for name, tree in MODULES.items() if not name.startswith("testing")}
    conditions = {
        ast.unparse(node.targets[0]).rpartition(".")[2]
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and ast.unparse(node.value).startswith("threading.Condition")
    }
    assert len(conditions) > 1
    entered = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if ast.unparse(item.context_expr).rpartition(".")[2] in conditions
    ]
    assert entered == []


@pytest.mark.parametrize("module", [m for m in CORE if m != "mount.environment"])
def test_only_environment_reads_the_environment(module):
    assert not [
        f"{module}:{line}"
        for name, line in calls(MODULES[module], "os")
        if name in ("environ", "getenv", "environb", "putenv")
    ]


@pytest.mark.parametrize("module", DISK)
def test_no_descriptor_of_a_folder_outlives_it(module):
    """`handle(x).fd` as an argument: the handle may go, and its number become another file's."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Attribute) and node.attr == "fd":
            assert not isinstance(node.value, ast.Call), f"{module}:{node.lineno}"
