/* Preloaded library that makes one operation on files below a folder fail, whether the program
 * itself or the HDF5 library calls it.
 *
 *   FAULT_UNDER=/absolute/folder  FAULT=N:KIND  FAULT_MARK=/absolute/file  [FAULT_RANK=R]
 *
 * With FAULT_RANK the fault occurs only on that rank of Open MPI. Heartbeats depend on the clock,
 * so they are not counted unless FAULT_UNDER is their folder.
 * The fault occurs in operation N (from 0), and then creates the file FAULT_MARK. KIND is
 *   eio     the operation fails once with EIO
 *   enospc  this operation and all later ones that need space fail with ENOSPC
 *   short   a write writes and reports half of its bytes; later operations that need space fail
 *   death   a write writes half of its bytes; then the process gets SIGKILL
 * Counted operations: opening to create or write, writing, truncating, syncing, renaming,
 * removing, creating folders.
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
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { EIO_ONCE, FULL, SHORT, DEATH };
enum { DONE, FAILED, TORN };
#define FILES 4096

static char ours[FILES]; /* whether a file descriptor is below FAULT_UNDER */
static const char *under, *mark;
static long left = -1;
static int kind, triggered, has_rank;

#define REAL(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

__attribute__((constructor)) static void start(void)
{
    const char *fault = getenv("FAULT");
    under = getenv("FAULT_UNDER");
    mark = getenv("FAULT_MARK");
    if (!fault || !under || !mark) { under = NULL; return; }
    const char *victim = getenv("FAULT_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    has_rank = victim != NULL;
    if (victim && (!rank || strcmp(victim, rank))) { under = NULL; return; }
    left = strtol(fault, NULL, 10);
    const char *name = strchr(fault, ':') ? strchr(fault, ':') + 1 : "";
    kind = !strcmp(name, "eio") ? EIO_ONCE : !strcmp(name, "enospc") ? FULL : !strcmp(name, "short") ? SHORT : DEATH;
}

static int below(const char *path)
{
    if (!under || !path || strncmp(path, under, strlen(under))) return 0;
    return !has_rank || strstr(under, "/.ranks") || !strstr(path, "/.ranks");
}

static int known(int fd) { return under && fd >= 0 && fd < FILES && ours[fd]; }

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

/* Returns the outcome of the next operation: DONE, FAILED, or TORN for half a write. */
static int next_outcome(int grows, int writes)
{
    int first = !triggered && left-- == 0;
    if (first) {
        triggered = 1;
        int fd = REAL(open, mark, O_CREAT | O_WRONLY, 0644);
        if (fd >= 0) REAL(close, fd);
    }
    if (!triggered) return DONE;
    if (kind == DEATH) { if (first && writes) return TORN; die(); }
    if (kind == EIO_ONCE) { errno = EIO; return first ? FAILED : DONE; }
    if (kind == SHORT && first && writes) return TORN;
    errno = ENOSPC;
    return grows ? FAILED : DONE;
}

static int keep(int fd, int is_ours)
{
    if (fd >= 0 && fd < FILES) ours[fd] = (char)is_ours;
    return fd;
}

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...)                              \
    {                                                                       \
        va_list more; va_start(more, flags);                                \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;         \
        va_end(more);                                                       \
        int mine = below(path);                                             \
        if (mine && (flags & O_ACCMODE) != O_RDONLY && next_outcome((flags & O_CREAT) != 0, 0)) return -1; \
        return keep(REAL(name, path, flags, mode), mine);                   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
    int name(int folder, const char *path, int flags, ...)                  \
    {                                                                       \
        va_list more; va_start(more, flags);                                \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;         \
        va_end(more);                                                       \
        int mine = below(path) || known(folder);                            \
        if (mine && (flags & O_ACCMODE) != O_RDONLY && next_outcome((flags & O_CREAT) != 0, 0)) return -1; \
        return keep(REAL(name, folder, path, flags, mode), mine);           \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd)
{
    if (fd >= 0 && fd < FILES) ours[fd] = 0;
    return REAL(close, fd);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    switch (known(fd) ? next_outcome(1, 1) : DONE) {
    case FAILED: return -1;
    case TORN: {
        ssize_t half = REAL(write, fd, bytes, count / 2);
        if (kind == DEATH) die();
        return half;
    }
    default: return REAL(write, fd, bytes, count);
    }
}

#define PWRITE(name, offset_type)                                           \
    ssize_t name(int fd, const void *bytes, size_t count, offset_type at)   \
    {                                                                       \
        switch (known(fd) ? next_outcome(1, 1) : DONE) {                            \
        case FAILED: return -1;                                             \
        case TORN: {                                                        \
            ssize_t half = REAL(name, fd, bytes, count / 2, at);            \
            if (kind == DEATH) die();                                       \
            return half;                                                    \
        }                                                                   \
        default: return REAL(name, fd, bytes, count, at);                   \
        }                                                                   \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

int fsync(int fd) { return known(fd) && next_outcome(0, 0) ? -1 : REAL(fsync, fd); }
int fdatasync(int fd) { return known(fd) && next_outcome(0, 0) ? -1 : REAL(fdatasync, fd); }
int ftruncate(int fd, off_t length) { return known(fd) && next_outcome(0, 0) ? -1 : REAL(ftruncate, fd, length); }
int ftruncate64(int fd, off64_t length) { return known(fd) && next_outcome(0, 0) ? -1 : REAL(ftruncate64, fd, length); }
int rename(const char *from, const char *to) { return below(to) && next_outcome(0, 0) ? -1 : REAL(rename, from, to); }
int unlink(const char *path) { return below(path) && next_outcome(0, 0) ? -1 : REAL(unlink, path); }
int rmdir(const char *path) { return below(path) && next_outcome(0, 0) ? -1 : REAL(rmdir, path); }
int mkdir(const char *path, mode_t mode) { return below(path) && next_outcome(1, 0) ? -1 : REAL(mkdir, path, mode); }
int unlinkat(int folder, const char *path, int flags)
{
    return (below(path) || known(folder)) && next_outcome(0, 0) ? -1 : REAL(unlinkat, folder, path, flags);
}
