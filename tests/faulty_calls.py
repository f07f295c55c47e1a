"""Calls of libc that fail for chosen files, below Python: a library that is loaded before it, compiled on the spot."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

needs_compiler = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc, for a library that makes calls fail")

# `close` has closed the file when it reports an error, as on Linux.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_faulty(const char *call, int fd) {
    const char *wanted = getenv("FAULTY_CALL"), *path = getenv("FAULTY_PATH");
    char link[64], found[4096];
    if (!wanted || !path || strcmp(wanted, call)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, found, sizeof found - 1);
    if (length < 0) return 0;
    found[length] = 0;
    return strstr(found, path) != NULL;
}

int close(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    int faulty = is_faulty("close", fd), result = real(fd);
    if (!faulty) return result;
    errno = atoi(getenv("FAULTY_ERRNO"));
    return -1;
}

ssize_t read(int fd, void *buffer, size_t count) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    if (!is_faulty("read", fd)) return real(fd, buffer, count);
    errno = atoi(getenv("FAULTY_ERRNO"));
    return -1;
}
"""


@functools.cache
def _library() -> str:
    folder = Path(tempfile.mkdtemp(prefix="faulty-calls-"))
    source, library = folder / "faulty.c", folder / "faulty.so"
    source.write_text(_SOURCE)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return str(library)


def where_it_fails(call: str, path: str, number: int) -> dict[str, str]:
    """Return an environment in which `call`, close or read, fails with an errno for files with `path` in their path."""
    faults = {"FAULTY_CALL": call, "FAULTY_PATH": path, "FAULTY_ERRNO": str(number)}
    return os.environ | {"LD_PRELOAD": _library(), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | faults


def run_code(code: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python code in a folder and an environment, and return what it said."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)
