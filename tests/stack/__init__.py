"""Tests on real containers, a file for each subject.

Everything is a real container and a real socket.
"""
