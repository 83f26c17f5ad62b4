"""Which test shows what: the acceptance rows of the registry protocol, and known vulnerabilities.

Two tables. `ROWS` are those of annex B of the protocol document, `KNOWN` the vulnerabilities of
other registries and of Ollama that touch names, digests, tokens, headers, uploads, catalog, mount.
A row names the tests that would fail if it did not hold; each is looked for, so that none is lost
when tests are renamed. What a row needs that is not there yet (a mirror, other protocols) is
said in `LATER`, with the reason.
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
OCI, TOKEN, AUTH = "unit/web/test_oci.py", "unit/web/test_token.py", "unit/web/test_auth.py"
UPLOADS, CLIENTS = "unit/services/uploading/test_uploads.py", "integration/test_oci_clients.py"
SIGN_IN, REPLICAS = "integration/test_sign_in.py", "unit/web/test_replicas.py"
PROXIES, PATHS = "integration/test_proxies.py", "unit/web/test_oci_paths.py"
ROLES, ACCOUNTS = "unit/web/test_route_roles.py", "unit/web/test_route_roles_accounts.py"
MANIFEST, NAMES = "unit/core/test_manifest.py", "unit/core/test_names.py"
HOSTILE = "unit/web/test_hostile.py"
UPSTREAM = "unit/adapters/test_upstream_http.py"
DIRECT, STORE = "unit/web/test_oci_direct.py", "integration/test_s3_direct.py"

Tests = dict[str, tuple[str, ...]]
"""By file, the names without their `test_`."""

ROWS: dict[int, tuple[str, Tests]] = {
    1: ("ollama pushes, removes, pulls: TLS with a private authority, http, odd names, replicas", {
        PROXIES: ("ollama_pushes_and_pulls",),
        SIGN_IN: ("an_ollama_client_pushes_and_pulls_with_its_own_key",),
        REPLICAS: ("a_push_goes_on_at_whichever_replica_is_next",)}),
    2: ("blobs of 0 B to 1.7 GB in parts", {
        "integration/test_large_blobs.py": ("a_blob_is_pushed_in_parts_and_pulled_in_parts",)}),
    3: ("every full GET has Location; parts need no Authorization", {
        OCI: ("every_whole_blob_bears_its_direct_url",),
        "unit/web/test_blob_host.py": ("a_private_blob_is_read_there_without_credentials",)}),
    4: ("an object store under another host name, or the same", {
        DIRECT: ("a_whole_blob_has_its_address_in_the_store",
                 "heads_ranges_and_small_blobs_are_answered_here",
                 "the_settings_say_who_is_sent_to_the_store"),
        STORE: ("ollama_pushes_and_pulls_through_two_replicas",)}),
    5: ("a lost answer of PATCH or commit", {
        UPLOADS: ("the_last_chunk_sent_again_changes_nothing",
                  "a_commit_may_bear_the_last_chunk_again",
                  "a_repeated_commit_gets_the_same_answer")}),
    6: ("equal chunks at two replicas", {
        UPLOADS: ("two_equal_chunks_at_once_are_one",
                  "of_two_replicas_that_receive_the_same_chunk_the_first_wins")}),
    7: ("parts in any order, sent again, missing", {
        "unit/services/uploading/test_direct.py": (
            "parts_sent_in_any_order_become_a_blob",
            "a_commit_without_all_parts_is_refused_and_the_session_goes_on"),
        DIRECT: ("a_missing_part_is_400_and_the_session_goes_on",)}),
    8: ("an early answer to a body that is still being sent", {
        "unit/server/test_protocol.py": ("an_early_answer_lets_the_client_finish",
                                         "an_early_answer_to_an_endless_body_ends_the_connection"),
        STORE: ("ollama_pushes_and_pulls_through_two_replicas",)}),
    9: ("a commit that takes minutes", {
        "unit/services/uploading/test_direct.py": (
            "a_long_verification_goes_on_while_its_client_waits",
            "a_repeated_commit_gets_the_same_answer"),
        UPLOADS: ("a_long_verification_is_answered_with_ask_again",
                  "two_commits_at_once_both_succeed")}),
    10: ("POST with a digest", {
        OCI: ("a_blob_in_one_request", "a_wrong_blob_in_one_request_is_not_kept",
              "an_announced_blob_without_body_begins_a_session")}),
    11: ("a tensor in one request to the store, which checks it", {
        DIRECT: ("a_tensor_goes_to_the_store_in_one_request",
                 "a_blob_over_the_limit_is_refused_when_it_is_announced"),
        "unit/services/uploading/test_direct.py": (
            "what_the_store_cannot_check_is_not_sent_there_whole",),
        STORE: ("tensors_go_to_the_store_in_one_request_each",)}),
    12: ("mounts of what is foreign, unknown, forbidden", {
        OCI: ("a_blob_is_mounted_or_uploaded",),
        AUTH: ("a_blob_is_mounted_only_from_where_it_may_be_read",
               "a_digest_alone_is_not_a_way_to_a_blob")}),
    13: ("signed token requests", {
        TOKEN: ("the_vector_of_the_specification",
                "a_signature_that_is_not_of_this_request_now_is_refused",
                "a_nonce_is_good_once_and_clocks_may_differ_by_minutes",
                "what_was_signed_for_another_registry_cannot_be_passed_on",
                "a_scope_given_twice_counts_once_and_several_are_all_granted",
                "an_unknown_key_may_read_what_is_public_and_not_push_it",
                "an_unknown_key_gets_a_sentence_with_its_fingerprint_and_a_link"),
        REPLICAS: ("a_nonce_is_good_once_for_all_of_them",)}),
    14: ("a storm of 401 ends", {AUTH: ("refusals_end",)}),
    15: ("what the conformance program asks, in its order (itself runs outside the checkout)", {
        OCI: ("the_order_of_the_conformance_program", "referrers_are_listed_and_filtered",
              "lists_come_in_pages", "ranges", "deleting_a_tag_leaves_the_manifest",
              "a_manifest_is_put_by_digest_and_under_more_tags")}),
    16: ("skopeo, oras, curl, docker's handshake: right, wrong and no credentials", {
        CLIENTS: ("skopeo_copies_images_and_models_in_and_out",
                  "oras_pushes_an_artifact_and_what_refers_to_it",
                  "curl_comes_with_a_name_and_a_password_or_an_api_key",
                  "the_handshake_of_docker_login"),
        SIGN_IN: ("skopeo_signs_in_with_password_and_api_key",
                  "what_is_public_is_pulled_with_any_key_or_none")}),
    18: ("collecting while pushing", {
        REPLICAS: ("no_manifest_refers_to_what_was_collected_meanwhile",)}),
    20: ("hostile paths", {
        PATHS: ("hostile_and_unknown_paths_cost_one_error",),
        NAMES: ("hostile_repository_paths_are_refused",),
        OCI: ("a_session_of_another_repository_is_unknown", "errors_have_their_status_and_code")}),
}  # fmt: skip

LATER = {
    17: "the surface of Hugging Face's hub is another issue",
    19: "the mirror is another issue",
}

KNOWN: dict[str, Tests] = {
    "CVE-2024-37032, CVE-2026-7020: a digest becomes a path": {
        "unit/core/test_digest.py": ("every_other_text_is_refused",),
        "contract/blobs.py": ("a_key_that_cannot_be_one_names_nothing",),
        PATHS: ("hostile_and_unknown_paths_cost_one_error",),
        HOSTILE: ("no_spelling_of_a_digest_leaves_the_folder",)},
    "CVE-2025-44779: deleting by path": {
        OCI: ("errors_have_their_status_and_code",), HOSTILE: ("no_delete_reaches_a_file",)},
    "CVE-2024-39722, -39719: errors tell what exists": {
        AUTH: ("absent_and_forbidden_look_alike",),
        ACCOUNTS: ("who_is_refused_is_told_nothing_of_others",)},
    "CVE-2024-12886: compressed bodies": {HOSTILE: ("a_compressed_body_is_taken_as_it_is",)},
    "CVE-2025-1975: arrays of a manifest": {
        MANIFEST: ("a_bad_manifest_costs_one_clear_error", "the_number_of_layers_is_bounded",
                   "whatever_the_bytes_it_is_a_manifest_or_one_error")},
    "CVE-2025-51471, CVE-2026-33540: credentials sent to another host": {
        UPSTREAM: ("a_realm_elsewhere_is_not_asked", "a_token_is_not_sent_to_an_upload_elsewhere"),
        TOKEN: ("what_was_signed_for_another_registry_cannot_be_passed_on",)},
    "ollama#15485: one digest twice": {
        "unit/services/transfers/test_pull.py": ("config_and_layer_may_be_one_blob",),
        HOSTILE: ("a_digest_that_comes_twice_must_have_one_size",)},
    "CVE-2025-63389: management without authentication": {
        ROLES: ("the_table_is_true",),
        ACCOUNTS: ("the_table_is_true",
                   "every_route_of_the_application_has_a_line_in_one_of_the_tables")},
    "CVE-2024-28224: DNS rebinding": {
        "unit/web/test_guard.py": ("only_own_host_names_are_taken_on_loopback",)},
    "CVE-2017-11468: unbounded bodies": {
        "unit/web/test_reading.py": ("what_turns_out_larger_is_read_no_further",),
        OCI: ("a_manifest_over_the_limit_is_refused",),
        UPLOADS: ("a_blob_over_the_limit_is_refused",)},
    "CVE-2023-2253: memory of _catalog": {HOSTILE: ("the_size_of_a_page_is_clamped",)},
    "CVE-2025-24976: keys from the token": {
        "unit/services/access/test_tokens.py": ("forged_tokens_are_refused",)},
    "CVE-2026-35172: a stale cache after a delete": {
        "unit/web/test_hot.py": ("an_answer_is_kept_until_something_is_written",),
        REPLICAS: ("a_push_goes_on_at_whichever_replica_is_next",)},
    "GO-2022-0379: one digest, two kinds": {
        MANIFEST: ("the_media_type_is_the_one_that_body_and_sender_agree_on",)},
    "zot CVE-2024-39897: any blob by its digest": {
        AUTH: ("a_digest_alone_is_not_a_way_to_a_blob",
               "a_blob_that_was_deleted_here_is_not_read_through_another_s_model")},
    "zot CVE-2025-23208: rights that were taken away": {
        TOKEN: ("a_right_that_was_taken_away_is_gone_at_once",
                "a_token_of_a_key_ends_with_the_key")},
    "zot CVE-2026-31801: making a tag and moving one": {
        AUTH: ("making_a_tag_and_moving_one_are_two_rights",)},
    "zot CVE-2025-48374: secrets in logs": {
        "unit/web/test_auditing.py": ("no_secret_is_logged_noted_or_told",)},
    "Harbor CVE-2019-16097: administrator by one field more": {
        "unit/web/test_api_v1.py": ("a_hostile_body_costs_one_error",)},
    "Harbor CVE-2022-31667: objects of others by id": {
        "unit/web/test_pages.py": ("keys_of_others_are_not_there",),
        "unit/web/test_api_v1.py": ("the_token_of_another_is_not_there",),
        ACCOUNTS: ("the_table_is_true",)},
    "Harbor CVE-2024-22244: open redirect": {
        "unit/web/test_pages.py": ("no_redirect_leads_elsewhere",)},
    "Harbor CVE-2020-13794: who exists": {
        "unit/web/test_pages.py": ("a_wrong_name_and_a_wrong_password_take_as_long",),
        "unit/services/access/test_callers.py": ("wrong_and_unknown_look_alike",)},
    "Harbor: a default password": {
        "unit/services/access/test_people.py": ("the_set_up_code_makes_one_administrator",)},
    "Starlette CVE-2025-62727: many ranges": {
        "unit/core/test_ranges.py": ("a_header_that_is_not_a_single_range_asks_for_all",),
        HOSTILE: ("many_ranges_are_answered_with_the_whole",)},
    "Starlette CVE-2026-48710: strange Host headers": {
        "unit/web/test_blob_host.py": ("strange_hosts_never_change_an_address",),
        TOKEN: ("the_host_header_does_not_change_what_a_signature_must_cover",)},
}  # fmt: skip


def missing(tests: Tests) -> list[str]:
    """Those that are in no file."""
    found = []
    for file, names in tests.items():
        text = (TESTS / file).read_text() if (TESTS / file).exists() else ""
        found += [
            f"{file}::test_{name}"
            for name in names
            if not re.search(rf"^ *(async )?def test_{name}\(", text, re.MULTILINE)
        ]
    return found


def test_every_row_of_the_annex_is_tried_or_has_its_reason() -> None:
    assert ROWS.keys() | LATER.keys() == set(range(1, 21))
    assert not ROWS.keys() & LATER.keys()


@pytest.mark.parametrize("tests", [tests for _, tests in ROWS.values()], ids=map(str, ROWS))
def test_the_tests_of_a_row_are_there(tests: Tests) -> None:
    assert missing(tests) == []


@pytest.mark.parametrize("tests", KNOWN.values(), ids=KNOWN)
def test_the_tests_of_a_known_vulnerability_are_there(tests: Tests) -> None:
    assert missing(tests) == []
