"""Each safety measure switched off in a copy of the package, and the tests that must go red then.

A mutation is a small change of one file's text. A measure whose tests stay green without it is one that nobody would miss: a
missing test, or a needless measure. `python -m tests.torture.mutation [WORD]` runs those that have the word in their names.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import efsstate
from tests.nfs.lab import missing

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOWEST = 75  # seconds of one mutation's tests: a hang is red too

M, C, K, O, W, T = (
    "tests/mount/",
    "tests/cache/",
    "tests/checkpoints/",
    "tests/modelstore/",
    "tests/cleanup/",
    "tests/torture/",
)
OURS, SHORT = T + "test_measures.py::", T + "test_short.py::"

# what the measure prevents: (file, old, new, tests)
MUTATIONS = {
    "no link is followed to a file": ("mount/files.py", "_READ = os.O_RDONLY | os.O_NOFOLLOW |", "_READ = os.O_RDONLY |", [M + "test_files.py::test_links_are_refused_wherever_they_stand"]),
    "no link is followed to a folder": ("mount/files.py", "_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW |", "_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY |", [M + "test_files.py::test_links_are_refused_wherever_they_stand"]),
    "a FIFO is not waited for (O_NONBLOCK)": ("mount/files.py", "os.O_CLOEXEC | os.O_NONBLOCK  #", "os.O_CLOEXEC  #", [M + "test_files.py::test_what_is_no_file_is_refused_and_does_not_hang"]),
    "only regular files are read (S_ISREG)": ("mount/files.py", "if not stat.S_ISREG(found.st_mode):\n            raise", "if False:\n            raise", [M + "test_files.py::test_what_is_no_file_is_refused_and_does_not_hang"]),
    "a temporary and a rename, not in place": ("mount/files.py", "        made = self._write(folder, temporary, build, flags=_WRITE, durable=durable)\n", "        self._write(folder, name, build, flags=_WRITE, durable=durable)\n        return\n", [M + "test_crash.py", M + "test_files.py::test_readers_during_replacements_see_whole_contents"]),
    "a file is synced before it is named": ("mount/files.py", "        if durable:\n            os.fsync(fd)\n        return found", "        return found", [OURS + "test_what_is_durable_is_synced_before_it_is_named_and_so_is_the_name"]),
    "a name is synced": ("mount/files.py", "            os.fsync(held.fd)\n        except OSError as error:\n            error.filename = self.path_of(folder)", "        except OSError as error:\n            error.filename = self.path_of(folder)", [OURS + "test_what_is_durable_is_synced_before_it_is_named_and_so_is_the_name"]),
    "a failed write takes its temporary away": ("mount/files.py", "            if layout.is_temporary(name):\n                self.remove(folder, name, quiet=True)\n            raise", "            raise", [M + "test_files.py::test_a_failed_write_leaves_the_old_content_and_no_temporary"]),
    "another look at ESTALE": ("mount/files.py", "if error.errno != errno.ESTALE or attempt + 1 >= _TRIES:", "if True:", [OURS + "test_a_file_that_is_stale_for_once_is_looked_at_again"]),
    "a lost reply to a rename is told from a failure": ("mount/files.py", "if not (inode and error.errno in (errno.ENOENT, errno.EEXIST) and self._is(to_folder, to_name, inode)):", "if True:", [OURS + "test_a_rename_that_was_done_though_it_failed_is_done"]),
    "a folder that was removed is made anew": ("mount/files.py", "                if error.errno in _GONE and not attempt:  # the folder was removed while we held it open\n                    self.forget(folder)\n                    continue\n", "", [M + "test_files.py::test_a_folder_removed_under_us_is_made_anew"]),
    "modes whatever the umask": ("mount/files.py", "        if stat.S_IMODE(found.st_mode) & 0o777 != self.file_mode and found.st_uid == os.geteuid():", "        if False:", [M + "test_files.py::test_modes_follow_the_roots_own_whatever_the_umask"]),
    "open folders are bounded": ("mount/files.py", "if len(self._folders) >= _OPEN_FOLDERS:", "if False:", [M + "test_files.py::test_open_folders_are_bounded"]),
    "a short read is gone on with": ("mount/files.py", "    while filled < length:  # a read gives", "    for _ in (1,):  # a read gives", [OURS + "test_a_short_read_is_gone_on_with"]),
    "a short write is gone on with": ("mount/files.py", "    while rest:\n        done = os.writev(fd, rest)", "    for _ in (1,):\n        done = os.writev(fd, rest)", [OURS + "test_a_short_write_is_gone_on_with"]),
    "the server's clock stamps": ("mount/clock.py", "_offset = difference if abs(difference) > 2 else 0.0", "_offset = 0.0", [OURS + "test_a_clients_own_clock_does_not_matter"]),
    "the checksum": ("format/entry.py", "        or checksum != digest(key, place, view[_SEALED:], rest)\n", "", [M + "test_entry.py::test_every_single_bit_flip_is_rejected"]),
    "the checksum is bound to the place": ("format/entry.py", '    h.update(f"\\0{place}".encode())  #', "    #", [M + "test_entry.py::test_an_entry_moved_to_another_place_is_refused"]),
    "the checksum is keyed": ("format/entry.py", "digest_size=_CHECKSUM, key=key)", "digest_size=_CHECKSUM)", [M + "test_entry.py::test_with_a_key_what_is_unsigned_or_signed_by_another_is_refused"]),
    "the length": ("format/entry.py", "        or size != start + length\n", "", [OURS + "test_a_length_that_lies_is_damage_before_anything_is_hashed"]),
    "a newer format is left alone": ("format/entry.py", "        raise UnknownFormatError(path, fmt)\n    if fmt < FORMAT:", '        raise CorruptEntryError(path, "?")\n    if fmt < FORMAT:', [M + "test_entry.py::test_a_newer_format_is_told_apart_from_damage"]),
    "what is huge is judged before it is read": ("mount/files.py", "        if size >= _HUGE and judge is not None:", "        if False:", [SHORT + "test_a_file_of_a_tebibyte_is_refused_before_it_is_read"]),
    "what does not fit in memory is not read": ("mount/store.py", "    memory.demand(size, path,", "    (lambda *_: None)(size, path,", [SHORT + "test_a_file_of_a_tebibyte_is_refused_before_it_is_read"]),
    "who must be certain looks again": ("mount/links.py", "_PAUSES = (0.002, 0.01, None)", "_PAUSES = (None,)", [OURS + "test_who_must_be_certain_finds_what_comes_back_in_a_moment"]),
    "the identity of a lock's file": ("mount/lock.py", "        return os.path.samestat(named, own)", "        return True", [M + "test_lock.py::test_a_removed_lock_file_is_noticed"]),
    "a fork's child gives nothing back": ("mount/lock.py", "                if os.getpid() == self._pid and not self.shared:\n", "                if not self.shared:\n", [M + "test_lock.py::test_a_forked_child_does_not_give_the_parents_lock_back"]),
    "unlock, though a child lives on": ("mount/lock.py", "fcntl.flock(fd, fcntl.LOCK_UN)  #", "pass  #", [K + "test_checkpoint.py::test_leaving_gives_the_lock_back_though_a_forked_child_lives_on"]),
    "a lock's file goes before the lock": ("mount/lock.py", "                    if remove:\n                        self._mount.remove(self.folder, self.name, quiet=True)\n                    import fcntl\n\n", "                    import fcntl\n\n                    fcntl.flock(fd, fcntl.LOCK_UN)\n                    if remove:\n                        self._mount.remove(self.folder, self.name, quiet=True)\n", [OURS + "test_a_locks_file_goes_before_the_lock"]),
    "the look after a save": ("checkpoints/protocol.py", "        if at.top == key[0] and key[0] in at.epochs:\n            return\n", "        return\n", [K + "test_checkpoint.py::test_break_claim_fences_the_holder_and_lets_others_in"]),
    "the base, once decided, counts": ("checkpoints/protocol.py", "            if limit is not None and key >= limit:\n                continue", "            if False:\n                continue", [OURS + "test_beyond_a_damaged_base_a_fenced_holders_save_does_not_count"]),
    "a load decides what is open": ("checkpoints/protocol.py", "                self.settle(at.top, found.generation.key if found.generation else NOTHING)\n            except FileExistsError:\n                pass", "                return found, True\n            except FileExistsError:\n                pass", [K + "test_damage.py::test_a_load_decides_what_a_dead_claimant_left_open"]),
    "a claim refuses acknowledged damage": ("checkpoints/protocol.py", "            if found.lost is not None and not accept_older:\n                raise found.lost\n            if not found.decided:", "            if not found.decided:", [K + "test_damage.py::test_a_load_steps_back_with_a_warning_and_a_claim_refuses"]),
    "a note's checksum": ("mount/links.py", "    if digest != _digest(mount, folder, name, text):\n", "    if False:\n", [K + "test_damage.py::test_an_unsigned_base_cannot_redirect_to_an_older_save"]),
    "a save's name is never used twice": ("checkpoints/checkpoint.py", "        self._number += 1  #", "        self._number += 0  #", [K + "test_checkpoint.py::test_only_keep_saves_stay_and_they_are_the_newest"]),
    "finished stays finished": ("checkpoints/checkpoint.py", '        if self.finished:\n            raise EfsStateError(\n                f"{self._at().path((0, 0))}: it is finished', '        if False:\n            raise EfsStateError(\n                f"{self._at().path((0, 0))}: it is finished', [K + "test_checkpoint.py::test_a_finished_one_stays_finished_with_its_result"]),
    "what is saved is a copy": ("checkpoints/state.py", "        return [part if type(part) is bytes else bytes(part) for part in", "        return [part for part in", [K + "test_checkpoint.py::test_an_array_that_changes_while_it_is_saved_leaves_a_readable_save"]),
    "a shard's mark is signed": ("checkpoints/shards.py", 'if self._mark_name(i) == f"{layout.shard_mark(i)}.{signature}"}', "}", [K + "test_shards.py::test_a_forged_mark_finishes_nothing"]),
    "a clear's generation": ("cache/disk.py", "        if own < self._generation or item.codec != codec_name:", "        if item.codec != codec_name:", [C + "test_mapping.py::test_clear_forgets_everything_here_at_once", C + "test_cached.py::test_invalidate_refresh_and_clear_show_at_once_here_and_from_the_mount_elsewhere"]),
    "a damaged CLEARED clears once more": ("cache/disk.py", "                found = self._write_generation(max(found, self._generation))\n", "                pass\n", [C + "test_damage.py::test_a_forged_generation_puts_everything_out_of_reach_and_heals"]),
    "an entry of another codec is not read": ("cache/disk.py", "        if own < self._generation or item.codec != codec_name:", "        if own < self._generation:", [C + "test_damage.py::test_a_planted_pickle_never_runs_unless_asked_for", C + "test_mapping.py::test_codecs"]),
    "a result from the future": ("cache/tiers.py", "        return limit - age if age > -_SKEW else 0.0", "        return limit - age", [OURS + "test_a_reader_whose_clock_is_behind_serves_nothing_for_longer_than_its_ttl"]),
    "another look under the claim": ("cache/singleflight.py", '        item = yield from _attempt(results, "read a result", lambda: results.fetch(digest, fresh=True, again=True))', "        item = None", [C + "test_single_flight.py::test_sixty_four_processes_compute_once"]),
    "what was invalidated meanwhile is not kept": ("cache/flight.py", "                flight.doomed = found = True\n", "                found = True\n", [C + "test_single_flight.py::test_what_was_being_computed_when_it_was_invalidated_is_not_kept"]),
    "what another host removed meanwhile is not put": ("cache/disk.py", "        self.end_draft(digest)\n        return self", "        return self", [C + "test_changes.py::test_what_another_process_was_computing_when_it_was_invalidated_is_not_kept", C + "test_changes.py::test_a_change_is_never_undone_whatever_the_order_of_the_steps"]),
    "the draft goes before the entry": ("cache/disk.py", "        self.end_draft(digest)\n        return self.mount.remove(self._folders[digest[0]], digest)\n", "        gone = self.mount.remove(self._folders[digest[0]], digest)\n        self.end_draft(digest)\n        return gone\n", [C + "test_changes.py::test_a_change_is_never_undone_whatever_the_order_of_the_steps"]),
    "a refresh ends what began before it": ("cache/disk.py", "                    if alone and not changing and not self._is_left(folder, name):\n", "                    if alone:\n", [C + "test_changes.py::test_a_refresh_is_not_undone_by_what_began_before_it"]),
    "a draft that was made since is not taken for ours": ("mount/files.py", "            if not self._is_ours() or unless():", "            if unless():", [C + "test_changes.py::test_who_was_overtaken_does_not_put_the_draft_of_a_refresh_that_goes_on"]),
    "a forked child does not write into its parent's draft": ("mount/files.py", "    for draft in _drafts:\n        draft.leave()\n", "    pass\n", [C + "test_changes.py::test_a_computation_that_forks_puts_its_result_once"]),
    "what another host set meanwhile stays": ("cache/disk.py", "        return self._identity(folder, digest) not in (None, start.seen)", "        return False", [C + "test_changes.py::test_a_value_that_was_set_or_deleted_is_not_undone_by_what_began_before"]),
    "a claim that is shared outlives the first to give it back": ("mount/lock.py", "                if not file.bytes[self._offset]:", "                if True:", [M + "test_lock.py::test_who_shares_a_claim_keeps_it_when_another_gives_it_back"]),
    "nobody waits for who waits for him": ("cache/flight.py", "                ahead += other.waits_for\n", "                pass\n", [C + "test_single_flight.py::test_a_computation_with_several_waits_is_seen_to_wait_until_the_last_is_over"]),
    "keys have types": ("cache/keys.py", '        add(b"s%d:%b" % (len(data), data))', "        add(data)", [C + "test_keys.py"]),
    "nothing that is named is imported": ("format/codec/classes.py", "    found: Any = sys.modules.get(module)\n", "    import importlib\n\n    found: Any = importlib.import_module(module)\n", [OURS + "test_a_module_that_is_named_in_the_bytes_is_not_imported"]),
    "a scalar has its bytes": ("format/codec/arrays.py", "    if len(raw) != dtype.itemsize:  #", "    if False:  #", [OURS + "test_no_bomb_takes_more_than_it_may"]),
    "a model's names stay inside": ("modelstore/manifest.py", '        if part in ("", ".", ".."):', '        if part == "":', [O + "test_manifest.py"]),
    "with a key, digests and not sizes": ("modelstore/model_files.py", 'self._verify = verify if mount.key is None else "digest"', "self._verify = verify", [OURS + "test_with_a_key_a_models_bytes_are_checked_though_their_number_is_right"]),
    "what moves is not published": ("modelstore/publishing.py", "        if copied != digest or _moment(opened.look()) != _moment(opened.stat):", "        if False:", [O + "test_publish.py"]),
    "a reload leaves time for the handler": ("modelstore/loader.py", "0.0 if left is None else left / 4)", "0.0)", [O + "test_loader.py::test_a_reload_leaves_the_handler_time_for_its_work"]),
    "the threads of a load leave time, too": ("modelstore/model_files.py", "            deadline.reserved.set(max(kept, self._reserved))", "            pass", [O + "test_loader.py::test_a_reload_leaves_the_handler_time_for_its_work"]),
    "a turn is given back, whatever interrupts": ("modelstore/loader.py", "            self._leave(mine)  # a signal's handler may have raised in the first", "            pass", [O + "test_loader.py::test_interrupted_at_any_line_the_turn_is_given_back"]),
    "a published folder takes nothing of the store": ("modelstore/publishing.py", "            if self._is_store and", "            if False and", [O + "test_publish.py::test_a_folder_of_models_is_published_where_it_is"]),
    "a damaged copy is made anew for all threads": ("modelstore/model_files.py", "        if self._at is not at:", "        if False:", [O + "test_staging.py::test_a_damaged_copy_is_made_anew_once_by_the_threads_of_a_load"]),
    "folders of a copy do not stay open": ("modelstore/model_files.py", "            self._staged.mount.forget(self._staged.folder)", "            pass", [O + "test_staging.py::test_models_of_many_folders_keep_few_descriptors"]),
    "prune looks again after its rename": ("modelstore/pruning.py", "served is None or served.version == version or ", "", [O + "test_versions.py"]),
    "only a day old is abandoned": ("eviction/scan.py", "    86400.0  # seconds without a write", "    0.0  # seconds without a write", [W + "test_sweep.py"]),
    "the sweep's clock is the server's": ("cleanup/rounds.py", "        mount.ask_time(self._folder)\n        self.start = clock.now()", "        self.start = clock.now()", [OURS + "test_a_clients_own_clock_does_not_matter"]),
    "a newer policy: all is left alone": ("eviction/policy.py", "    except UnknownFormatError:\n        raise\n    except (CorruptEntryError, OSError) as error:", "    except (UnknownFormatError, CorruptEntryError, OSError) as error:", [W + "test_sweep.py", W + "test_policy.py"]),
    "a scratch folder of somebody else's": ("mount/root.py", "    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:", "    if False:", [O + "test_staging.py"]),
}  # fmt: skip

# Seen on two NFS clients alone: left out where the lab can't boot (tests/nfs/README.md).
NFS = {
    "the fresh open": ("mount/files.py", "                fd = _anew(held)\n                try:\n                    found = os.fstat(fd)", "                fd = os.dup(held.fd)\n                try:\n                    found = os.fstat(fd)", ["tests/nfs/test_mount.py"]),
}  # fmt: skip


def check(mutation):
    """The mutated file's text; `LookupError` where the source has not, once, what is to be changed."""
    file, old, new, _ = mutation
    with open(f"{os.path.dirname(efsstate.__file__)}/{file}") as source:
        text = source.read()
    if text.count(old) != 1:
        raise LookupError(f"{file} has {text.count(old)} times: {old!r:.150}")
    return text.replace(old, new)


def mutated(folder, mutation):
    """A copy of the package with the mutation in it; its parent folder."""
    text = check(mutation)
    shutil.copytree(
        os.path.dirname(efsstate.__file__),
        f"{folder}/efsstate",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    with open(f"{folder}/efsstate/{mutation[0]}", "w") as source:
        source.write(text)
    return folder


def tests(folder, names, *more, patience=SLOWEST):
    """(exit code, the last lines) of these tests on the package in `folder`."""
    environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-header",
        "--tb=line",
        *more,
        *names,
    ]
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen(
            command,
            cwd=HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = running.wait(patience)
        except subprocess.TimeoutExpired:
            code = "hangs"
        finally:
            try:
                os.killpg(running.pid, 9)
            except ProcessLookupError:
                pass
            running.wait()
        said.seek(0)
        return code, said.read().splitlines()


def attempt(name, mutation):
    """(whether it was noticed, by which test or why not)."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            mutated(folder, mutation)
        except LookupError as error:
            return False, f"it can't be made: {error}"
        code, said = tests(folder, mutation[3], "-x")
    if code == "hangs":
        return True, f"hangs: {mutation[3][0]}"
    if code == 1 and _failed(said):
        return True, _failed(said)[0]
    return False, "green" if code == 0 else f"code {code}: {' | '.join(said[-3:])[:300]}"


def _failed(said):
    return [
        line.partition(" ")[2].partition(" - ")[0]
        for line in said
        if line.startswith(("FAILED ", "ERROR "))
    ]


def run(seconds, seed, word="", say=print):
    """All of them, where there are two minutes at least; else as many as there is time for."""
    lab = {} if missing() else NFS
    chosen = {name: mutation for name, mutation in (MUTATIONS | lab).items() if word in name}
    wrong, rows, until = [], {}, time.monotonic() + (seconds if seconds < 120 else 10**6)
    every = sorted({test for mutation in chosen.values() for test in mutation[3]})
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            os.path.dirname(efsstate.__file__),
            f"{folder}/efsstate",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        code, said = tests(folder, every, patience=600)
        if code != 0:
            wrong.append(
                f"without any mutation: {', '.join(_failed(said)) or ' | '.join(said[-2:])[:300]}"
            )
    order = list(chosen)
    random.Random(seed).shuffle(order)
    noticed = 0
    for name in order:
        if time.monotonic() > until:
            break
        found, by = attempt(name, chosen[name])
        noticed += found
        rows[name] = [chosen[name][0], by]
        say(f"{'red  ' if found else 'GREEN'}  {name:<48} {by}", flush=True)
        if not found:
            wrong.append(f"{name}: {by}")
    for text in wrong:
        say(f"VIOLATION {text}", flush=True)
    rows = {name: rows[name] for name in chosen if name in rows}
    return {
        "mutations": len(rows),
        "of": len(chosen),
        "noticed": noticed,
        "violations": len(wrong),
        "rows": rows,
    }


if __name__ == "__main__":
    run(10**6, 0, *sys.argv[1:2])
