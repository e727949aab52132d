/* Preloaded into a worker: at call number KILL_AT of those that change the disk, below the folder
 * under test, it writes half of what was to be written, fails with KILL_ERRNO, or kills. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long left = -1;
static int number, torn, begun;

/* 1: fail now. Otherwise go on, or never return. */
static int due(int tearing, int fd, const struct iovec *iov, int count, off_t at) {
    if (!begun) {
        begun = 1;
        left = getenv("KILL_AT") ? atol(getenv("KILL_AT")) : -1;
        number = getenv("KILL_ERRNO") ? atoi(getenv("KILL_ERRNO")) : 0;
        torn = getenv("KILL_TORN") != NULL;
    }
    if (left < 0 || __atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST) != 1) return 0;
    if (number) { errno = number; return 1; }
    if (tearing && torn && count > 0) {
        ssize_t (*one)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
        off_t where = at >= 0 ? at : lseek(fd, 0, SEEK_CUR);
        for (int i = 0; i <= count / 2; i++) {
            one(fd, iov[i].iov_base, i == count / 2 ? iov[i].iov_len / 2 : iov[i].iov_len, where);
            where += iov[i].iov_len;
        }
    }
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = dlsym(RTLD_NEXT, #name)
#define BEFORE if (due(0, -1, NULL, 0, -1)) return -1

ssize_t writev(int fd, const struct iovec *iov, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (due(1, fd, iov, count, -1)) return -1;
    return real(fd, iov, count);
}
ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off_t at, int flags) {
    REAL(ssize_t, pwritev64v2, int, const struct iovec *, int, off_t, int);
    if (due(1, fd, iov, count, at)) return -1;
    return real(fd, iov, count, at, flags);
}
ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t at, int flags) {
    REAL(ssize_t, pwritev2, int, const struct iovec *, int, off_t, int);
    if (due(1, fd, iov, count, at)) return -1;
    return real(fd, iov, count, at, flags);
}
ssize_t pwritev64(int fd, const struct iovec *iov, int count, off_t at) {
    REAL(ssize_t, pwritev64, int, const struct iovec *, int, off_t);
    if (due(1, fd, iov, count, at)) return -1;
    return real(fd, iov, count, at);
}
int fsync(int fd) { REAL(int, fsync, int); BEFORE; return real(fd); }
int fdatasync(int fd) { REAL(int, fdatasync, int); BEFORE; return real(fd); }
int syncfs(int fd) { REAL(int, syncfs, int); BEFORE; return real(fd); }
int rename(const char *a, const char *b) {
    REAL(int, rename, const char *, const char *); BEFORE; return real(a, b);
}
int unlink(const char *a) { REAL(int, unlink, const char *); BEFORE; return real(a); }
int mkdir(const char *a, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t); BEFORE; return real(a, mode);
}
int linkat(int f, const char *a, int g, const char *b, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int); BEFORE; return real(f, a, g, b, flags);
}
