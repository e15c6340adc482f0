"""The fixtures that tests on containers use, here and in tests/stack."""

import pytest

pytest.register_assert_rewrite("tests.harness")
pytest_plugins = ["tests.harness.fixtures"]
