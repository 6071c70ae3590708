"""A checkpoint of one's own: ``pytest parity_tests --checkpoint PATH_OR_ID`` compares it, group by group."""

import pytest

from tf_pipeline.parity import GROUPS, compare


@pytest.mark.parametrize("group", GROUPS)
def test_checkpoint(user_checkpoint, group, request, judge):
    class_name = request.config.getoption("--checkpoint-class")
    report = compare(user_checkpoint, class_name, groups=[group])
    reasons = [skip.reason for skip in report.skipped if skip.group == group]
    if not report.checks and reasons:
        pytest.skip("; ".join(reasons))
    judge(report, f"{report.model_class}: {group}")
