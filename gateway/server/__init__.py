"""The gunicorn worker.

Nothing in here knows of objects; the application runs under any other WSGI server as well.
"""
