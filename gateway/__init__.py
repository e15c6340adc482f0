"""What `objgw.py` stands on: a folder for each subject.

Imports go downwards only; pyproject.toml has the order.
"""
