# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal

import pytest
import torch

from segan_monai.errors import DataError
from segan_monai.parallel import available_processes, map_in_processes


def square_and_process(number):
    return number**2, os.getpid(), torch.get_num_threads()


def kill_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_at_three(number):
    if number == 3:
        raise DataError("case 3 is damaged")
    return number


def test_one_process_is_this_one():
    results = list(map_in_processes(square_and_process, range(4), 1))
    assert [result for result, _, _ in results] == [0, 1, 4, 9]
    assert {process for _, process, _ in results} == {os.getpid()}


@pytest.mark.parametrize("in_order", [True, False])
def test_every_item_is_computed_once_by_other_processes_of_one_thread(in_order):
    results = list(map_in_processes(square_and_process, range(20), 2, in_order=in_order))
    squares = [result for result, _, _ in results]
    assert (squares if in_order else sorted(squares)) == [number**2 for number in range(20)]
    assert os.getpid() not in {process for _, process, _ in results}
    assert {threads for _, _, threads in results} == {1}


@pytest.mark.parametrize("in_order", [True, False])
def test_a_killed_process_is_named_with_the_option_to_change(in_order):
    with pytest.raises(DataError, match=r"one of 2 processes was killed.*ran out of memory.*smaller --workers"):
        list(map_in_processes(kill_at_three, range(8), 2, option="--workers", in_order=in_order))


def test_an_error_of_the_function_is_raised_as_it_is():
    with pytest.raises(DataError, match="case 3 is damaged"):
        list(map_in_processes(fail_at_three, range(8), 2))


def test_processes_are_no_more_than_tasks_and_at_least_one():
    assert available_processes(3, 8) == 3
    assert available_processes(0) == 1
    assert available_processes(100, 5) == 5
    assert 1 <= available_processes(100) <= 8
