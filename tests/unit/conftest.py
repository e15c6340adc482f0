"""Unit tests: nothing runs beside them, and what a run tells is about the change, not about its
luck.
"""

import tempfile

import hypothesis
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(tempfile.gettempdir() + "/hypothesis")  # the checkout may be read-only
hypothesis.settings.register_profile(
    "unit", max_examples=200, deadline=None, database=None, derandomize=True
)
hypothesis.settings.load_profile("unit")
