"""What `objgwctl.py` does: it shows where objects are, moves them, and takes nodes out and in."""
