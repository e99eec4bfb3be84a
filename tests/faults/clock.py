"""A wall clock of the server's own, which can be made to jump; the machine's stays as it is.

A library that is loaded before libc adds seconds to whatever asks for the time of day. They are in a file that all
processes of the server map.
"""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults.errors import CannotInject

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long nothing, *ahead = &nothing;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) ahead = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (told) *told = exact.tv_sec;
    return exact.tv_sec;
}
"""


@dataclass(frozen=True)
class Clock:
    """The wall clock of the processes that were started with `environment`.

    Attributes:
        library: what is loaded before libc.
        file: by how many seconds it is ahead.
    """

    library: Path
    file: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process has to be started with."""
        return {"LD_PRELOAD": str(self.library), "FAULTS_CLOCK": str(self.file)}

    def set_ahead(self, seconds: int) -> None:
        """Let it jump; 0 is the right time."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("q", seconds))


def clock(folder: Path) -> Clock:
    """A clock that tells the right time.

    Raises:
        CannotInject: there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotInject("the library that moves the clock takes a C compiler (`cc`)")
    made = Clock(folder / "clock.so", folder / "clock")
    made.file.write_bytes(struct.pack("q", 0))
    command = [compiler, "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(made.library), "-ldl"]
    subprocess.run(command, input=_SOURCE, text=True, check=True, capture_output=True)
    return made
