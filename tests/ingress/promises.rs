//! What is promised under attack and under faults, and the tests that hold it.
//!
//! A promise without a test is open, and ARCHITECTURE.md says so.

use std::path::Path;

/// A promise, and the functions that fail when it does not hold; none: it is open.
const PROMISES: &[(&str, &[&str])] = &[
    (
        "one reading of a message's length",
        &[
            "a_request_with_both_lengths_is_refused_in_either_order",
            "only_exactly_chunked_is_a_transfer_coding",
            "a_length_is_digits_and_nothing_else",
            "chunks_over_http_1_0_are_refused",
            "what_is_to_the_letter_is_taken_however_unusual",
            "a_response_whose_length_can_be_read_in_two_ways_is_a_502",
            "of_both_lengths_the_chunks_count_and_the_connection_is_not_used_again",
            "equal_lengths_become_one",
            "every_way_to_end_a_response_is_understood",
        ],
    ),
    (
        "strict chunks",
        &[
            "a_faulty_chunk_is_refused_and_nothing_after_it_is_read",
            "chunk_extensions_are_bounded_and_hide_no_line_end",
            "a_faulty_body_closes_the_connection_whoever_was_asked",
            "a_faulty_body_never_becomes_a_whole_call_of_the_api",
            "a_body_that_its_client_ends_early_is_never_whole",
            "a_faulty_chunk_of_a_backend_is_a_cut",
        ],
    ),
    (
        "trailers stay trailers",
        &[
            "trailers_of_a_request_reach_the_backend",
            "trailers_of_a_response_reach_the_client",
            "trailers_that_frame_route_or_vouch_go_no_further",
            "a_call_of_grpc_passes_with_its_trailers",
            "faulty_trailers_are_refused",
        ],
    ),
    (
        "malformed heads are refused",
        &[
            "malformed_requests_are_answered_and_closed",
            "a_first_line_has_two_spaces_and_no_more",
            "other_versions_are_refused",
            "a_field_is_a_name_a_colon_and_a_value_without_controls",
            "a_target_passes_to_the_byte_or_is_refused",
            "a_response_that_is_not_to_the_letter_is_a_502",
            "a_head_without_end_is_a_502",
        ],
    ),
    (
        "underscores shadow nothing",
        &[
            "a_stranger_cannot_speak_for_a_proxy",
            "whatever_a_stranger_sends_only_our_word_about_it_is_forwarded",
            "names_with_underscores_that_shadow_ours_are_dropped",
        ],
    ),
    (
        "expectations",
        &[
            "another_expectation_is_a_417",
            "a_client_that_waits_for_leave_to_send_gets_it",
            "an_expectation_that_is_not_met_leaves_no_body_behind",
            "no_byte_is_lost_between_leave_to_send_and_the_answer",
            "leave_to_send_a_large_body_is_given_first",
        ],
    ),
    (
        "early answers",
        &[
            "an_answer_before_the_end_of_the_upload_reaches_the_client",
            "an_answer_over_http2_before_the_end_of_the_upload_arrives_whole",
            "an_early_answer_reaches_a_client_that_is_still_sending",
            "an_early_answer_to_a_small_upload_keeps_the_connection_in_step",
            "a_body_that_is_declared_too_large_is_a_413_before_the_backend_is_asked",
            "an_answer_comes_through_before_the_end_of_the_upload",
            "a_large_upload_goes_on_beside_its_early_answer",
        ],
    ),
    (
        "a backend's extra bytes",
        &[
            "a_connection_with_bytes_beyond_its_answer_is_not_used_again",
            "what_a_backend_sends_unasked_is_nobodys_answer",
            "a_second_final_response_or_a_late_interim_one_is_dropped",
            "a_server_that_speaks_first_on_a_kept_connection_is_not_believed",
            "interim_responses_are_bounded_and_frame_nothing",
            "what_comes_behind_a_large_answer_belongs_to_nobody",
        ],
    ),
    (
        "hop-by-hop fields",
        &[
            "what_belongs_to_one_connection_goes_no_further",
            "our_own_fields_cannot_be_nominated_away",
            "fields_of_one_connection_go_no_further",
            "what_makes_a_request_ours_cannot_be_named_away",
            "of_te_only_trailers_pass",
            "whatever_a_client_names_nothing_of_its_connection_reaches_the_backend",
            "whatever_a_backend_names_nothing_of_its_connection_reaches_the_client",
        ],
    ),
    (
        "upgrades",
        &[
            "no_byte_reaches_the_backend_as_a_tunnel_before_it_agreed",
            "http2_is_not_negotiated_through_us",
            "an_upgrade_over_http_1_0_is_ignored",
            "a_tunnel_that_nobody_asked_for_is_a_502",
            "an_upgrade_passes_only_if_it_is_asked_for_in_full",
            "a_switch_that_nobody_asked_for_is_a_502",
            "a_switch_to_something_else_than_asked_for_is_a_502",
            "a_websocket_to_a_server_that_speaks_both_goes_over_http1",
            "a_websocket_to_an_h2c_backend_that_takes_some_goes_over_a_stream",
            "a_websocket_to_an_h2c_backend_that_takes_none_is_a_502_that_says_why",
        ],
    ),
    (
        "one authority",
        &[
            "a_request_without_a_host_is_a_400",
            "a_request_with_two_hosts_is_a_400",
            "an_absolute_target_wins_over_the_host_field",
            "an_absolute_target_with_user_information_is_a_400",
        ],
    ),
    (
        "lookalike hosts",
        &[
            "a_host_that_only_ends_like_ours_is_unknown",
            "more_than_one_label_before_our_hosts_leads_nowhere",
        ],
    ),
    (
        "TLS: names, hosts, tickets, versions",
        &[
            "the_name_picks_the_certificate_an_exact_one_before_a_wildcard",
            "a_name_without_a_certificate_ends_with_the_alert_that_says_so",
            "a_request_for_a_host_that_the_certificate_does_not_cover_is_misdirected",
            "both_versions_are_spoken_and_none_below",
            "a_session_goes_on_over_any_worker_and_never_under_another_name",
            "no_ticket_allows_early_data",
            "a_whole_answer_ends_in_order_and_a_cut_one_does_not",
        ],
    ),
    (
        "certificates: reloads and broken files",
        &[
            "a_hundred_reloads_under_load_fail_nothing",
            "a_broken_pair_keeps_the_last_good_one_and_says_so",
            "a_pair_that_is_bad_at_the_start_is_told_of_and_keeps_no_other_from_its_names",
            "what_is_no_pair_leaves_the_last_good_one",
            "a_link_that_leads_elsewhere_is_a_change",
        ],
    ),
    (
        "HTTP/2 is the same house",
        &[
            "http2_with_prior_knowledge_is_served_beside_http1_on_one_port",
            "what_we_answer_ourselves_is_the_same_over_http2",
            "limits_of_requests_over_http2_are_those_over_http1",
            "bodies_and_trailers_pass_both_ways",
            "a_hundred_requests_at_once_get_their_own_answers",
            "one_connection_of_http2_carries_requests_of_many_apps_at_their_own_pace",
            "a_websocket_over_http2_reaches_a_backend_that_speaks_http1",
            "a_handshake_over_http2_that_is_not_granted_is_no_success",
        ],
    ),
    (
        "from HTTP/2 to HTTP/1.1",
        &[
            "a_malformed_request_over_http2_is_reset_and_goes_no_further",
            "a_body_that_is_not_as_long_as_it_says_never_arrives_whole",
            "a_name_or_value_that_no_field_has_ends_the_connection_and_goes_no_further",
            "pseudo_fields_in_trailers_go_no_further",
            "a_trailer_whose_name_is_no_token_goes_no_further",
            "two_hosts_or_a_bad_one_are_a_400",
            "cookies_that_came_in_crumbs_are_one_field",
        ],
    ),
    (
        "frames to the letter",
        &[
            "a_frame_of_the_wrong_size_ends_the_connection",
            "a_fault_of_the_connection_ends_it_with_its_code",
            "a_window_that_grows_too_large_is_an_error_of_whose_it_is",
            "of_a_message_that_has_ended_no_more_is_taken",
            "a_block_that_cannot_be_read_ends_the_connection",
            "the_first_frame_is_settings",
            "what_is_unusual_and_to_the_letter_is_taken",
            "more_requests_at_once_than_allowed_are_refused_and_can_be_sent_again",
        ],
    ),
    (
        "resets over budget",
        &[
            "resets_over_budget_end_the_connection_and_leave_no_request_behind",
            "resets_that_we_are_led_to_end_the_connection_too",
        ],
    ),
    (
        "floods of frames",
        &[
            "floods_of_frames_that_carry_nothing_are_ended",
            "each_kind_of_flood_is_too_much_and_what_carries_messages_is_not",
            "a_block_of_fields_without_end_is_ended",
        ],
    ),
    (
        "blocks of fields that grow",
        &[
            "a_small_block_that_grows_is_a_431_or_the_end",
            "crumbs_of_cookies_are_fields_like_others",
        ],
    ),
    (
        "slow clients over HTTP/2",
        &[
            "a_slow_or_partial_preface_is_a_head_that_does_not_come",
            "a_frame_or_block_that_stays_half_sent_ends_the_connection",
            "a_request_body_over_http2_that_stops_is_a_408_and_costs_no_other_request",
            "a_connection_without_requests_is_told_to_go",
            "an_answer_whose_window_stays_closed_is_reset",
            "a_slow_reader_over_http2_stops_its_backend",
        ],
    ),
    (
        "slow clients",
        &[
            "a_head_that_comes_drop_by_drop_is_a_408_all_the_same",
            "a_body_that_stops_moving_is_a_408",
            "a_form_that_stops_moving_is_a_408",
            "an_idle_connection_is_closed_without_a_word",
            "a_handshake_that_takes_too_long_is_cut",
            "a_client_that_takes_nothing_of_a_large_answer_is_cut_off",
            "a_large_upload_that_stops_moving_is_a_408",
        ],
    ),
    (
        "sizes",
        &[
            "a_target_over_the_limit_is_a_414",
            "a_target_of_8000_bytes_is_taken_by_default",
            "a_head_over_the_limit_is_a_431",
            "too_many_fields_are_a_431",
            "a_body_that_becomes_too_large_is_a_413_and_never_whole_at_the_backend",
            "a_chunk_that_is_announced_larger_than_the_limit_is_a_413_at_once",
        ],
    ),
    ("decompression", &["a_compressed_form_is_a_415"]),
    (
        "back-pressure",
        &[
            "a_client_that_reads_slowly_holds_the_backend_back",
            "a_backend_that_reads_slowly_holds_the_client_back",
            "a_client_that_reads_slowly_holds_its_stream_back_and_no_other",
            "many_who_read_slowly_get_all_also_where_pipes_are_few",
        ],
    ),
    (
        "injection from parameters",
        &[
            "a_key_that_could_break_a_field_is_refused",
            "any_query_becomes_json_that_parses_and_never_holds_the_key",
        ],
    ),
    (
        "private addresses",
        &[
            "only_what_is_public_is_public",
            "a_backend_on_a_private_address_is_refused_unless_allowed",
            "our_own_listeners_are_no_backends",
            "no_address_of_a_name_is_dialled_that_the_guard_refuses",
        ],
    ),
    (
        "redirects are not followed",
        &[
            "a_redirect_of_the_api_carries_no_token_anywhere",
            "an_answer_that_makes_no_sense_is_a_502",
        ],
    ),
    (
        "open redirects",
        &[
            "a_destination_that_browsers_could_misread_is_a_502",
            "a_target_that_is_no_web_address_is_refused_before_the_token_is_spent",
            "a_refused_token_shows_where_it_would_lead_and_does_not_redirect",
        ],
    ),
    (
        "looking spends no token",
        &["looking_at_a_link_never_spends_its_token"],
    ),
    (
        "loops",
        &[
            "a_request_that_was_here_three_times_is_a_loop",
            "a_call_that_was_here_three_times_is_a_loop",
        ],
    ),
    (
        "the cache holds answers of one id alone",
        &[
            "an_app_and_a_function_of_one_name_are_two",
            "an_answer_asked_for_before_a_write_is_not_believed_after_it",
        ],
    ),
    (
        "made-up names",
        &[
            "whatever_clients_and_backends_send_the_series_are_few_and_name_nothing_of_it",
            "whatever_is_asked_and_answered_the_series_are_no_more_than_there_may_be",
            "the_busiest_apps_and_those_that_are_named_have_series_and_only_those_that_exist",
            "keys_that_are_made_up_take_no_room_and_set_none_free",
            "made_up_names_do_not_push_known_apps_out",
            "an_error_is_never_remembered_as_missing",
            "no_failure_of_the_api_is_remembered_as_a_missing_app",
            "thousands_of_made_up_names_are_a_few_questions_and_known_apps_go_on",
            "a_stale_app_is_served_while_made_up_names_keep_the_api_busy",
            "strangers_fill_their_places_at_the_api_and_no_others",
        ],
    ),
    (
        "stampedes",
        &[
            "many_requests_for_one_app_wait_for_one_call",
            "the_first_caller_may_leave_without_harm_to_the_others",
        ],
    ),
    (
        "forwarding fields",
        &[
            "a_stranger_cannot_name_another_client",
            "what_a_stranger_says_about_who_is_behind_it_is_replaced",
            "what_a_trusted_proxy_says_is_kept_and_added_to",
            "whoever_is_not_trusted_is_closed_and_announces_nobody",
            "a_client_is_trusted_for_what_it_is_and_not_for_who_announces_it",
        ],
    ),
    (
        "no secret leaks",
        &[
            "promtool_has_nothing_to_say_about_a_scrape_and_nothing_of_a_request_is_in_it",
            "no_secret_of_a_client_is_written_down_as_json",
            "no_secret_of_a_client_is_written_down_when_every_library_speaks",
            "no_secret_of_a_client_is_written_down_in_combined",
            "no_secret_of_a_client_is_told_to_a_collector_nor_that_of_the_collector_to_the_log",
            "no_status_is_answered_with_a_secret",
            "an_api_that_answers_with_our_token_does_not_bring_it_into_the_log",
            "a_panic_says_where_it_was_and_nothing_of_the_request",
            "the_token_reaches_nobody_but_the_api",
            "the_api_gets_the_key_of_a_client_as_authorization_and_nowhere_else",
            "our_own_calls_carry_nothing_of_the_client",
            "a_function_that_the_platform_calls_gets_nothing_of_the_caller",
            "no_type_that_holds_a_secret_prints_it",
            "a_request_prints_no_field_that_holds_a_secret",
            "an_answer_to_a_key_in_the_url_is_kept_by_nobody",
        ],
    ),
    (
        "error pages",
        &[
            "nothing_that_the_client_sent_is_shown_unescaped",
            "an_error_never_shows_where_the_backend_or_the_api_is",
        ],
    ),
    (
        "a failing API",
        &[
            "a_known_app_goes_on_while_the_api_fails",
            "a_known_app_goes_on_when_the_api_is_gone",
            "an_api_that_hangs_or_breaks_off_is_a_503",
        ],
    ),
    (
        "a failing backend",
        &[
            "an_address_that_breaks_off_before_it_answers_is_left_out",
            "whoever_is_left_out_is_tried_where_all_others_fail",
            "a_backend_that_refuses_is_a_502",
            "a_backend_that_hangs_is_a_504",
            "a_backend_that_fails_is_a_502",
            "a_head_that_breaks_off_is_a_502",
            "a_backend_that_fails_during_an_upload_is_told_at_once",
            "a_backend_that_hangs_at_any_stage_is_let_go_in_time",
            "a_server_that_speaks_no_http2_is_a_502_and_a_silent_one_a_504",
            "a_response_that_is_none_of_http2_is_a_502",
            "a_flood_of_frames_ends_the_connection_alone",
            "a_server_that_does_not_answer_any_more_is_noticed_while_a_request_waits",
        ],
    ),
    (
        "a cut is seen",
        &[
            "a_response_that_is_cut_is_visibly_cut",
            "a_response_that_stops_moving_is_cut",
            "a_response_that_breaks_off_has_no_clean_end_for_any_client",
            "a_backend_that_breaks_off_resets_its_stream_alone",
            "a_response_that_stops_has_no_clean_end_for_an_old_client",
            "an_answer_that_is_reset_is_a_cut",
            "a_body_of_another_length_than_said_is_a_cut",
            "a_large_answer_that_breaks_off_is_visibly_cut",
            "a_large_answer_that_stops_moving_is_cut",
        ],
    ),
    (
        "one retry",
        &[
            "a_kept_connection_that_breaks_as_it_is_used_is_tried_again_for_a_get",
            "a_kept_connection_that_breaks_as_it_is_used_is_not_tried_again_for_a_post",
            "a_post_of_which_nothing_could_be_written_goes_once_over_a_fresh_connection",
            "a_write_of_which_a_part_has_left_counts_as_written_and_the_next_one_fails",
            "a_get_whose_kept_connection_breaks_is_repeated_once_and_counted",
            "a_token_is_never_sent_twice",
            "what_may_arrive_twice_and_has_no_body_is_tried_once_more",
            "what_must_not_arrive_twice_is_a_502_after_one_attempt",
            "many_dead_connections_cost_one_retry",
            "a_body_is_never_there_twice_in_part",
            "what_the_server_refuses_is_sent_once_more_and_not_twice",
            "what_may_have_arrived_is_not_sent_twice",
            "what_a_goaway_leaves_out_goes_over_another_connection_and_the_rest_is_finished",
        ],
    ),
    (
        "a client that leaves",
        &[
            "when_the_client_leaves_the_backend_is_let_go_within_a_second",
            "when_the_client_leaves_the_api_is_let_go",
            "a_client_that_leaves_takes_its_request_along_at_every_stage",
            "a_reset_cancels_the_backend_at_every_stage",
            "a_client_that_leaves_a_stream_takes_the_backend_along",
            "a_client_that_leaves_a_flood_unread_takes_the_backend_along",
            "a_client_that_resets_an_upload_is_noticed_though_the_backend_does_not_read",
            "a_client_that_closed_its_half_and_waits_for_long_has_left",
            "an_upload_that_is_cut_short_by_closing_a_half_never_looks_whole",
            "a_client_that_leaves_resets_its_stream_within_a_second",
            "a_client_that_leaves_within_a_large_answer_lets_the_backend_go",
            "a_client_that_leaves_within_a_large_upload_lets_the_backend_go",
        ],
    ),
    (
        "the drain",
        &[
            "what_is_in_flight_is_answered_and_then_it_ends",
            "what_is_in_flight_over_http2_is_answered_in_the_drain",
            "the_drain_lets_go_of_clients_that_answer_and_of_those_that_do_not",
            "sigterm_lets_a_request_in_flight_finish",
            "what_takes_longer_than_the_drain_is_cut",
            "a_large_answer_within_a_drain_is_whole",
        ],
    ),
    (
        "reload",
        &[
            "a_hundred_reloads_under_load_lose_nothing_and_leave_nothing",
            "a_hundred_reloads_leave_no_descriptor_no_task_and_no_memory_behind",
            "what_came_by_a_listener_that_is_gone_finishes_and_then_leaves",
            "a_request_ends_with_what_it_began_with",
            "what_cannot_be_taken_over_changes_nothing_and_says_every_reason",
            "sighup_takes_a_good_file_over_and_says_what_is_wrong_with_a_bad_one",
            "a_file_that_is_watched_is_taken_over_and_a_broken_one_reported_once",
            "other_certificates_serve_the_next_handshake_and_connections_live_on",
        ],
    ),
    (
        "upgrade",
        &[
            "a_binary_that_is_replaced_under_load_fails_nobody",
            "an_upload_and_a_websocket_stay_with_the_old_process_until_they_end",
            "a_new_number_of_workers_loses_no_connection",
            "a_new_process_that_fails_leaves_the_old_one_as_it_was",
            "what_the_store_has_before_is_there_after_and_what_is_written_after_is_durable",
            "whoever_waits_at_a_socket_of_systemd_is_served_once_it_has_started",
            "what_reloads_opened_is_handed_over_and_what_they_closed_is_not",
            "an_ingress_that_orders_is_upgraded_and_the_new_process_orders_from_then_on",
            "what_the_process_before_obtains_to_the_end_is_served_and_not_ordered_again",
        ],
    ),
    (
        "no descriptors left",
        &[
            "strangers_are_turned_away_before_the_last_descriptor",
            "without_a_descriptor_left_it_answers_does_not_spin_and_recovers",
            "where_not_even_the_reserve_helps_it_waits_quietly_until_there_are_descriptors",
            "a_process_with_few_descriptors_serves_and_turns_away_what_is_too_much",
        ],
    ),
    (
        "overload",
        &[
            "connections_over_the_limit_are_turned_away",
            "a_client_that_is_turned_away_reads_why_although_it_has_asked_already",
            "a_full_front_door_does_not_shut_out_the_operator",
            "a_worker_that_cannot_keep_up_sheds_the_busiest_app_and_recovers",
        ],
    ),
    (
        "fairness among apps",
        &[
            "an_app_that_hangs_under_a_flood_takes_nothing_from_another",
            "one_app_never_fills_all_connections",
            "others_are_served_while_a_large_body_moves",
        ],
    ),
    (
        "the store",
        &[
            "what_was_acknowledged_outlives_a_kill_and_nothing_is_half_there",
            "a_damaged_store_stops_the_start_and_is_left_as_it_is",
        ],
    ),
    (
        "the access log",
        &[
            "whatever_is_sent_is_one_object",
            "whatever_is_sent_is_one_line_that_tools_for_combined_split",
            "under_load_a_file_that_is_rotated_loses_and_doubles_no_line",
            "on_sigusr1_the_access_log_goes_on_in_a_new_file_without_a_line_lost",
            "on_a_full_disk_lines_are_dropped_and_counted_until_there_is_room",
            "on_a_full_disk_lines_are_lost_whole_wherever_it_became_full",
            "a_pipe_that_is_not_read_costs_lines_and_none_is_torn",
        ],
    ),
    (
        "traces",
        &[
            "a_trace_of_a_stranger_is_linked_and_not_continued",
            "a_trace_of_a_trusted_peer_is_continued_as_it_was_decided_there",
            "a_collector_that_is_down_costs_spans_beyond_the_queue_and_no_request",
            "the_last_spans_are_told_before_the_end",
        ],
    ),
    (
        "on-demand certificates are not abused",
        &[
            "an_unknown_name_never_reaches_the_authority",
            "clients_that_come_together_wait_for_one_order",
            "a_peer_and_all_together_cause_only_so_many_orders",
            "a_name_that_a_wildcard_covers_is_not_ordered",
            "a_name_that_cannot_be_proven_is_not_ordered_at_each_handshake",
            "a_proven_domain_gets_its_certificate_at_the_first_handshake_and_no_other_name_does",
            "a_name_that_is_ordered_anyhow_is_ordered_once",
            "whoever_has_left_keeps_nobody_from_waiting",
        ],
    ),
    (
        "an authority that fails disturbs nothing that is served",
        &[
            "a_failed_order_leaves_what_is_served_and_its_pauses_grow",
            "a_directory_that_is_down_is_asked_again_until_it_is_there",
            "an_authority_that_asks_us_to_wait_is_not_asked_before",
            "a_certificate_that_the_folder_does_not_take_serves_and_is_kept_later",
            "after_a_panic_of_what_orders_it_goes_on_without_what_made_it_panic",
        ],
    ),
    ("clock steps", &["a_deadline_ends_what_takes_longer"]),
    (
        "memory of idle connections",
        &["an_idle_connection_holds_less_than_eight_kibibytes"],
    ),
    (
        "panics",
        &[
            "a_panic_costs_one_request_and_a_counter",
            "a_panic_in_one_stream_costs_that_stream_and_is_counted",
            "a_panic_outside_the_proxy_costs_its_connection_and_is_counted",
            "a_call_that_crashes_fails_those_who_wait_and_no_one_after_them",
        ],
    ),
];

#[test]
fn every_promise_has_its_tests_or_is_said_to_be_open() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    for folder in ["src", "tests"] {
        read_all(&root.join(folder), &mut tests);
    }
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for (promise, held_by) in PROMISES {
        for name in *held_by {
            let written = [
                format!("fn {name}("),
                format!("({name}, "),
                format!("(\n    {name},\n"),
            ];
            let found = written.iter().any(|line| tests.contains(line));
            assert!(found, "{promise}: there is no test {name}");
        }
        let open = architecture.contains(&format!("- open: {promise}\n"));
        assert_eq!(
            open,
            held_by.is_empty(),
            "{promise}: ARCHITECTURE.md says otherwise"
        );
    }
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
