"""Where a job lies that was given no folder."""

from __future__ import annotations

import os

import pytest

from fetcher.job.paths import folder_for


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("pages.jsonl", "pages.jsonl.job"),
        (os.path.join("data", "pages") + os.sep, os.path.join("data", "pages.job")),
        ("s3://bucket/some/pages.jsonl", "pages.jsonl.job"),
        ("s3://bucket/some/pages/", "pages.job"),
        ("s3://bucket", "bucket.job"),
    ],
)
def test_it_lies_beside_its_first_output_and_here_where_that_is_in_a_store(output: str, folder: str) -> None:
    assert folder_for([output, "other.csv"]) == folder
