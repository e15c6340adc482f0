# One stage, so that `build: .` is all that a compose file needs. The tests' image is the same one with
# REQUIREMENTS=requirements-dev.txt, so that they run on the versions that the gateway runs on, and with a browser.
FROM python:3.13-slim AS gateway

# The container starts as root to find the Docker socket's group, and becomes this user before it serves.
ENV OBJGW_USER=65534 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /srv/objgw

ARG PACKAGES=""
RUN [ -z "$PACKAGES" ] || (apt-get update && apt-get install -y --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*)

ARG REQUIREMENTS=requirements.txt
# OTEL=1: also what exports spans.
ARG OTEL=""
COPY requirements*.txt ./
# --ignore-installed: what the base image brought is left alone, whoever installed it.
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --ignore-installed -r "$REQUIREMENTS" \
    $([ "$OTEL" != 1 ] || echo "-r requirements-otel.txt")

COPY objgw.py objgwctl.py gunicorn.conf.py ./
COPY gateway gateway/
RUN python -m compileall -q .

EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 \
    CMD ["python", "-m", "gateway.server.healthcheck"]
CMD ["gunicorn", "-b", "0.0.0.0:3000", "objgw:app"]
