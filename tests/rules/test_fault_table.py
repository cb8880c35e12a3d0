"""Faults of earlier code that must not return, and the tests that catch each.

Decoder:

- The generator's step was made on a detached sample, so that the diffusion step trained nothing:
    unit/models/mdgan/test_mdgan_gradients.py::test_the_diffusion_step_trains_every_parameter_of_the_generator
    unit/models/mdgan/test_mdgan.py::test_a_phase_moves_only_its_owners
    unit/models/mdgan/test_mdgan.py::test_within_a_step_each_phase_moves_its_owners_and_nothing_else_moves
- The latent cycle was taken through a graph already used:
    unit/models/mdgan/test_mdgan_gradients.py::test_gradients_of_the_latent_phase_are_those_of_a_fresh_graph
    unit/models/mdgan/test_mdgan_gradients.py::test_gradients_of_the_joint_order_are_those_of_the_sum_on_graphs_apart
- The schedule multiplied the learning rate by the batch's index:
    unit/models/mdgan/test_mdgan_params.py::test_the_learning_rate_is_that_of_the_formula
    unit/models/mdgan/test_mdgan_params.py::test_optimizers_hold_the_rate_of_the_formula_at_each_step
- Batch norm was in training mode when encoding, so that a latent depended on its batch:
    unit/models/mdgan/test_networks.py::test_in_evaluation_a_latent_does_not_depend_on_its_batch
    unit/models/mdgan/test_convolutions.py::test_a_latent_does_not_depend_on_its_batch
    unit/models/mdgan/test_encoding.py::test_a_latent_is_the_same_alone_and_in_any_batch
- A last batch smaller than the noise tensor:
    unit/models/mdgan/test_mdgan.py::test_a_batch_smaller_than_the_others_is_trained_on_as_it_is
- The tail of a song was dropped:
    unit/models/mdgan/test_encoding.py::test_a_song_comes_back_whole_and_in_order
    unit/models/mdgan/test_encoding.py::test_lengths_survive_the_networks
- A ReLU on the bottleneck killed latents:
    unit/models/mdgan/test_networks.py::test_latents_take_both_signs
    unit/models/mdgan/test_convolutions.py::test_every_latent_dimension_varies_over_data
    unit/models/mdgan/test_mdgan.py::test_training_reconstructs_better_and_leaves_no_latent_dead
- The network of the Frechet distance was trained with the GAN, so that no two trials compared:
    unit/models/metrics/test_reference.py::test_the_same_seed_gives_the_same_reference_and_another_seed_another
    unit/models/metrics/test_reference.py::test_the_reference_has_one_hash_before_and_after_a_file
    unit/models/metrics/test_reference.py::test_every_array_counts_in_the_hash
- Validation and test were swapped, split by snippet, and split anew for each number of states:
    unit/data_io/test_recordings.py::test_duplicates_are_skipped_so_that_no_sound_is_on_both_sides
    unit/data_io/test_split.py::test_a_bout_lies_on_one_side
    unit/data_io/test_split.py::test_sides_do_not_depend_on_the_order_of_the_list_or_on_other_birds
    unit/data_io/test_split.py::test_another_seed_gives_other_sides_and_the_same_seed_the_same
    unit/data_io/test_snippets.py::test_pool_holds_its_own_side_of_the_split_only
    unit/models/hmm/test_hmm_criteria.py::test_recordings_are_split_whole_and_neither_side_is_empty
    unit/models/hmm/test_hmm_criteria.py::test_every_number_of_states_is_tested_on_the_same_recordings
- Ages were attached to unsorted folders, by index instead of days:
    unit/data_io/test_listing.py::test_listing_does_not_depend_on_the_order_of_the_disk
    unit/data_io/test_ages.py::test_ages_sort_by_value_then_dates_then_words
    integration/test_decoders.py::test_ages_are_in_order_however_recordings_are_listed

Recordings:

- A sound was called silent because the first channel was, and the song lay on the second:
    unit/data_io/test_checks.py::test_quiet_sound_beside_a_silent_channel_is_not_denied
    unit/data_io/test_checks.py::test_a_channel_that_is_chosen_is_the_one_that_is_judged
- Integers on the scale of another width passed as sound:
    unit/data_io/test_checks.py::test_every_faulty_sound_is_named
    unit/data_io/test_checks.py::test_what_the_header_says_is_compared_with_what_was_decoded
- A rate too low for the study's frequencies went unsaid:
    unit/data_io/test_checks.py::test_a_rate_is_low_by_the_frequencies_that_the_study_shows
- A file of a recorder that streams counted as cut, or a cut file as whole:
    unit/data_io/test_sound_header.py::test_a_length_that_could_not_be_known_is_no_cut
    unit/data_io/test_sound_header.py::test_a_length_that_could_be_known_is_a_cut
- Memory grew with the length of a file:
    unit/data_io/test_sound_file.py::test_two_hours_in_one_file_take_the_memory_of_a_block
    unit/data_io/test_spectrogram.py::test_memory_beside_sound_and_spectrogram_does_not_grow_with_the_length
- A bird with one file had no split:
    unit/data_io/test_bird_age.py::test_few_files_are_cut_so_that_they_can_be_split
- A copy in another format, or a song beside the long file that holds it, was on two sides:
    unit/data_io/test_same_sound.py::test_a_song_cut_out_of_a_long_file_is_found_at_its_place
    unit/data_io/test_bird_age.py::test_song_cut_from_a_long_file_is_used_once
- A rig ten times as quiet gave spectrograms ten times as flat:
    unit/data_io/test_bird_age.py::test_rigs_of_any_gain_give_the_same_spectrograms
    unit/data_io/test_sounding.py::test_gain_moves_floor_and_level_and_no_answer
- A file that is not used had everything computed again:
    unit/data_io/test_recordings.py::test_the_hash_of_the_data_depends_on_what_a_study_takes_from_it_alone
- Ages with letters sorted as text, and a folder one level too high gave birds that are none:
    unit/data_io/test_ages.py::test_ages_sort_by_value_then_dates_then_words
    unit/data_io/test_listing.py::test_folder_too_high_or_too_deep_is_refused_and_the_right_one_named
- An altered byte of a table outside of its pages was not seen:
    unit/data_io/test_seal.py::test_every_flipped_bit_of_1000_is_refused
    unit/data_io/test_store.py::test_each_of_1000_bit_flips_is_refused_by_name
- Two channels given to the library were transformed as if they were one sound:
    unit/data_io/test_spectrogram.py::test_what_is_not_one_channel_of_finite_floats_is_refused
- A setting was accepted at the start and failed later; key=value counted in one place alone:
    unit/study/test_settings.py::test_numbers_below_zero_and_beyond_all_sense_are_refused_by_name
    unit/study/test_options.py::test_settings_stand_wherever_a_person_puts_them
- A long temporary folder ended the study in a traceback:
    unit/study/test_surroundings.py::test_a_folder_may_be_so_long_that_rays_longest_socket_has_a_name

HMMs:

- Restarts with the same seed were identical:
    unit/models/hmm/test_hmm_search.py::test_restarts_with_different_seeds_differ_and_with_the_same_do_not
    unit/study/test_hmm_grid.py::test_seeds_differ_by_bird_age_states_and_restart_and_by_nothing_else
- Full and tied covariances were counted with d * d parameters:
    unit/models/hmm/test_hmm_criteria.py::test_free_parameters_are_those_of_a_hand_made_table_and_of_hmmlearn
- Numbers of states were sorted as text:
    unit/models/hmm/test_hmm_selection.py::test_numbers_of_states_are_sorted_as_numbers
    unit/study/test_config.py::test_numbers_of_states_are_sorted_as_numbers
- BIC was computed on training and test recordings together:
    unit/models/hmm/test_hmm_criteria.py::test_bic_and_aic_of_a_fit_are_hmmlearns
    integration/test_study.py::test_log_likelihood_and_bic_follow_from_the_files_with_plain_hmmlearn
- A minimum at the top of the grid went unnoticed:
    unit/models/hmm/test_hmm_selection.py::test_a_minimum_at_the_end_of_the_grid_is_flagged
    unit/study/test_hmm_grid.py::test_a_minimum_at_the_highest_number_that_may_be_tried_is_an_edge
- Every state counted as active:
    unit/models/hmm/test_hmm_health.py::test_planted_dead_and_singleton_states_are_counted
- Entropies were off (of what the models give: that of their paths; divergences are not computed):
    unit/models/hmm/test_hmm_criteria.py::test_the_path_entropy_is_that_of_all_paths
    unit/models/hmm/test_hmm_criteria.py::test_the_path_entropy_holds_in_one_dimension
- Means were sampled instead of emissions, and the first state was always the most likely one:
    unit/models/hmm/test_hmm_parameters.py::test_statistics_of_long_samples_are_the_models
    unit/models/hmm/test_hmm_parameters.py::test_the_first_state_follows_the_start_probabilities
"""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def names_in(path):
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_of_the_table_exists():
    named = re.findall(r"^    ([\w/]+\.py)::(\w+)$", __doc__, re.MULTILINE)
    assert len(named) == __doc__.count("::")
    assert [f"{file}::{name}" for file, name in named if name not in names_in(TESTS / file)] == []


def test_every_fault_of_the_table_has_a_test():
    faults = re.split(r"^- ", __doc__, flags=re.MULTILINE)[1:]
    assert faults
    assert [fault for fault in faults if "::test_" not in fault] == []
