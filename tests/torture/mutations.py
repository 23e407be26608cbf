"""The table of safety measures: each is switched off in turn, and its tests must go red.

A measure is a statement of the source with a mark above it (`# MUT: name`). Its row has what it
prevents, the change that switches it off (edits.py), and the tests, below `tests/`.
"""

from typing import NamedTuple

from tests.torture.edits import become, drop, first, holds, instead, late, once, without


class Mutation(NamedTuple):
    """One measure: its title, the change that switches it off, and the tests that notice."""

    title: str
    change: object
    tests: list
    nfs: bool = False  # seen on two NFS clients alone: left out where the lab can't boot


MUTATIONS = {
    "a-collected-cache-counts-once": Mutation(
        "a cache that is collected while the sums are added up counts once",
        become("_add(_retired.setdefault(name, {}), _counted.pop(key)[2])"),
        ["metrics/test_metrics.py::test_a_cache_that_is_collected_meanwhile_counts_once"],
    ),
    "names-of-caches-do-not-add-up": Mutation(
        "names of caches do not add up",
        holds(False),
        ["metrics/test_metrics.py::test_sums_of_many_names_stay_small_and_exact"],
    ),
    "counts-that-move-are-given-out-once": Mutation(
        "counts that move to another name are given out once",
        holds(False),
        ["metrics/test_metrics.py::test_sums_of_many_names_stay_small_and_exact"],
    ),
    "decorated-names-do-not-add-up": Mutation(
        "decorated names do not add up",
        holds(True),
        ["cache/test_identity.py::test_names_of_captured_values_are_not_all_remembered"],
    ),
    "no-link-is-followed-to-a-file": Mutation(
        "no link is followed to a file",
        instead("os.O_NOFOLLOW", "0"),
        ["mount/test_files.py::test_links_are_refused_wherever_they_stand"],
    ),
    "no-link-is-followed-to-a-folder": Mutation(
        "no link is followed to a folder",
        instead("os.O_NOFOLLOW", "0"),
        ["mount/test_files.py::test_links_are_refused_wherever_they_stand"],
    ),
    "a-fifo-is-not-waited-for-o-nonblock": Mutation(
        "a FIFO is not waited for (O_NONBLOCK)",
        instead("os.O_NONBLOCK", "0"),
        ["mount/test_files.py::test_what_is_no_file_is_refused_and_does_not_hang"],
    ),
    "only-regular-files-are-read-s-isreg": Mutation(
        "only regular files are read (S_ISREG)",
        holds(False),
        ["mount/test_files.py::test_what_is_no_file_is_refused_and_does_not_hang"],
    ),
    "a-temporary-and-a-rename-not-in-place": Mutation(
        "a temporary and a rename, not in place",
        become("self._write(folder, name, build, flags=_WRITE, durable=durable)", "return"),
        [
            "mount/test_crash.py",
            "mount/test_files.py::test_readers_during_replacements_see_whole_contents",
        ],
    ),
    "a-file-is-synced-before-it-is-named": Mutation(
        "a file is synced before it is named",
        drop(),
        ["torture/test_measures.py::test_a_save_is_synced_before_its_rename_and_its_name_after"],
    ),
    "a-name-is-synced": Mutation(
        "a name is synced",
        drop(),
        ["torture/test_measures.py::test_a_save_is_synced_before_its_rename_and_its_name_after"],
    ),
    "a-failed-write-takes-its-temporary-away": Mutation(
        "a failed write takes its temporary away",
        drop(),
        ["mount/test_files.py::test_a_failed_write_leaves_the_old_content_and_no_temporary"],
    ),
    "another-look-at-estale": Mutation(
        "another look at ESTALE",
        holds(True),
        ["torture/test_measures.py::test_a_file_that_is_stale_for_once_is_looked_at_again"],
    ),
    "a-lost-reply-to-a-rename-is-told-from": Mutation(
        "a lost reply to a rename is told from a failure",
        holds(True),
        ["torture/test_measures.py::test_a_rename_that_was_done_though_it_failed_is_done"],
    ),
    "a-folder-that-was-removed-is-made-anew": Mutation(
        "a folder that was removed is made anew",
        holds(False),
        ["mount/test_files.py::test_a_folder_removed_under_us_is_made_anew"],
    ),
    "modes-whatever-the-umask": Mutation(
        "modes whatever the umask",
        holds(False),
        ["mount/test_files.py::test_modes_follow_the_roots_own_whatever_the_umask"],
    ),
    "open-folders-are-bounded": Mutation(
        "open folders are bounded",
        holds(False),
        ["mount/test_files.py::test_open_folders_are_bounded"],
    ),
    "a-short-read-is-gone-on-with": Mutation(
        "a short read is gone on with",
        once(),
        ["torture/test_measures.py::test_a_short_read_is_gone_on_with"],
    ),
    "a-short-write-is-gone-on-with": Mutation(
        "a short write is gone on with",
        once(),
        ["torture/test_measures.py::test_a_short_write_is_gone_on_with"],
    ),
    "the-servers-clock-stamps": Mutation(
        "the server's clock stamps",
        holds(False),
        ["torture/test_measures.py::test_a_clients_own_clock_does_not_matter"],
    ),
    "the-checksum": Mutation(
        "the checksum",
        holds(False),
        ["mount/test_entry.py::test_every_single_bit_flip_is_rejected"],
    ),
    "the-checksum-is-bound-to-the-place": Mutation(
        "the checksum is bound to the place",
        drop(),
        ["mount/test_entry.py::test_an_entry_moved_to_another_place_is_refused"],
    ),
    "the-checksum-is-keyed": Mutation(
        "the checksum is keyed",
        holds(False),
        ["mount/test_entry.py::test_with_a_key_unsigned_or_foreign_entries_are_refused"],
    ),
    "the-length": Mutation(
        "the length",
        without("length"),
        ["torture/test_measures.py::test_a_length_that_lies_is_damage_before_anything_is_hashed"],
    ),
    "a-newer-format-is-left-alone": Mutation(
        "a newer format is left alone",
        become('raise CorruptEntryError(path, "?")'),
        ["mount/test_entry.py::test_a_newer_format_is_told_apart_from_damage"],
    ),
    "a-load-of-several-files-is-judged-as-a-whole": Mutation(
        "a load of several files is judged as a whole",
        holds(False),
        ["modelstore/test_resuming.py::test_a_load_of_many_files_continues"],
    ),
    "what-is-huge-is-judged-before-it-is-read": Mutation(
        "what is huge is judged before it is read",
        holds(False),
        ["torture/test_short.py::test_a_file_of_a_tebibyte_is_refused_before_it_is_read"],
    ),
    "what-does-not-fit-in-memory-is-not-read": Mutation(
        "what does not fit in memory is not read",
        drop(),
        ["torture/test_short.py::test_a_file_of_a_tebibyte_is_refused_before_it_is_read"],
    ),
    "who-must-be-certain-looks-again": Mutation(
        "who must be certain looks again",
        become("_PAUSES = (None,)"),
        ["torture/test_measures.py::test_who_must_be_certain_finds_what_comes_back_in_a_moment"],
    ),
    "the-identity-of-a-locks-file": Mutation(
        "the identity of a lock's file",
        become("return True"),
        ["mount/test_lock.py::test_a_removed_lock_file_is_noticed"],
    ),
    "an-interrupted-write-leaves-no-temporary": Mutation(
        "an interrupted write leaves no temporary",
        drop(),
        ["torture/test_measures.py::test_an_interrupted_write_leaves_no_temporary"],
    ),
    "a-forks-child-does-not-keep-the-lock": Mutation(
        "a forked child does not keep its parent's lock",
        holds(False),
        ["torture/test_measures.py::test_a_forked_child_has_no_lock_file_of_its_parent_open"],
    ),
    "unlock-though-a-child-lives-on": Mutation(
        "unlock, though a child lives on",
        drop(),
        ["mount/test_lock.py::test_a_lock_is_given_back_though_another_process_has_its_file"],
    ),
    "a-locks-file-goes-before-the-lock": Mutation(
        "a lock's file goes before the lock",
        first("import fcntl", "fcntl.flock(fd, fcntl.LOCK_UN)"),
        ["torture/test_measures.py::test_a_locks_file_goes_before_the_lock"],
    ),
    "the-look-after-a-save": Mutation(
        "the look after a save",
        holds(True),
        ["checkpoints/test_checkpoint.py::test_break_claim_fences_the_holder_and_lets_others_in"],
    ),
    "the-base-once-decided-counts": Mutation(
        "the base, once decided, counts",
        holds(False),
        ["torture/test_measures.py::test_a_save_behind_a_damaged_base_does_not_count"],
    ),
    "a-load-decides-what-is-open": Mutation(
        "a load decides what is open",
        become("return newest, True"),
        ["checkpoints/test_damage.py::test_a_load_decides_what_a_dead_claimant_left_open"],
    ),
    "a-long-listing-is-looked-at-twice": Mutation(
        "a long listing is looked at twice",
        become("return True"),
        ["checkpoints/test_long_folders.py::test_a_torn_listing_shows_no_lost_save"],
    ),
    "a-claim-refuses-acknowledged-damage": Mutation(
        "a claim refuses acknowledged damage",
        holds(False),
        ["checkpoints/test_damage.py::test_a_load_steps_back_with_a_warning_and_a_claim_refuses"],
    ),
    "a-notes-checksum": Mutation(
        "a note's checksum",
        holds(False),
        ["checkpoints/test_damage.py::test_an_unsigned_base_cannot_redirect_to_an_older_save"],
    ),
    "a-saves-name-is-never-used-twice": Mutation(
        "a save's name is never used twice",
        drop(),
        ["checkpoints/test_checkpoint.py::test_only_keep_saves_stay_and_they_are_the_newest"],
    ),
    "finished-stays-finished": Mutation(
        "finished stays finished",
        holds(False),
        ["checkpoints/test_checkpoint.py::test_a_finished_one_stays_finished_with_its_result"],
    ),
    "what-is-saved-is-a-copy": Mutation(
        "what is saved is a copy",
        holds(True),
        ["checkpoints/test_checkpoint.py::test_an_array_that_changes_while_it_is_saved_leaves"],
    ),
    "a-shards-mark-is-signed": Mutation(
        "a shard's mark is signed",
        holds(True),
        ["checkpoints/test_shards.py::test_a_forged_mark_finishes_nothing"],
    ),
    "a-rebase-is-above-all-that-ran": Mutation(
        "a rebase is above all that ran",
        drop(),
        ["checkpoints/test_rebase.py::test_an_owner_from_before_cannot_save_after_a_rebase"],
    ),
    "a-rebase-is-no-crash": Mutation(
        "a rebase is no crash",
        holds(True),
        ["checkpoints/test_rebase.py::test_a_rebase_is_no_crash_of_an_item"],
    ),
    "a-shards-mark-needs-its-last-save": Mutation(
        "a shard's mark needs its last save",
        holds(False),
        ["checkpoints/test_rebase.py::test_a_marked_shard_without_its_last_save_is_done_again"],
    ),
    "a-clears-generation": Mutation(
        "a clear's generation",
        without("clears"),
        [
            "cache/test_mapping.py::test_clear_forgets_everything_here_at_once",
            "cache/test_cached.py::test_invalidate_refresh_and_clear_show_at_once",
        ],
    ),
    "a-damaged-cleared-clears-once-more": Mutation(
        "a damaged CLEARED clears once more",
        drop(),
        ["cache/test_damage.py::test_a_forged_clear_stamp_clears_everything_and_heals"],
    ),
    "a-clears-generation-without-memory": Mutation(
        "a clear's generation, where nothing is kept in memory",
        without("stamp"),
        ["cache/test_plain_hits.py::test_a_cleared_result_is_computed_again"],
    ),
    "a-tag-is-looked-up-without-memory": Mutation(
        "a tag's clear stamp, where nothing is kept in memory",
        without("flags"),
        ["cache/test_plain_hits.py::test_a_result_with_an_invalidated_tag_is_computed_again"],
    ),
    "an-entry-of-another-codec-is-not-read-without-memory": Mutation(
        "an entry of another codec is not read, where nothing is kept in memory",
        without("is_own"),
        ["cache/test_plain_hits.py::test_a_result_of_another_codec_is_computed_again"],
    ),
    "a-remembered-result-is-the-callers-own": Mutation(
        "a remembered result that may change is each caller's own",
        become(
            "value = vars(self).setdefault(item.digest, None) or results.loads(item.payload);"
            " vars(self)[item.digest] = value"
        ),
        ["cache/test_memory.py::test_a_remembered_result_that_may_change_is_each_callers_own"],
    ),
    "an-entry-of-another-codec-is-not-read": Mutation(
        "an entry of another codec is not read",
        without("codec"),
        [
            "cache/test_damage.py::test_a_planted_pickle_never_runs_unless_asked_for",
            "cache/test_mapping.py::test_codecs",
        ],
    ),
    "a-change-loses-no-value-of-another-codec": Mutation(
        "a change loses no value of another codec",
        holds(False),
        ["cache/test_mapping.py::test_a_value_of_another_codec_is_not_lost"],
    ),
    "a-result-from-the-future": Mutation(
        "a result from the future",
        holds(True),
        ["torture/test_measures.py::test_a_slow_clock_serves_nothing_for_longer_than_its_ttl"],
    ),
    "another-look-under-the-claim": Mutation(
        "another look under the claim",
        become("item = None"),
        ["cache/test_single_flight.py::test_sixty_four_processes_compute_once"],
    ),
    "what-was-invalidated-meanwhile-is-not-kept": Mutation(
        "what was invalidated meanwhile is not kept",
        drop(),
        ["cache/test_single_flight.py::test_a_computation_that_was_invalidated_is_not_kept"],
    ),
    "what-another-host-removed-meanwhile-is-not": Mutation(
        "what another host removed meanwhile is not put",
        drop(),
        [
            "cache/test_changes.py::test_anothers_computation_that_was_invalidated_is_not_kept",
            "cache/test_changes.py::test_a_change_is_never_undone_in_any_order_of_the_steps",
        ],
    ),
    "the-draft-goes-before-the-entry": Mutation(
        "the draft goes before the entry",
        late(),
        ["cache/test_changes.py::test_a_change_is_never_undone_in_any_order_of_the_steps"],
    ),
    "a-refresh-ends-what-began-before": Mutation(
        "a refresh ends what began before it",
        drop(),
        ["cache/test_changes.py::test_a_change_is_never_undone_in_any_order_of_the_steps"],
    ),
    "zeros-of-two-signs-are-two-calls": Mutation(
        "zeros of two signs are two calls",
        drop(),
        ["cache/test_memory.py::test_zeros_of_two_signs_are_two_calls"],
    ),
    "a-drafts-name-is-never-used-again": Mutation(
        "a draft's name is never used again",
        become('self.name = prefix + "0" * 16'),
        ["cache/test_changes.py::test_two_without_a_claim_do_not_keep_each_other_from_storing"],
    ),
    "a-map-that-raised-calls-no-more": Mutation(
        "a map that raised calls no more",
        drop(),
        ["cache/test_async.py::test_a_map_that_raised_calls_no_more"],
    ),
    "a-tags-clear-stamp": Mutation(
        "a tag's clear stamp",
        holds(False),
        ["cache/test_tags.py::test_an_invalidated_tag_takes_its_results_alone"],
    ),
    "a-finished-flight-is-replaced": Mutation(
        "a finished flight is replaced",
        without("finished"),
        ["cache/test_waiting.py::test_a_flight_that_was_never_unregistered_is_replaced"],
    ),
    "a-flights-result-is-served-within-its-ttl": Mutation(
        "a flight's result is served within its ttl",
        holds(False),
        ["cache/test_waiting.py::test_a_finished_flights_result_is_not_served_past_its_ttl"],
    ),
    "waiters-without-a-result-go-on-together": Mutation(
        "waiters without a result go on together",
        holds(False),
        ["cache/test_waiting.py::test_processes_wait_for_one_computation_at_most"],
    ),
    "a-value-is-copied-before-it-is-handed-over": Mutation(
        "a value is copied before it is handed over",
        drop(),
        ["cache/test_handover.py::test_a_set_that_was_given_up_stores_what_was_passed"],
    ),
    "memory-keeps-nothing-that-changed-since": Mutation(
        "memory keeps nothing that changed since",
        become("is_last = True"),
        ["cache/test_changes.py::test_a_change_right_after_a_put_keeps_it_out_of_memory"],
    ),
    "a-forked-child-does-not-write-into-its": Mutation(
        "a forked child does not write into its parent's draft",
        drop(),
        ["cache/test_changes.py::test_a_computation_that_forks_puts_its_result_once"],
    ),
    "what-another-host-set-meanwhile-stays": Mutation(
        "what another host set meanwhile stays",
        become("return False"),
        ["cache/test_changes.py::test_a_set_or_delete_is_not_undone_by_an_earlier_computation"],
    ),
    "a-claim-that-is-shared-outlives-the-first": Mutation(
        "a claim that is shared outlives the first to give it back",
        holds(True),
        ["mount/test_lock.py::test_who_shares_a_claim_keeps_it_when_another_gives_it_back"],
    ),
    "nobody-waits-for-who-waits-for-him": Mutation(
        "nobody waits for who waits for him",
        drop(),
        ["cache/test_single_flight.py::test_a_flight_with_several_waits_waits_until_the_last_ends"],
    ),
    "keys-have-types": Mutation(
        "keys have types",
        instead('b"s%d:%b" % (len(data), data)', "data"),
        ["cache/test_keys.py"],
    ),
    "nothing-that-is-named-is-imported": Mutation(
        "nothing that is named is imported",
        instead("sys.modules.get", "__import__('importlib').import_module"),
        ["torture/test_measures.py::test_a_module_that_is_named_in_the_bytes_is_not_imported"],
    ),
    "an-interrupted-mutex-is-free": Mutation(
        "an interrupted mutex is free",
        holds(False),
        ["cache/test_mutex.py::test_after_an_alarm_at_any_moment_it_is_free"],
    ),
    "a-mutex-is-left-with-its-last-reference": Mutation(
        "a mutex is left with its last reference",
        holds(False),
        ["cache/test_mutex.py::test_after_an_alarm_at_any_moment_it_is_free"],
    ),
    "an-interrupted-task-leaves-its-mutex": Mutation(
        "an interrupted task leaves its mutex",
        drop(),
        ["cache/test_mutex.py::test_a_task_that_is_interrupted_as_its_thread_begins_lets_go"],
    ),
    "a-change-needs-a-readable-value": Mutation(
        "a change needs a readable value",
        become("item = self.read(digest, exact=True)"),
        ["cache/test_mapping.py::test_what_cannot_be_read_is_not_replaced"],
    ),
    "pop-removes-the-value-that-it-returns": Mutation(
        "pop removes the value that it returns",
        become("puts.remove(results, digest)"),
        ["cache/test_mapping.py::test_pop_gives_only_what_it_has_removed"],
    ),
    "an-alarm-is-no-damage": Mutation(
        "an alarm is no damage",
        holds(False),
        ["cache/test_mapping.py::test_a_handler_that_raises_loses_no_count"],
    ),
    "add-replaces-nothing": Mutation(
        "add replaces nothing",
        holds(False),
        ["cache/test_mapping.py::test_add_keeps_a_value_that_came_meanwhile"],
    ),
    "one-caller-adds": Mutation(
        "one caller adds",
        instead("self.lock(key)", "__import__('contextlib').nullcontext()"),
        ["cache/test_mapping.py::test_where_the_mount_cannot_lock_add_keeps_nothing"],
    ),
    "a-draft-is-gone-once-it-is-removed": Mutation(
        "a draft is gone once it is removed",
        instead("self._is_gone", "self.is_over"),
        ["mount/test_drafts.py::test_a_draft_that_an_alarm_met_as_it_was_given_up_is_gone"],
    ),
    "an-alarm-leaves-no-mutex-of-dogpile": Mutation(
        "an alarm leaves no mutex of dogpile",
        holds(False),
        ["adapters/test_dogpile.py::test_an_alarm_leaves_no_mutex_taken"],
    ),
    "a-mutex-of-dogpile-goes-with-its-last-use": Mutation(
        "a mutex of dogpile goes with its last use",
        holds(False),
        ["adapters/test_dogpile.py::test_an_alarm_before_the_release_leaves_no_mutex_taken"],
    ),
    "ttl-may-fail-and-a-time-limit-may-not": Mutation(
        "ttl may fail, and a time limit may not",
        holds(False),
        ["cache/test_exceptions.py::test_a_time_limit_in_a_rule_ends_the_call"],
    ),
    "an-alarm-leaves-no-copy-locked": Mutation(
        "an alarm leaves no copy locked",
        become("acquired += [self._copying.acquire(True, seconds)]"),
        ["modelstore/test_staging.py::test_an_alarm_leaves_no_copy_locked"],
    ),
    "progress-is-removed-before-the-files": Mutation(
        "progress is removed before the files",
        drop(),
        ["deploy/test_publisher.py::test_a_kill_during_the_clean_up_loses_no_file"],
    ),
    "a-killed-removal-leaves-nothing-that-counts": Mutation(
        "a killed removal leaves nothing that counts",
        become("return sorted(names, reverse=True)"),
        [
            "deploy/test_publisher.py::test_a_copy_keeps_its_lock_until_all_is_removed",
            "checkpoints/test_removal_killed.py",
        ],
    ),
    "a-folder-that-was-removed-is-not-read": Mutation(
        "a removed folder is not read",
        holds(False),
        ["checkpoints/test_removal_killed.py::test_a_warm_load_does_not_follow_a_removal"],
    ),
    "no-claim-in-a-folder-that-was-removed": Mutation(
        "no claim in a removed folder",
        holds(False),
        ["checkpoints/test_removal_killed.py::test_a_warm_claim_leaves_another_removal_alone"],
    ),
    "a-removal-looks-at-the-shards-again": Mutation(
        "a removal looks at the shards again",
        become("return True"),
        ["checkpoints/test_removal_killed.py::test_a_frozen_removal_sees_claims_of_shards"],
    ),
    "saves-that-may-count-are-not-swept": Mutation(
        "saves that may count are not swept",
        become("return False"),
        ["checkpoints/test_removal_killed.py::test_a_sweep_keeps_saves_that_may_count"],
    ),
    "no-shard-of-a-job-that-was-removed": Mutation(
        "no shard of a job that was removed",
        holds(False),
        ["checkpoints/test_removal_killed.py::test_a_warm_worker_does_not_follow_a_removal"],
    ),
    "a-handlers-time-out-loses-no-lock": Mutation(
        "a handler's time-out loses no lock",
        drop(),
        ["mount/test_lock.py::test_an_alarm_leaves_no_byte_locked"],
    ),
    "a-handlers-time-out-leaves-no-file": Mutation(
        "a handler's time-out leaves no file",
        holds(True),
        ["mount/test_drafts.py::test_a_time_limit_leaves_no_file_of_a_look_at_the_clock"],
    ),
    "a-failed-look-at-a-lock-is-no-loss": Mutation(
        "a failed look at a lock is no loss",
        holds(True),
        ["mount/test_lock.py::test_a_failed_look_at_a_lock_says_nothing_of_it"],
    ),
    "a-removal-in-place-looks-again": Mutation(
        "a removal in place looks again",
        holds(False),
        ["checkpoints/test_removal_killed.py::test_a_frozen_removal_in_place_sees_a_later_claim"],
    ),
    "a-call-that-was-frozen-removes-no-other-copy": Mutation(
        "a call that was frozen removes no other copy",
        holds(True),
        ["deploy/test_publisher.py::test_a_call_frozen_before_its_clean_up_removes_nothing"],
    ),
    "a-copy-is-published-whole": Mutation(
        "a copy is published whole",
        holds(False),
        ["deploy/test_publisher.py::test_a_file_that_went_before_the_publication_is_missed"],
    ),
    "a-copy-that-changes-is-not-abandoned": Mutation(
        "a copy that changes is not abandoned",
        become("return changed"),
        ["deploy/test_publisher.py::test_a_copy_without_note_and_lock_goes_after_a_day"],
    ),
    "a-canary-that-ended-does-not-begin-again": Mutation(
        "a canary that ended does not begin again",
        holds(False),
        [
            "modelstore/test_labels.py::test_a_canary_that_ended_does_not_begin_again",
            "modelstore/test_labels.py::test_no_kill_lets_a_canary_begin_again",
        ],
    ),
    "a-canary-that-ended-is-not-rolled-back": Mutation(
        "a canary that ended is not rolled back",
        instead("label, link.version)", "label, None)"),
        ["modelstore/test_labels.py::test_a_canary_that_ended_does_not_begin_again"],
    ),
    "a-second-removal-keeps-the-previous-version": Mutation(
        "a second removal keeps the previous version",
        holds(False),
        ["modelstore/test_labels.py::test_a_removal_again_keeps_what_was_active"],
    ),
    "a-missing-folder-is-not-an-empty-one": Mutation(
        "a missing folder is not an empty one",
        instead("required or ", ""),
        ["modelstore/test_source.py::test_a_stale_folder_is_not_published_as_an_empty_one"],
    ),
    "an-empty-folder-is-looked-at-again": Mutation(
        "an empty folder is looked at again",
        drop(),
        ["modelstore/test_source.py::test_a_folder_that_is_filled_meanwhile_raises"],
    ),
    "a-version-goes-without-the-files-of-others": Mutation(
        "a version goes without the files of others",
        become("level = grammar.anything"),
        ["modelstore/test_versions.py::test_a_version_with_a_users_files_stays_whole_and_is_named"],
    ),
    "a-manifest-outlasts-its-files": Mutation(
        "a manifest outlasts its files",
        holds(False),
        ["cleanup/test_removal.py::test_the_manifest_of_a_version_goes_after_its_files"],
    ),
    "files-are-put-aside-before-they-are-removed": Mutation(
        "files are put aside before they are removed",
        become("above, aside = staging, FILES"),
        ["modelstore/test_publish.py::test_a_removal_that_was_frozen_takes_no_version"],
    ),
    "a-removal-leaves-the-lock-of-another": Mutation(
        "a removal leaves the lock of another",
        become("is_current = True"),
        ["modelstore/test_publish.py::test_a_removal_leaves_the_lock_of_another"],
    ),
    "a-publisher-leaves-the-lock-of-another": Mutation(
        "a publisher leaves the lock of another",
        drop(),
        ["modelstore/test_publish.py::test_a_publisher_leaves_the_lock_of_another"],
    ),
    "a-manifest-without-its-files-is-not-published": Mutation(
        "a manifest without its files is not published",
        holds(False),
        ["modelstore/test_publish.py::test_a_prune_while_a_publisher_is_frozen"],
    ),
    "a-copy-is-published-with-all-its-files": Mutation(
        "a copy is published with all its files",
        holds(False),
        ["deploy/test_publisher.py::test_a_call_frozen_before_the_publication_raises"],
    ),
    "a-copy-goes-on-behind-bytes-that-are-there": Mutation(
        "a copy goes on behind bytes that are there",
        holds(False),
        [
            "deploy/test_publisher.py::test_a_call_that_was_frozen_leaves_no_hole_of_zeros",
            "deploy/test_publisher.py::test_a_note_from_before_a_freeze_leads_to_no_hole",
        ],
    ),
    "a-call-that-was-frozen-cuts-nothing-off": Mutation(
        "a call that was frozen cuts nothing off",
        instead("end if end == item.size else None", "end"),
        ["deploy/test_publisher.py::test_a_call_that_was_frozen_cuts_nothing_off"],
    ),
    "a-copy-that-another-call-finished-is-not-published": Mutation(
        "a copy that another call finished is not published",
        holds(False),
        ["deploy/test_publisher.py::test_a_call_that_was_frozen_takes_nothing_back"],
    ),
    "an-older-file-is-none-that-this-copy-moved": Mutation(
        "an older file is none that this copy moved",
        become("is_of_this_copy = True"),
        ["deploy/test_publisher.py::test_an_older_file_of_that_size_was_not_moved"],
    ),
    "a-time-limit-ends-a-put-of-many": Mutation(
        "a time limit ends a put of many",
        drop(),
        ["cache/test_exceptions.py::test_a_time_limit_ends_a_put_of_many"],
    ),
    "a-time-limit-ends-a-computation": Mutation(
        "a time limit ends a computation",
        instead("not process.is_of_system(error)", "not isinstance(error, OSError)"),
        ["cache/test_exceptions.py::test_a_time_limit_ends_a_call_before_its_work"],
    ),
    "a-time-limit-ends-a-wait-for-a-byte": Mutation(
        "a time limit ends a wait for a byte",
        instead("not process.is_of_system(error)", "not isinstance(error, OSError)"),
        ["torture/test_time_limits.py::test_a_time_limit_ends_a_lock_at_every_moment"],
    ),
    "a-flight-that-is-over-is-not-kept": Mutation(
        "a flight that is over is not kept",
        drop(),
        ["cache/test_single_flight.py::test_an_alarm_leaves_no_flight"],
    ),
    "a-context-forgets-flights-that-are-over": Mutation(
        "a context forgets flights that are over",
        drop(),
        ["cache/test_single_flight.py::test_an_alarm_leaves_no_flight"],
    ),
    "a-part-that-failed-leaves-no-file": Mutation(
        "a part that failed leaves no file",
        drop(),
        ["torture/test_time_limits.py::test_a_time_limit_reaches_its_caller[a part]"],
    ),
    "a-time-limit-is-no-failure-of-the-mount": Mutation(
        "a time limit is no failure of the mount",
        drop(),
        ["cache/test_exceptions.py::test_a_time_limit_is_no_failure_of_the_mount"],
    ),
    "a-sum-that-is-not-stored-leaves-the-number": Mutation(
        "a sum that is not stored leaves the number",
        without("keeps_old"),
        ["cache/test_mapping.py::test_a_sum_that_cannot_be_stored_leaves_the_number"],
    ),
    "an-interrupted-sum-leaves-the-number": Mutation(
        "an interrupted sum leaves the number",
        holds(False),
        ["cache/test_mapping.py::test_a_sum_that_cannot_be_stored_leaves_the_number"],
    ),
    "a-scalar-has-its-bytes": Mutation(
        "a scalar has its bytes",
        holds(False),
        ["cache/test_codec_kinds.py::test_a_scalar_with_more_or_fewer_bytes_is_refused"],
    ),
    "a-models-names-stay-inside": Mutation(
        "a model's names stay inside",
        instead('("", ".", "..")', '("",)'),
        ["modelstore/test_manifest.py"],
    ),
    "with-a-key-digests-and-not-sizes": Mutation(
        "with a key, digests and not sizes",
        holds(True),
        ["torture/test_measures.py::test_with_a_key_a_models_bytes_are_checked"],
    ),
    "what-moves-is-not-published": Mutation(
        "what moves is not published",
        holds(False),
        ["modelstore/test_publish.py"],
    ),
    "a-reload-leaves-time-for-the-handler": Mutation(
        "a reload leaves time for the handler",
        holds(True),
        ["modelstore/test_loader.py::test_a_reload_leaves_the_handler_time_for_its_work"],
    ),
    "the-threads-of-a-load-leave-time-too": Mutation(
        "the threads of a load leave time, too",
        drop(),
        ["modelstore/test_loader.py::test_a_reload_leaves_the_handler_time_for_its_work"],
    ),
    "a-turn-is-given-back-whatever-interrupts": Mutation(
        "a turn is given back, whatever interrupts",
        drop(),
        ["modelstore/test_loader.py::test_interrupted_at_any_line_the_turn_is_given_back"],
    ),
    "a-published-folder-takes-nothing-of-the": Mutation(
        "a published folder takes nothing of the store",
        holds(False),
        ["modelstore/test_publish.py::test_a_folder_of_models_is_published_where_it_is"],
    ),
    "a-damaged-copy-is-made-anew-for-all-threads": Mutation(
        "a damaged copy is made anew for all threads",
        holds(False),
        ["modelstore/test_staging.py::test_threads_of_a_load_replace_a_damaged_copy_once"],
    ),
    "folders-of-a-copy-do-not-stay-open": Mutation(
        "folders of a copy do not stay open",
        drop(),
        ["modelstore/test_staging.py::test_models_of_many_folders_keep_few_descriptors"],
    ),
    "prune-looks-again-after-its-rename": Mutation(
        "prune looks again after its rename",
        without("named", "version"),
        ["modelstore/test_versions.py"],
    ),
    "only-a-day-old-is-abandoned": Mutation(
        "only a day old is abandoned",
        instead("86400.0", "0.0"),
        ["cleanup/test_sweep.py"],
    ),
    "the-sweeps-clock-is-the-servers": Mutation(
        "the sweep's clock is the server's",
        drop(),
        ["torture/test_measures.py::test_a_clients_own_clock_does_not_matter"],
    ),
    "a-newer-policy-all-is-left-alone": Mutation(
        "a newer policy: all is left alone",
        instead(
            "except UnknownFormatError: raise",
            "except UnknownFormatError as error: problem = error",
        ),
        ["cleanup/test_sweep.py", "cleanup/test_policy.py"],
    ),
    "only-names-of-the-format-are-removed": Mutation(
        "only names of the format are removed",
        become("is_ours = True"),
        ["cleanup/test_removal.py"],
    ),
    "another-file-system-is-not-entered": Mutation(
        "another file system is not entered",
        drop(),
        ["cleanup/test_removal.py"],
    ),
    "a-limit-stays-until-another-is-given": Mutation(
        "a limit stays until another is given",
        become("max_bytes = wanted.max_bytes"),
        ["cleanup/test_policy.py"],
    ),
    "writers-of-a-policy-take-turns": Mutation(
        "writers of a policy take turns",
        become("turn = None"),
        ["cleanup/test_policy.py"],
    ),
    "each-call-of-a-sweep-gets-on": Mutation(
        "each call of a sweep gets on",
        drop(),
        ["cleanup/test_turns.py::test_a_listing_that_takes_the_budget_leaves_time_for_work"],
    ),
    "a-fork-waits-for-who-opens-a-lock-file": Mutation(
        "a fork waits for who opens a lock file",
        drop(),
        ["mount/test_lock.py::test_a_fork_waits_for_a_thread_that_opens_a_lock_file"],
    ),
    "an-interrupted-link-leaves-no-temporary": Mutation(
        "an interrupted link leaves no temporary",
        drop(),
        ["mount/test_drafts.py::test_a_link_that_an_alarm_interrupts_leaves_no_temporary"],
    ),
    "an-interrupted-invocation-ends": Mutation(
        "an interrupted invocation ends",
        become("own = lambda: self"),
        ["floor/test_deadline.py::test_an_invocation_that_an_alarm_interrupts_ends"],
    ),
    "damage-is-looked-at-twice": Mutation(
        "damage is looked at twice",
        holds(True),
        ["checkpoints/test_damage.py::test_an_alarm_in_a_decoder_is_no_damage"],
    ),
    "a-thread-is-known-before-it-works": Mutation(
        "a thread is known before it works",
        drop(),
        ["modelstore/test_loader.py::test_a_thread_that_an_alarm_leaves_is_waited_for"],
    ),
    "a-job-never-shrinks": Mutation(
        "a job never shrinks",
        holds(False),
        ["checkpoints/test_shards.py::test_a_job_never_shrinks_whoever_grows_it"],
    ),
    "results-are-of-all-shards": Mutation(
        "results are of all shards",
        drop(),
        ["checkpoints/test_shards.py::test_results_are_of_all_shards_that_the_job_has_now"],
    ),
    "a-call-without-time-does-one-folder": Mutation(
        "a call without time does one folder",
        instead("self._has_begun and self.options.is_over()", "self.options.is_over()"),
        ["cleanup/test_turns.py::test_a_call_whose_time_is_over_at_once_does_one_folder"],
    ),
    "a-bad-folder-does-not-end-a-sweep": Mutation(
        "a bad folder does not end a sweep",
        become("return job(report)"),
        ["cleanup/test_turns.py::test_whatever_fails_in_one_model_the_rest_is_swept"],
    ),
    "a-bad-checkpoint-does-not-end-its-group": Mutation(
        "a bad checkpoint does not end its group",
        instead("except Exception as error", "except MemoryError as error"),
        ["cleanup/test_turns.py::test_whatever_fails_in_one_checkpoint_the_others_are_swept"],
    ),
    "a-sweep-without-notes-goes-on": Mutation(
        "a sweep without notes goes on",
        become("return SweepRound(mount, kind, fresh=fresh)"),
        ["cleanup/test_turns.py::test_a_sweep_that_cannot_write_its_marks_goes_on"],
    ),
    "what-may-be-signed-is-not-damaged": Mutation(
        "what may be signed is not damaged",
        holds(False),
        ["cli/test_commands.py::test_repair_without_the_signing_key_removes_nothing"],
    ),
    "a-duration-on-the-command-line-has-a-unit": Mutation(
        "a duration on the command line has a unit",
        holds(False),
        ["cli/test_commands.py::test_a_duration_needs_its_unit"],
    ),
    "a-scratch-folder-of-somebody-elses": Mutation(
        "a scratch folder of somebody else's",
        holds(False),
        ["modelstore/test_staging.py"],
    ),
    "the-fresh-open": Mutation(
        "the fresh open",
        become("opened.append(os.dup(handle.fd))"),
        ["nfs/test_mount.py"],
        nfs=True,
    ),
    "a-closed-number-is-not-used": Mutation(
        "a closed number is not used",
        holds(False),
        ["mount/test_drafts.py::test_a_part_closed_during_its_write_touches_no_other_file"],
    ),
    "a-descriptor-in-use-stays-open": Mutation(
        "a descriptor in use stays open",
        holds(True),
        ["mount/test_drafts.py::test_a_descriptor_closes_once_and_after_its_last_use"],
    ),
    "a-descriptor-is-owned-at-once": Mutation(
        "a descriptor is owned at once",
        become("fd = os.open(name, flags, mode, dir_fd=dir_fd)", "self._fds.append(fd)"),
        ["mount/test_lock.py::test_an_alarm_at_any_moment_leaks_no_descriptor_and_no_lock"],
    ),
    "a-key-is-claimed-before-its-part-is-visible": Mutation(
        "a key is claimed before its part is visible",
        become("return claim"),
        ["datasets/test_dataset.py::test_a_removed_key_is_told_from_a_lost_part"],
    ),
    "a-list-in-use-is-not-swept": Mutation(
        "a list in use is not swept",
        without("now"),
        ["datasets/test_sweep.py::test_a_list_without_a_snapshot_goes_after_a_day"],
    ),
    "a-part-whose-staged-file-is-gone-is-no-success": Mutation(
        "a part whose staged file is gone is no success",
        instead("self._explain(key, claim)", "ADDED"),
        ["datasets/test_explorer.py::test_no_order_of_steps_breaks_a_promise"],
    ),
    "a-parts-bytes-are-those-of-its-buffer": Mutation(
        "a part has the bytes of its buffer, and not so many zeros as its value",
        instead("view.tobytes()", "bytes(value)"),
        ["datasets/test_dataset.py::test_an_array_is_one_buffer_also_within_a_list"],
    ),
    "a-snapshot-of-another-root-is-not-taken-for-this": Mutation(
        "a snapshot of another root is not taken for this one",
        holds(False),
        ["datasets/test_dataset.py::test_a_snapshot_of_another_root_is_no_copy"],
    ),
    "each-item-of-a-map-has-its-own-token": Mutation(
        "each item of a map has its own token",
        holds(False),
        ["checkpoints/test_map.py::test_each_item_has_its_own_token_in_a_map"],
    ),
    "a-shard-that-was-reset-has-no-result": Mutation(
        "a shard that was reset has no result",
        holds(False),
        ["checkpoints/test_shards.py::test_a_mark_without_a_finished_shard_gives_no_result"],
    ),
    "a-map-saves-before-it-waits-for-its-threads": Mutation(
        "a map saves before it waits for its threads",
        holds(False),
        ["checkpoints/test_map.py::test_a_map_saves_before_it_waits_for_a_slow_item"],
    ),
    "a-part-of-another-dataset-is-refused": Mutation(
        "a part of another dataset is refused",
        holds(False),
        ["datasets/test_dataset.py::test_a_part_of_another_dataset_is_refused"],
    ),
    "a-replaced-value-keeps-its-tags": Mutation(
        "a replaced value keeps its tags",
        drop(),
        ["cache/test_tags.py::test_touch_and_incr_keep_the_tags_of_a_value"],
    ),
    "a-late-result-of-another-root-is-not-remembered": Mutation(
        "a late result of another root is not remembered",
        instead("tier is self._disk", "True"),
        ["cache/test_environment.py::test_a_result_of_before_is_not_served_below_the_new_root"],
    ),
    "a-parts-bytes-are-checked": Mutation(
        "a parts bytes are checked",
        holds(False),
        ["datasets/test_dataset.py::test_a_flipped_byte_is_told"],
    ),
    "a-removal-looks-again-after-the-rename": Mutation(
        "a removal looks again after the rename",
        holds(False),
        ["checkpoints/test_retention.py::test_a_claim_that_ignores_the_lock_stops_the_removal"],
    ),
    "a-dataset-of-another-signing-key-is-refused": Mutation(
        "a dataset of another signing key is refused",
        holds(False),
        [
            "datasets/test_dataset.py::test_with_another_signing_key_a_dataset_is_refused",
            "datasets/test_command.py::test_without_the_signing_key_a_dataset_is_refused",
        ],
    ),
    "a-mappings-keys-are-no-content": Mutation(
        "a mapping's keys are no content",
        become("is_one = whole is not None"),
        ["datasets/test_dataset.py::test_a_mapping_or_a_text_is_no_content"],
    ),
    "a-command-overwrites-no-file": Mutation(
        "a command overwrites no file",
        holds(False),
        [
            "planning/test_plan.py::test_a_file_is_overwritten_only_with_force",
            "cli/test_commands.py::test_template_overwrites_nothing_without_force",
        ],
    ),
    "a-removal-marks-the-key-before-it-unlinks": Mutation(
        "a removal marks the key before it unlinks",
        drop(),
        ["datasets/test_dataset.py::test_a_removed_key_is_told_from_a_lost_part"],
    ),
    "a-removed-key-does-not-come-back": Mutation(
        "a removed key does not come back",
        holds(False),
        ["datasets/test_dataset.py::test_a_removed_key_never_comes_back"],
    ),
    "a-script-is-named-by-its-path": Mutation(
        "a script is named by its path",
        instead("os.path.abspath(file)", "os.path.basename(file)"),
        ["cache/test_identity.py::test_scripts_of_one_name_are_two_programs"],
    ),
    "a-waiter-does-not-take-a-removed-lock": Mutation(
        "a waiter does not take a removed lock",
        holds(False),
        ["mount/test_lock.py::test_a_waiter_on_a_removed_lock_file_waits_for_the_new_one"],
    ),
    "an-error-that-passes-is-tried-again": Mutation(
        "an error that passes is tried again",
        holds(True),
        ["mount/test_files.py::test_a_rename_that_is_refused_for_a_moment_is_done"],
    ),
    "attributes-of-a-decorator-count": Mutation(
        "what the object of a decorator that is a class keeps counts",
        drop(),
        ["cache/test_identity.py::test_what_the_object_of_a_decorator_keeps_counts"],
    ),
    "a-variable-that-is-bound-again-counts": Mutation(
        "a captured variable that is bound again counts",
        holds(False),
        ["cache/test_identity.py::test_a_variable_that_is_bound_again_counts"],
    ),
    "a-remembered-call-is-of-the-variables-now": Mutation(
        "a remembered call is of the variables as they are now",
        holds(False),
        ["cache/test_identity.py::test_a_variable_that_is_bound_again_counts"],
    ),
    "a-default-that-is-replaced-counts": Mutation(
        "a default that is replaced counts",
        holds(False),
        ["cache/test_identity.py::test_a_default_that_is_replaced_counts"],
    ),
    "attributes-of-functions-count": Mutation(
        "attributes of captured functions count",
        become("description = {}"),
        ["cache/test_identity.py::test_attributes_of_captured_functions_count"],
    ),
    "items-of-a-decorators-dict-count": Mutation(
        "what a decorator's object that is a dict or list holds counts",
        drop(),
        ["cache/test_identity.py::test_what_the_object_of_a_decorator_holds_counts"],
    ),
    "an-ellipsis-is-no-text": Mutation(
        "an ellipsis in code is no text",
        instead("_ELLIPSIS", '"..."'),
        ["cache/test_identity.py::test_constants_of_captured_functions_count_by_type_and_value"],
    ),
    "the-class-of-a-method-is-no-local-one": Mutation(
        "a method that names a class which a function makes is refused",
        drop(),
        ["cache/test_identity.py::test_a_method_that_names_a_class_of_a_function_is_refused"],
    ),
    "a-class-of-a-function-is-refused": Mutation(
        "a class that a function makes is refused",
        holds(False),
        ["cache/test_identity.py::test_a_class_that_a_function_makes_is_refused"],
    ),
    "captured-variables-count": Mutation(
        "captured variables count",
        drop(),
        ["cache/test_identity.py::test_captured_variables_count"],
    ),
    "a-wrapper-of-a-cached-function-counts": Mutation(
        "a wrapper of a cached function counts by its own code",
        become("return True"),
        ["cache/test_identity.py::test_captured_variables_count"],
    ),
    "only-marks-are-forgotten": Mutation(
        "only marks are forgotten",
        holds(False),
        ["cleanup/test_removal.py::test_a_users_file_among_the_marks_of_sweeps_stays"],
    ),
    "no-thread-waits-for-itself": Mutation(
        "no thread waits for a task of its own",
        holds(False),
        ["cache/test_async_cache.py::test_a_plain_call_does_not_wait_for_a_task_of_its_thread"],
    ),
    "a-fork-waits-for-who-imports": Mutation(
        "a fork waits for a thread that imports a module",
        drop(),
        ["cache/test_loading.py::test_a_child_of_a_fork_beside_an_import_can_import"],
    ),
    "claims-without-a-save-go": Mutation(
        "claims without a save go",
        become("return"),
        ["checkpoints/test_hazards.py::test_claims_without_saves_do_not_grow_the_folder"],
    ),
    "epochs-grow-after-a-removal": Mutation(
        "epochs grow after a removal",
        become("return 1"),
        ["checkpoints/test_hazards.py::test_epochs_grow_after_many_quick_claims_and_a_removal"],
    ),
    "links-have-no-long-component": Mutation(
        "links have no long component",
        holds(True),
        ["modelstore/test_versions.py::test_the_text_of_a_link_comes_back"],
    ),
    "local-classes-are-no-keys": Mutation(
        "local classes are no keys",
        holds(False),
        ["cache/test_keys.py::test_local_classes_of_one_name_are_refused"],
    ),
    "no-claim-in-a-folder-that-goes": Mutation(
        "no claim in a folder that goes",
        holds(False),
        ["checkpoints/test_retention.py::test_no_save_is_acknowledged_in_a_folder_that_goes"],
    ),
    "no-more-buffers-than-a-call-takes": Mutation(
        "no more buffers than a call takes",
        instead("views[first : first + _MAX_BUFFERS]", "views[first:]"),
        ["mount/test_files.py::test_more_buffers_than_one_call_takes_are_written_in_order"],
    ),
    "only-a-quick-answer-sets-the-clock": Mutation(
        "only a quick answer sets the clock",
        holds(False),
        ["mount/test_files.py::test_a_freeze_after_a_create_does_not_set_the_clock_back"],
    ),
    "only-a-snapshots-own-links-are-followed": Mutation(
        "only a snapshots own links are followed",
        holds(False),
        ["modelstore/test_source.py::test_other_links_of_a_snapshot_are_refused"],
    ),
    "only-abandoned-staged-files-are-swept": Mutation(
        "only abandoned staged files are swept",
        holds(True),
        ["datasets/test_sweep.py::test_a_staged_file_goes_after_a_day_and_parts_stay"],
    ),
    "two-paths-to-one-root-share-its-byte-locks": Mutation(
        "two paths to one root share its byte locks",
        first('folder = f"{mount.path}/../{os.path.basename(mount.path)}/{folder}"'),
        ["mount/test_lock.py::test_a_folder_made_again_has_its_own_byte_locks"],
    ),
    "another-path-to-the-root-is-another-process": Mutation(
        "another path to the root is another process",
        holds(False),
        ["mount/test_lock.py::test_another_path_to_the_root_is_as_another_process"],
    ),
    "what-a-partial-fixes-counts": Mutation(
        "what a partial fixes counts",
        instead("(*fixed, *args)", "args"),
        ["cache/test_keys.py::test_a_bound_method_is_known_by_what_it_is_bound_to"],
    ),
    "a-dtype-is-described-completely": Mutation(
        "a dtype is described completely",
        holds(True),
        ["cache/test_arguments.py::test_dtypes_that_share_their_text_are_two"],
    ),
    "a-long-double-of-another-machine-is-not-read": Mutation(
        "a long double of another machine is not read",
        holds(False),
        ["cache/test_codec_kinds.py::test_a_long_double_of_another_machine_is_not_taken_for_ours"],
    ),
    "a-result-is-of-its-keys-version": Mutation(
        "a result is of its keys version",
        without("are_current"),
        ["cache/test_identity.py::test_a_result_that_outlived_its_version_is_not_kept"],
    ),
    "a-wrapper-is-trusted-by-its-code-alone": Mutation(
        "a wrapper is trusted by its code alone",
        without("hands_on_to", "_hands_on"),
        ["cache/test_arguments.py::test_a_wrapped_function_gives_what_it_gives_undecorated"],
    ),
    "a-member-is-one-in-every-process": Mutation(
        "a member of an enum is one in every process",
        become('return own.get("_member_map_", {}).get(name)'),
        [
            "cache/test_codec_kinds.py::test_a_member_that_only_this_process_has_is_refused",
        ],
    ),
    "a-flag-has-its-members-bits-alone": Mutation(
        "a flag that is kept has its members' bits alone",
        holds(False),
        [
            "cache/test_codec_kinds.py::test_a_member_that_only_this_process_has_is_refused",
            "cache/test_codec_kinds.py::test_a_flags_bits_that_no_member_has_are_refused",
        ],
    ),
    "no-finalizer-runs-on-what-was-read": Mutation(
        "no finalizer runs on what was read",
        holds(False),
        ["cache/test_codec_kinds.py::test_no_code_of_a_class_runs_while_bytes_are_read"],
    ),
    "no-hash-of-a-class-runs-on-what-was-read": Mutation(
        "no hash of a class runs on what was read",
        holds(False),
        ["cache/test_codec_kinds.py::test_no_code_of_a_class_runs_while_bytes_are_read"],
    ),
    "a-scalars-class-counts": Mutation(
        "the class of a numpy scalar counts",
        holds(False),
        ["cache/test_arguments.py::test_a_scalar_of_a_derived_class_counts_by_its_class"],
    ),
    "attributes-of-an-instance-count": Mutation(
        "what an instance holds besides its fields counts",
        become(
            "for group in (names,):\n"
            "        _encode_ordered({name: getattr(value, name) for name in group}, add, depth)"
        ),
        ["cache/test_arguments.py::test_all_that_an_instance_holds_counts_but_what_its_use_sets"],
    ),
    "numpy-scalars-have-tags": Mutation(
        "numpy scalars have tags",
        instead('add(b"nU")', "pass"),
        ["cache/test_arguments.py::test_every_keys_bytes_parse_back"],
    ),
    "padding-is-no-part-of-a-number": Mutation(
        "padding is no part of a number",
        become("return native"),
        ["cache/test_arguments.py::test_the_padding_of_a_long_double_does_not_count"],
    ),
    "a-broken-item-does-not-count": Mutation(
        "a broken item does not count",
        become("return True"),
        ["checkpoints/test_loops.py::test_a_broken_item_does_not_count_in_a_later_save"],
    ),
    "a-model-published-again-keeps-its-current": Mutation(
        "a model published again keeps its current",
        holds(False),
        ["modelstore/test_labels.py::test_a_model_published_while_it_is_removed_stays"],
    ),
    "a-second-loop-needs-a-name": Mutation(
        "a second loop needs a name",
        holds(False),
        ["checkpoints/test_loops.py::test_a_second_loop_needs_a_name"],
    ),
    "a-name-beside-a-loop-without-one": Mutation(
        "a name beside a loop without one is refused",
        holds(False),
        [
            "checkpoints/test_several_loops.py::test_a_name_beside_a_loop_without_one_is_refused",
        ],
    ),
    "an-except-clause-may-hold-items-back": Mutation(
        "an except clause of a generator may hold items back",
        become("pass"),
        ["checkpoints/test_several_loops.py::test_a_generator_that_keeps_bad_items_for_later"],
    ),
    "a-second-loop-of-a-name-goes-on": Mutation(
        "a second loop of a name goes on",
        become("pass"),
        ["checkpoints/test_several_loops.py::test_a_loop_that_is_tried_again_goes_on"],
    ),
    "a-second-loop-repeats-items-read-ahead": Mutation(
        "a second loop does the items that were read ahead",
        holds(False),
        ["checkpoints/test_several_loops.py::test_items_that_were_read_ahead_come_again"],
    ),
    "no-items-after-the-block": Mutation(
        "no items are given after the block",
        holds(False),
        ["checkpoints/test_several_loops.py::test_no_items_are_given_after_the_block"],
    ),
    "a-shorter-source-is-not-finished": Mutation(
        "a shorter source is not finished",
        holds(False),
        ["checkpoints/test_loops.py::test_a_source_shorter_than_what_was_done_is_an_error"],
    ),
    "an-error-outside-the-loop-counts-nothing": Mutation(
        "an error outside the loop counts nothing",
        become("is_in_loop = True"),
        ["checkpoints/test_loops.py::test_an_error_after_a_break_counts_nothing_more"],
    ),
    "new-items-before-the-position-are-seen": Mutation(
        "new items before the position are seen",
        holds(False),
        ["checkpoints/test_loops.py::test_new_items_before_the_position_are_an_error"],
    ),
    "no-item-is-begun-after-the-margin": Mutation(
        "no item is begun after the margin",
        holds(False),
        ["checkpoints/test_loops.py::test_the_deadline_is_looked_at_after_the_next_item"],
    ),
    "none-is-no-position": Mutation(
        "none is no position",
        holds(False),
        ["checkpoints/test_loops.py::test_none_is_no_position"],
    ),
    "a-waiter-leaves-no-lock-taken": Mutation(
        "a waiter that an alarm interrupts leaves no lock taken",
        instead("process.Latch()", "threading.Event()"),
        ["cache/test_single_flight.py::test_an_alarm_of_a_waiter_does_not_stop_who_computes"],
    ),
    "no-call-begins-after-the-stop": Mutation(
        "no call begins after the stop",
        drop(),
        ["floor/test_parallel.py::test_a_stop_waits_for_what_began_and_begins_nothing"],
    ),
    "calls-that-were-begun-are-waited-for": Mutation(
        "calls that were begun are waited for",
        holds(False),
        ["floor/test_parallel.py::test_a_stop_waits_for_what_began_and_begins_nothing"],
    ),
    "no-coroutine-is-taken-for-a-result": Mutation(
        "no coroutine is taken for a result",
        holds(False),
        ["checkpoints/test_map.py::test_a_coroutine_is_no_result"],
    ),
    "a-position-is-found-again": Mutation(
        "a position is found again",
        holds(False),
        ["checkpoints/test_loops.py::test_a_position_equals_itself"],
    ),
    "other-threads-are-refused": Mutation(
        "other threads are refused",
        holds(False),
        ["checkpoints/test_loops.py::test_consumers_that_work_on_several_items_are_refused"],
    ),
    "pools-are-refused": Mutation(
        "pools are refused",
        holds(False),
        ["checkpoints/test_loops.py::test_consumers_that_work_on_several_items_are_refused"],
    ),
    "the-deadline-holds-while-skipping": Mutation(
        "the deadline holds while skipping",
        holds(False),
        ["checkpoints/test_loops.py::test_skipping_that_takes_the_invocation_is_an_error"],
    ),
    "the-watermark-passes-no-open-item": Mutation(
        "the watermark passes no open item",
        without("is_done"),
        ["checkpoints/test_map.py::test_an_error_loses_no_item"],
    ),
    "an-item-taken-in-the-body-is-read-ahead": Mutation(
        "a body that takes a further item reads ahead",
        holds(False),
        ["checkpoints/test_consumers.py::test_a_body_that_takes_another_item_reads_ahead"],
    ),
    "iterators-that-take-several-read-ahead": Mutation(
        "an iterator that takes several items in a step reads ahead",
        holds(False),
        ["checkpoints/test_consumers.py::test_items_that_are_kept_for_later_do_not_count"],
    ),
    "a-loop-in-a-generator-may-hold-items-back": Mutation(
        "a generator that keeps items reads ahead",
        holds(False),
        ["checkpoints/test_consumers.py::test_items_that_are_kept_for_later_do_not_count"],
    ),
    "generators-that-hold-items-back-read-ahead": Mutation(
        "an async generator that keeps items reads ahead",
        holds(False),
        ["checkpoints/test_consumers.py::test_async_generators_that_keep_items_do_not_count"],
    ),
    "a-position-is-the-loops-own": Mutation(
        "a position that its source changes in place is copied",
        become("return position"),
        ["checkpoints/test_resume.py::test_a_position_that_is_changed_in_place_loses_no_item"],
    ),
    "a-source-gets-a-position-of-its-own": Mutation(
        "a source gets a position of its own",
        become("return self.position"),
        ["checkpoints/test_resume.py::test_a_save_after_a_broken_first_item_keeps_the_position"],
    ),
    "a-position-that-is-given-is-a-copy": Mutation(
        "a position that is given to its user is a copy",
        instead("own(", "("),
        ["checkpoints/test_resume.py::test_a_position_that_was_read_and_changed_stays_as_it_was"],
    ),
    "len-says-nothing-of-the-items": Mutation(
        "what len says of a source is not trusted",
        become("passed = step; self._passed += step"),
        ["checkpoints/test_resume.py::test_what_len_says_is_not_trusted"],
    ),
    "loops-that-begin-together-run-in-turn": Mutation(
        "loops that begin together run in turn",
        drop(),
        ["checkpoints/test_several_loops.py::test_loops_that_are_read_together_are_refused"],
    ),
    "a-skipped-item-is-a-copy": Mutation(
        "a skipped item is a copy",
        become("return item"),
        ["checkpoints/test_loops.py::test_a_skipped_item_that_its_source_changes_is_a_copy"],
    ),
    "a-delay-line-holds-items-back": Mutation(
        "a generator that gives items late reads ahead",
        instead("loop.gives_earlier_items()", "False"),
        ["checkpoints/test_consumers.py::test_items_that_are_kept_for_later_do_not_count"],
    ),
    "what-is-read-ahead-is-not-saved": Mutation(
        "what is read ahead is not saved",
        holds(False),
        ["checkpoints/test_loops.py::test_consumers_that_read_ahead_lose_nothing"],
    ),
    "a-zones-name-is-no-path": Mutation(
        "a zone's name is no path",
        without("_is_zone_name"),
        ["cache/test_codec_kinds.py::test_zones_of_dateutil_are_not_read_from_any_path"],
    ),
    "a-mutex-excludes-threads-too": Mutation(
        "a mutex excludes threads too",
        instead("self._thread_lock()", "__import__('threading').Lock()"),
        ["cache/test_mapping.py::test_a_lock_excludes_processes_and_threads"],
    ),
    "files-of-uid-0-are-the-roots-owners": Mutation(
        "files of uid 0 are the roots owners",
        holds(False),
        ["mount/test_root.py::test_files_that_uid_0_creates_are_the_roots_owners"],
    ),
    "no-root-is-created-beside-the-mount": Mutation(
        "no root is created beside the mount",
        holds(False),
        ["mount/test_root.py::test_a_root_below_mnt_is_created_only_on_a_mount"],
    ),
    "results-of-another-root-are-not-served": Mutation(
        "results of another root are not served",
        become("is_moved = False"),
        ["cache/test_environment.py::test_a_changed_root_is_another_cache_at_once"],
    ),
    "a-removal-judges-under-its-fence": Mutation(
        "a removal judges under its fence",
        holds(False),
        ["torture/test_measures.py::test_a_removal_judges_what_it_fenced"],
    ),
    "a-removal-gives-up-for-a-later-claim": Mutation(
        "a removal gives up for a later claim",
        holds(False),
        ["torture/test_measures.py::test_a_removal_that_was_overtaken_takes_its_mark_back"],
    ),
    "an-item-is-skipped-only-if-it-was-noted": Mutation(
        "an item is skipped only if it was noted",
        without("_is_certain"),
        ["torture/test_measures.py::test_an_item_that_nobody_noted_is_not_skipped"],
    ),
    "a-snapshot-without-its-list-is-not-a-forgotten-one": Mutation(
        "a snapshot without its list is not a forgotten one",
        become("if text == text_without_list:", "    return None"),
        ["datasets/test_dataset.py::test_a_snapshot_that_lost_its_list_is_damaged"],
    ),
    "a-prune-reads-every-snapshot-that-is-there": Mutation(
        "a prune reads every snapshot that is there",
        become(
            "try:",
            "    frozen = _find_file(folders, safe)",
            "except CorruptEntryError:",
            "    frozen = None",
        ),
        ["datasets/test_dataset.py::test_prune_removes_nothing_beside_a_damaged_snapshot"],
    ),
    "a-result-counts-for-the-code-that-made-it": Mutation(
        "a result counts for the code that made it",
        instead("digest, *call_id", '"", *call_id'),
        ["adapters/test_joblib.py::test_a_result_of_old_code_is_never_given_to_new"],
    ),
    "a-removal-that-leaves-the-staged-file-fails": Mutation(
        "a removal that leaves the staged file fails",
        instead("claim.staged", "claim.staged, quiet=True"),
        ["datasets/test_dataset.py::test_a_removal_that_cannot_take_a_staged_file_raises"],
    ),
    "a-command-changes-the-checkpoint-that-it-located": Mutation(
        "a command changes the checkpoint that it located",
        holds(True),
        ["cli/test_commands.py::test_a_checkpoint_whose_name_is_unknown_is_not_changed"],
    ),
    "a-break-is-reported-if-there-is-a-new-epoch": Mutation(
        "a break is reported if there is a new epoch",
        become("is_broken = True"),
        ["cli/test_commands.py::test_a_break_that_fences_nobody_is_no_success"],
    ),
    "a-break-that-leaves-the-lock-fails": Mutation(
        "a break that leaves the lock fails",
        instead("layout.LOCK", "layout.LOCK, quiet=True"),
        ["checkpoints/test_checkpoint.py::test_break_claim_that_cannot_free_the_lock_raises"],
    ),
    "a-list-that-the-sweep-took-is-written-again": Mutation(
        "a list that the sweep took is written again",
        become("return"),
        ["datasets/test_dataset.py::test_a_list_that_the_sweep_took_is_written_again"],
    ),
    "a-continued-copy-is-compared-as-a-whole": Mutation(
        "a continued copy is compared as a whole",
        holds(False),
        ["modelstore/test_resuming.py::test_a_damaged_part_is_copied_again"],
    ),
    "a-continued-part-is-compared-as-a-whole": Mutation(
        "a continued part of a publication is compared as a whole",
        holds(False),
        ["modelstore/test_hub.py::test_a_damaged_part_is_fetched_again"],
    ),
    "a-blob-of-the-hub-is-compared": Mutation(
        "a blob of the hub is compared with its digest",
        holds(False),
        ["modelstore/test_hub.py::test_other_bytes_than_the_hub_names_are_refused"],
    ),
    "the-token-is-for-the-hub-alone": Mutation(
        "the hub's token is sent to the hub alone",
        become("is_hubs = True"),
        ["modelstore/test_hub.py::test_a_gated_repository_needs_a_token"],
    ),
    "files-that-another-took-are-copied-again": Mutation(
        "files that another publisher took are copied again",
        holds(False),
        ["modelstore/test_publish.py::test_one_content_under_two_ids_at_once"],
    ),
    "a-stale-folder-is-opened-again": Mutation(
        "a stale folder is opened again",
        holds(False),
        ["modelstore/test_versions.py::test_prune_passes_over_no_version_for_a_stale_handle"],
    ),
    "no-extension-type-is-read": Mutation(
        "no extension type is read",
        holds(False),
        ["cache/test_codec_kinds.py::test_an_extension_type_of_arrow_is_not_read"],
    ),
    "an-image-has-its-bytes": Mutation(
        "an image has its bytes",
        holds(False),
        ["cache/test_codec_kinds.py::test_hostile_frames_and_images_are_value_errors"],
    ),
    "a-zone-of-a-frame-has-its-type": Mutation(
        "a zone of a frame has its type",
        holds(False),
        ["cache/test_codec_kinds.py::test_a_frame_that_arrow_changes_is_refused"],
    ),
    "the-freq-of-an-index-is-kept": Mutation(
        "the freq of a frame's index is kept",
        holds(False),
        ["cache/test_codec_kinds.py::test_a_frame_that_arrow_changes_is_refused"],
    ),
    "objects-of-a-frame-are-compared-exactly": Mutation(
        "objects of a frame are compared exactly",
        become("return list(first) == list(second)"),
        ["cache/test_codec_kinds.py::test_a_frame_that_arrow_changes_is_refused"],
    ),
    "a-frame-has-no-attributes-of-its-own": Mutation(
        "a frame has no attributes of its own",
        become("pass"),
        ["cache/test_library_arguments.py::test_the_attributes_of_a_frame_count"],
    ),
    "an-index-counts": Mutation(
        "an index counts",
        drop(),
        ["cache/test_library_arguments.py::test_content_is_the_key_in_every_process"],
    ),
    "a-columns-dtype-counts": Mutation(
        "a column's dtype counts",
        instead("_describe(series.dtype)", "None"),
        ["cache/test_library_arguments.py::test_content_is_the_key_in_every_process"],
    ),
    "a-missing-value-is-not-a-zero": Mutation(
        "a missing value is not a zero",
        drop(),
        ["cache/test_library_arguments.py::test_content_is_the_key_in_every_process"],
    ),
    "an-image-has-no-attributes-of-its-own": Mutation(
        "an image has no attributes of its own",
        become("pass"),
        ["cache/test_library_arguments.py::test_an_image_that_is_more_than_its_pixels_is_refused"],
    ),
    "changed-exif-is-not-passed-over": Mutation(
        "changed Exif data is not passed over",
        holds(False),
        ["cache/test_library_arguments.py::test_an_image_that_is_more_than_its_pixels_is_refused"],
    ),
    "an-images-mode-counts": Mutation(
        "an image's mode counts",
        instead("value.mode, value.size", "value.size"),
        ["cache/test_library_arguments.py::test_content_is_the_key_in_every_process"],
    ),
    "what-is-rebuilt-has-its-type": Mutation(
        "what is rebuilt has its type",
        holds(False),
        ["cache/test_registered.py::test_from_parts_that_makes_another_type_is_a_miss"],
    ),
    "a-durable-payload-is-the-one-that-was-named": Mutation(
        "a durable payload is the one that was named",
        instead('_digest(payload) != envelope["entry"]', "False"),
        ["adapters/test_durable.py::test_an_entry_under_a_wrong_name_is_refused"],
    ),
    "a-durable-entry-is-bound-to-its-execution": Mutation(
        "a durable entry is bound to its execution",
        instead("context.durable_execution_arn, context.operation_id, content", "content"),
        ["adapters/test_durable.py::test_an_entry_is_of_one_operation"],
    ),
    "a-block-is-of-the-object-that-was-opened": Mutation(
        "a block is of the object that was opened",
        holds(False),
        ["adapters/test_fsspec.py::test_one_file_is_never_of_two_contents"],
    ),
    "a-key-of-a-framework-is-its-text": Mutation(
        "a key of a framework is its text",
        become("return key"),
        [
            f"adapters/test_{name}.py::test_a_key_of_a_subclass_of_str_is_its_text"
            for name in ("aiocache", "cachelib", "dogpile")
        ],
    ),
    "a-counter-expires-when-it-would-have": Mutation(
        "a counter expires when it would have",
        drop(),
        [
            "adapters/test_aiocache.py::test_an_increment_leaves_the_ttl",
            "adapters/test_django.py::test_incr_leaves_the_timeout",
        ],
    ),
    "a-block-in-hand-goes-with-its-number": Mutation(
        "a block in hand goes with its number",
        become("last_index, last_block = self._last[0], self._last[1]"),
        ["adapters/test_fsspec.py::test_a_thread_that_reads_meanwhile_changes_nothing"],
    ),
    "a-window-is-entered-by-the-servers-clock": Mutation(
        "a window is entered by the server's clock",
        holds(True),
        ["records/test_store.py::test_a_process_with_a_fast_clock_waits_for_the_window"],
    ),
    "a-live-claim-is-respected": Mutation(
        "a live claim is respected",
        holds(False),
        ["records/test_store.py::test_a_claim_a_result_and_a_duplicate"],
    ),
    "a-claim-that-is-over-begins-no-run": Mutation(
        "a claim that is over begins no run",
        holds(False),
        ["records/test_store.py::test_a_process_that_sleeps_through_its_claim_does_not_run"],
    ),
    "a-claim-counts-in-its-window-alone": Mutation(
        "a claim counts in its window alone",
        holds(True),
        ["records/test_store.py::test_a_claim_in_a_window_that_is_over_is_made_again"],
    ),
    "a-result-counts-while-others-look": Mutation(
        "a result counts while others look",
        holds(False),
        ["records/test_store.py::test_a_result_after_the_look_back_is_refused"],
    ),
    "a-run-finishes-its-own-claim-alone": Mutation(
        "a run finishes its own claim alone",
        holds(True),
        ["records/test_store.py::test_a_late_run_does_not_end_its_successors_claim"],
    ),
    "a-record-is-closed-in-the-earlier-windows": Mutation(
        "a record is closed in the earlier windows",
        drop(),
        ["records/test_store.py::test_a_successor_in_the_next_window_fences_the_run"],
    ),
    "a-value-is-written-before-it-is-named": Mutation(
        "a value is written before it is named",
        drop(),
        ["records/test_store.py::test_a_value_comes_back"],
    ),
    "a-revision-is-created-exclusively": Mutation(
        "a revision is created exclusively",
        instead("links.create(", "links.replace("),
        ["records/test_store.py::test_a_claim_a_result_and_a_duplicate"],
    ),
    "a-lost-reply-to-a-revision-is-told-from-a-loss": Mutation(
        "a lost reply to a revision is told from a loss",
        holds(False),
        ["records/test_store.py::test_a_lost_reply_is_no_loss"],
    ),
    "a-missing-revision-is-asked-of-the-server": Mutation(
        "a missing revision is asked of the server",
        drop(),
        ["records/test_explorer.py::test_no_order_of_steps_breaks_a_promise"],
    ),
    "a-window-that-counts-is-not-swept": Mutation(
        "a window that counts is not swept",
        holds(False),
        ["records/test_store.py::test_the_sweep_removes_windows_that_count_no_more"],
    ),
    "only-names-of-the-format-are-removed-from-a-large-folder": Mutation(
        "only names of the format are removed from a large folder",
        holds(False),
        ["records/test_store.py::test_the_sweep_leaves_foreign_files_and_names_them"],
    ),
    "an-entry-that-must-stay-is-not-unused": Mutation(
        "an entry that must stay is not unused",
        instead("is_unused and not self.keeps_unused", "is_unused"),
        ["cleanup/test_policy.py::test_what_must_stay_is_not_unused"],
    ),
    "an-unreadable-policy-keeps-unused-entries": Mutation(
        "an unreadable policy keeps unused entries",
        drop(),
        ["cleanup/test_policy.py::test_what_a_policy_cannot_tell_stays"],
    ),
    "a-policy-that-may-be-signed-is-not-written": Mutation(
        "a policy that may be signed is not written",
        holds(False),
        ["cleanup/test_policy.py::test_a_policy_that_may_be_signed_is_left_as_it_is"],
    ),
    "an-alarm-does-not-damage-a-policy": Mutation(
        "an alarm does not damage a policy",
        holds(False),
        ["cleanup/test_policy.py::test_an_alarm_is_no_damage_of_a_policy"],
    ),
    "without-the-key-nothing-is-cleared-for-others": Mutation(
        "without the key nothing is cleared for others",
        holds(False),
        ["cache/test_damage.py::test_without_the_key_nothing_is_cleared_for_others"],
    ),
    "an-entry-that-cannot-be-read-is-not-removed": Mutation(
        "an entry that cannot be read is not removed",
        instead("return True", "return False"),
        ["cli/test_commands.py::test_repair_leaves_what_cannot_be_read_again"],
    ),
    "a-clear-outlasts-its-entries": Mutation(
        "a clear outlasts its entries",
        holds(False),
        ["cleanup/test_removal.py::test_a_killed_removal_brings_no_cleared_value_back"],
    ),
    "a-model-that-lost-its-versions-is-damaged": Mutation(
        "a model that lost its versions is damaged",
        holds(False),
        ["cli/test_commands.py::test_verify_reports_lost_versions"],
    ),
    "a-round-file-that-stays-begins-a-new-round": Mutation(
        "a round's file that stays begins a new round",
        drop(),
        ["cleanup/test_turns.py::test_a_round_that_cannot_be_removed_begins_anew"],
    ),
    "a-policy-is-known-once-it-is-written": Mutation(
        "a policy is known once it is written",
        first(
            "self.shortest = wanted.shortest",
            "self.longest = ENDLESS if wanted.longest is None else wanted.longest",
        ),
        [
            "adapters/test_durable.py::test_no_entry_is_acknowledged_without_its_policy",
            "cache/test_cached.py::test_a_policy_that_could_not_be_written_is_tried_again",
        ],
    ),
}
