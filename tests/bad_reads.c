/* Preloaded library that kills or stops a process where the HDF5 library reads certain files.
 *
 *   BAD_READS=NAME:KIND[+N],…
 *
 * The fault occurs at the Nth positioned read (from 0, default 0) since a file whose path ends with
 * NAME was opened. The HDF5 library uses positioned reads, and so does the program for the bytes of
 * an HDF5 file that is open. KIND is
 *   abort, segv, bus   the process gets the signal
 *   hang               the read never returns
 *   spin               the read never returns and keeps a core busy
 *   eio                the read fails with EIO
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define FILES 4096
#define BAD 16

static struct { char name[128], kind[16]; long first; } bad[BAD];
static int count;
static short of[FILES]; /* 1 + number of the bad file */
static long reads[FILES];

#define REAL(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

__attribute__((constructor)) static void start(void)
{
    const char *setting = getenv("BAD_READS");
    char copy[4096], *rest = copy, *one;
    if (!setting) return;
    snprintf(copy, sizeof copy, "%s", setting);
    while ((one = strsep(&rest, ",")) && count < BAD) {
        char *plus = strchr(one, '+');
        bad[count].first = plus ? atol(plus + 1) : 0;
        if (plus) *plus = 0;
        if (sscanf(one, "%127[^:]:%15s", bad[count].name, bad[count].kind) == 2) count++;
    }
}

static int keep(int fd, const char *path)
{
    if (fd < 0 || fd >= FILES) return fd;
    of[fd] = 0;
    reads[fd] = 0;
    for (int i = 0; i < count && path; i++) {
        size_t length = strlen(path), own = strlen(bad[i].name);
        if (length >= own && !strcmp(path + length - own, bad[i].name)) of[fd] = (short)(i + 1);
    }
    return fd;
}

static int fails(int fd)
{
    if (fd < 0 || fd >= FILES || !of[fd]) return 0;
    int i = of[fd] - 1;
    if (reads[fd]++ < bad[i].first) return 0;
    const char *kind = bad[i].kind;
    volatile int forever = 1;
    int number = !strcmp(kind, "abort") ? SIGABRT : !strcmp(kind, "segv") ? SIGSEGV : !strcmp(kind, "bus") ? SIGBUS : 0;
    if (number) {
        signal(number, SIG_DFL);
        raise(number);
    }
    if (!strcmp(kind, "hang")) while (forever) pause();
    if (!strcmp(kind, "spin")) while (forever) {}
    errno = EIO;
    return 1;
}

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...)                              \
    {                                                                       \
        va_list more; va_start(more, flags);                                \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;         \
        va_end(more);                                                       \
        return keep(REAL(name, path, flags, mode), path);                   \
    }
OPEN(open)
OPEN(open64)

#define PREAD(name, offset_type)                                            \
    ssize_t name(int fd, void *bytes, size_t size, offset_type at)          \
    {                                                                       \
        return fails(fd) ? -1 : REAL(name, fd, bytes, size, at);            \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)
