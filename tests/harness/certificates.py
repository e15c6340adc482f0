"""Certificates for tests, made by openssl, which is in the tests' image."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path


def make_certificate(folder: Path, name: str = "tls", *options: str) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key, as files in the folder."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [*(options or ("-noenc",)), "-days", "2", "-subj", "/CN=objgw"]
    command += ["-addext", "subjectAltName=DNS:objgw"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def archive(files: dict[str, bytes], mode: int = 0o444) -> bytes:
    """These files as a tar archive, for `Container.put_archive`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
