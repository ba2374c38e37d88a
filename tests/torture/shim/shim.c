/* A shim between a program and the C library's file calls, to know what a power cut would leave of one folder.
 *
 * It is loaded with LD_PRELOAD into all processes that work below a watched folder (the root) and appends each change
 * of the folder to a log that they share in memory. log.py reads the log and works out the folder as the disk would
 * have it. The nouns:
 *
 *   record   one change, in the order in which they happened across all processes: one mutex is held around the record
 *            and its system call. Its place in the log is its time. A record is written before its call and gets the
 *            call's result after it, so a process that is killed between the two leaves a record without a result.
 *   undo     the bytes that a change is about to overwrite or cut off. With them, the bytes at any earlier time can be
 *            had from the file as it is; bytes that are appended need not be kept at all.
 *   grave    a folder beside the root. A file that loses its name gets a second one there first: a power cut may bring
 *            the first one back, and no other file may get its inode number while the log speaks of it.
 *   rule     what to do to calls on files whose path below the root fits a pattern: fail with an error, or wait. A sync
 *            that fails by a rule is recorded as failed: what was written before it is lost then, whatever comes later.
 *
 * Not followed: sockets, SQLite's -shm files (shared memory, never durable) and writes through mmap. Every system call
 * is made directly, so nothing here depends on what else is preloaded.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LOG_VARIABLE "TORTURE_SHIM_LOG"
#define MAGIC 0x314d494853524f54ULL          /* "TORSHIM1" */
#define HEADER_BYTES 16384
#define RULES 32
#define PATH_BYTES 512
#define NAME_BYTES 256

enum { REAL_SYNC = 1, KEEP_DATA = 2 };       /* header.flags */
enum { OP_SYNC = 1, OP_WRITE = 2, OP_NAME = 4, OP_RANGE = 8 };          /* rule.ops */
enum { WRITE = 1, TRUNCATE, ALLOCATE, CREATE, MKDIR, RENAME, LINK, UNLINK, SYNC_BEGIN, SYNC_END, FOREIGN };
enum { UNDO_IS_ZEROS = 1, WAS_HOLE = 2 };    /* record.flags */
#define NO_RESULT INT64_MIN

typedef struct {
    uint32_t active, ops;
    int32_t error, skip, count;              /* count < 0: for ever */
    uint32_t delay_us;
    uint64_t hits;
    uint32_t every, seen;                    /* of those that fit: the first, and then each every-th */
    char pattern[152];
} Rule;                                      /* 192 bytes */

typedef struct {
    uint64_t magic, capacity;
    _Atomic uint64_t tail;
    uint32_t flags, sync_delay_us;
    _Atomic uint32_t rules_active;
    uint32_t pad;
    union { pthread_mutex_t lock; char room[88]; };
    char root[PATH_BYTES], grave[PATH_BYTES];
    char room2[2048 - 128 - 2 * PATH_BYTES];
    Rule rules[RULES];
} Header;

typedef struct {
    uint32_t length;
    uint16_t kind, flags;
    int64_t result;
    uint64_t inode, a, b, c;
    uint32_t first, second;                  /* bytes of the two payloads that follow, each padded to 8 */
} Record;

_Static_assert(sizeof(Rule) == 192, "log.py knows the layout");
_Static_assert(offsetof(Header, root) == 128 && offsetof(Header, rules) == 2048, "log.py knows the layout");
_Static_assert(sizeof(Record) == 56, "log.py knows the layout");

static Header *header;
static size_t root_length;
static dev_t root_device;

static void die(const char *what) {
    dprintf(2, "shim: %s: %s\n", what, strerror(errno));
    _exit(99);
}

/* Making a log: called by log.py through ctypes. 0 or an errno. */
int shim_make(const char *path, uint64_t capacity, const char *root, const char *grave, uint32_t flags) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) return errno;
    if (syscall(SYS_ftruncate, fd, capacity)) { int error = errno; close(fd); return error; }
    Header *made = mmap(NULL, HEADER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (made == MAP_FAILED) return errno;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);     /* its holder may be killed */
    pthread_mutex_init(&made->lock, &kind);
    made->capacity = capacity;
    made->tail = HEADER_BYTES;
    made->flags = flags;
    snprintf(made->root, PATH_BYTES, "%s", root);
    snprintf(made->grave, PATH_BYTES, "%s", grave);
    made->magic = MAGIC;
    munmap(made, HEADER_BYTES);
    return 0;
}

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv(LOG_VARIABLE);
    if (path == NULL) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) die("the log");
    struct stat log;
    if (fstat(fd, &log)) die("the log");
    Header *found = mmap(NULL, log.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    close(fd);
    if (found == MAP_FAILED) die("mapping the log");
    if (found->magic != MAGIC) die("this is no log");
    struct stat root;
    if (stat(found->root, &root)) die("the watched folder");
    root_device = root.st_dev;
    root_length = strlen(found->root);
    header = found;
}

static void lock(void) {
    if (pthread_mutex_lock(&header->lock) == EOWNERDEAD) pthread_mutex_consistent(&header->lock);
}

static void unlock(void) { pthread_mutex_unlock(&header->lock); }

static uint32_t padded(uint32_t bytes) { return (bytes + 7) & ~7U; }

/* Under the lock. The payloads are filled in by `payload` before `publish`. */
static Record *begin(int kind, ino_t inode, uint64_t a, uint64_t b, uint64_t c, uint64_t first, uint64_t second) {
    uint64_t length = sizeof(Record) + padded(first) + padded(second);
    if (length > UINT32_MAX || header->tail + length > header->capacity) {
        errno = ENOSPC;
        die("the log is full");
    }
    Record *record = (Record *)((char *)header + header->tail);
    *record = (Record){.length = length, .kind = kind, .result = NO_RESULT, .inode = inode, .a = a, .b = b, .c = c,
                       .first = first, .second = second};
    return record;
}

static char *payload(Record *record, int which) {
    return (char *)(record + 1) + (which ? padded(record->first) : 0);
}

static void publish(Record *record) { atomic_fetch_add(&header->tail, record->length); }

static long ended(Record *record, long result) {
    record->result = result < 0 ? -errno : result;
    return result;
}

/* Where things are */

static int watched_path(const char *path) {
    if (strncmp(path, header->root, root_length) || (path[root_length] != '/' && path[root_length] != 0)) return 0;
    size_t length = strlen(path);
    return length < 4 || strcmp(path + length - 4, "-shm");
}

/* Whether the descriptor is a file or folder below the root; its path as of now into `path`. */
static int watched(int fd, struct stat *found, char path[PATH_BYTES], int folders) {
    if (header == NULL) return 0;
    int before = errno;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = 0;
    int is = fd >= 0 && fstat(fd, found) == 0 && found->st_dev == root_device
        && (S_ISREG(found->st_mode) || (folders && S_ISDIR(found->st_mode)))
        && (length = readlink(link, path, PATH_BYTES - 1)) > 0;
    errno = before;
    if (!is) return 0;
    path[length] = 0;
    char *deleted = length > 10 ? path + length - 10 : path;
    if (!strcmp(deleted, " (deleted)")) *deleted = 0;
    return watched_path(path);
}

typedef struct {
    int fd;                                  /* of the folder around the name; -1: not watched */
    ino_t inode;                             /* of that folder */
    const char *name;
    char path[PATH_BYTES];                   /* of the name */
    struct stat found;
    int exists;
} Place;

static void leave(Place *place) { if (place->fd >= 0) { int e = errno; close(place->fd); errno = e; } }

/* Find the folder around `path`, and look whether the name is there. */
static int find(Place *place, int folder, const char *path) {
    place->fd = -1;
    if (header == NULL || path == NULL) return 0;
    int before = errno;
    char around[PATH_BYTES * 2];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    size_t start = length;
    while (start > 0 && path[start - 1] != '/') start--;
    if (length == 0 || start >= sizeof around || length - start >= NAME_BYTES) return 0;
    memcpy(around, path, start);
    around[start] = 0;
    static _Thread_local char name[2][NAME_BYTES];
    static _Thread_local int turn;
    char *mine = name[turn ^= 1];
    memcpy(mine, path + start, length - start);
    mine[length - start] = 0;
    place->name = mine;
    int fd = syscall(SYS_openat, folder, start ? around : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat parent;
    char link[40];
    ssize_t got = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fd >= 0 && fstat(fd, &parent) == 0 && parent.st_dev == root_device
        && (got = readlink(link, place->path, PATH_BYTES - NAME_BYTES - 2)) > 0) {
        place->path[got] = '/';
        strcpy(place->path + got + 1, mine);
        if (watched_path(place->path) && (size_t)got >= root_length) {
            place->fd = fd;
            place->inode = parent.st_ino;
            place->exists = fstatat(fd, mine, &place->found, AT_SYMLINK_NOFOLLOW) == 0;
        }
    }
    if (place->fd < 0 && fd >= 0) close(fd);
    errno = before;
    return place->fd >= 0;
}

static int followed(const Place *place) {
    return place->exists && (S_ISREG(place->found.st_mode) || S_ISDIR(place->found.st_mode));
}

/* Rules: 0, or the error to fail with. */

static int ruled(int op, const char *path) {
    if (header->rules_active == 0) return 0;
    int error = 0;
    uint32_t delay_us = 0;
    const char *below = path + root_length + (path[root_length] == '/');
    lock();
    for (int i = 0; i < RULES && !error; i++) {
        Rule *rule = &header->rules[i];
        if (!rule->active || !(rule->ops & op) || fnmatch(rule->pattern, below, 0)) continue;
        if (rule->skip > 0) { rule->skip--; continue; }
        if (rule->count == 0 || rule->seen++ % rule->every) continue;
        if (rule->count > 0) rule->count--;
        rule->hits++;
        delay_us += rule->delay_us;
        error = rule->error;
    }
    unlock();
    if (delay_us) nanosleep(&(struct timespec){delay_us / 1000000, delay_us % 1000000 * 1000L}, NULL);
    return error;
}

static int refused(int op, const char *path) {
    int error = ruled(op, path);
    if (error) errno = error;
    return error;
}

/* Changes of bytes */

static void keep_undo(int fd, char *into, uint64_t offset, uint64_t bytes) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int reader = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    if (reader < 0) die("reading what will be overwritten");
    for (uint64_t done = 0; done < bytes;) {
        ssize_t got = syscall(SYS_pread64, reader, into + done, bytes - done, offset + done);
        if (got < 0) die("reading what will be overwritten");
        if (got == 0) { memset(into + done, 0, bytes - done); break; }
        done += got;
    }
    close(reader);
}

static int all_zeros(const char *bytes, uint64_t length) {
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* A record whose first payload is what lies in [from, to) of the file now. */
static Record *with_undo(int kind, int fd, const struct stat *file, uint64_t a, uint64_t b, uint64_t from, uint64_t to,
                         uint64_t data_bytes) {
    uint64_t size = file->st_size, bytes = from < size ? (to < size ? to : size) - from : 0;
    if (to <= from) bytes = 0;
    Record *record = begin(kind, file->st_ino, a, b, size, bytes, data_bytes);
    if (bytes) keep_undo(fd, payload(record, 0), from, bytes);
    if (bytes > 64 && data_bytes == 0 && all_zeros(payload(record, 0), bytes)) {
        record->flags |= UNDO_IS_ZEROS;       /* space that was allocated ahead: not worth its memory */
        record->first = 0;
        record->length = sizeof(Record);
    }
    return record;
}

typedef enum { AT_POSITION, AT_OFFSET } Where;

static ssize_t write_call(int fd, const struct iovec *parts, int count, Where where, off_t offset, int flags) {
    if (where == AT_OFFSET) return syscall(SYS_pwritev2, fd, parts, count, offset, 0, flags);
    return syscall(SYS_writev, fd, parts, count);
}

static ssize_t do_write(int fd, const struct iovec *parts, int count, Where where, off_t offset, int flags) {
    struct stat file;
    char path[PATH_BYTES];
    if (!watched(fd, &file, path, 0)) return write_call(fd, parts, count, where, offset, flags);
    if (refused(OP_WRITE, path)) return -1;
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
    lock();
    if (fstat(fd, &file)) die("a file that is written");
    off_t at = offset;
    if (fcntl(fd, F_GETFL) & O_APPEND) at = file.st_size;
    else if (where == AT_POSITION) at = lseek(fd, 0, SEEK_CUR);
    int data = header->flags & KEEP_DATA;
    Record *record = with_undo(WRITE, fd, &file, at, bytes, at, at + bytes, data ? bytes : 0);
    if (data) {
        char *into = payload(record, 1);
        for (int i = 0; i < count; i++) into = mempcpy(into, parts[i].iov_base, parts[i].iov_len);
    }
    publish(record);
    ssize_t done = ended(record, write_call(fd, parts, count, where, offset, flags));
    unlock();
    return done;
}

static int do_truncate(int fd, off_t length) {
    struct stat file;
    char path[PATH_BYTES];
    if (!watched(fd, &file, path, 0)) return syscall(SYS_ftruncate, fd, length);
    if (refused(OP_WRITE, path)) return -1;
    lock();
    if (fstat(fd, &file)) die("a file that is cut");
    Record *record = with_undo(TRUNCATE, fd, &file, length, 0, length, file.st_size, 0);
    publish(record);
    int done = ended(record, syscall(SYS_ftruncate, fd, length));
    unlock();
    return done;
}

static int do_allocate(int fd, int mode, off_t offset, off_t length) {
    struct stat file;
    char path[PATH_BYTES];
    if (!watched(fd, &file, path, 0)) return syscall(SYS_fallocate, fd, mode, offset, length);
    if (refused(OP_WRITE, path)) return -1;
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) { errno = EOPNOTSUPP; return -1; }
    lock();
    if (fstat(fd, &file)) die("a file that gets space");
    uint64_t end = mode & FALLOC_FL_KEEP_SIZE ? 0 : offset + length;
    Record *record;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        record = with_undo(WRITE, fd, &file, offset, length, offset, offset + length, 0);
        record->flags |= WAS_HOLE;
    } else {
        record = begin(ALLOCATE, file.st_ino, end, 0, file.st_size, 0, 0);
    }
    publish(record);
    int done = ended(record, syscall(SYS_fallocate, fd, mode, offset, length));
    unlock();
    return done;
}

/* From one descriptor to another: where it writes is what counts. */
static ssize_t do_copy(int number, int from, off_t *from_at, int to, off_t *to_at, size_t bytes, unsigned flags) {
    struct stat file;
    char path[PATH_BYTES];
    int watching = watched(to, &file, path, 0);
    if (watching && refused(OP_WRITE, path)) return -1;
    if (watching && header->flags & KEEP_DATA) { errno = ENOSYS; return -1; }     /* its caller will write instead */
    Record *record = NULL;
    if (watching) {
        lock();
        if (fstat(to, &file)) die("a file that is written");
        off_t at = to_at ? *to_at : lseek(to, 0, SEEK_CUR);
        record = with_undo(WRITE, to, &file, at, bytes, at, at + bytes, 0);
        publish(record);
    }
    ssize_t done = number == SYS_sendfile ? syscall(number, to, from, from_at, bytes)
                                          : syscall(number, from, from_at, to, to_at, bytes, flags);
    if (watching) { ended(record, done); unlock(); }
    return done;
}

ssize_t write(int fd, const void *data, size_t bytes) {
    return do_write(fd, &(struct iovec){(void *)data, bytes}, 1, AT_POSITION, 0, 0);
}
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    return do_write(fd, &(struct iovec){(void *)data, bytes}, 1, AT_OFFSET, offset, 0);
}
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return pwrite(fd, data, bytes, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return do_write(fd, parts, count, AT_POSITION, 0, 0);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return do_write(fd, parts, count, AT_OFFSET, offset, 0);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) {
    return do_write(fd, parts, count, AT_OFFSET, offset, 0);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return do_write(fd, parts, count, offset == -1 ? AT_POSITION : AT_OFFSET, offset, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return pwritev2(fd, parts, count, offset, flags);
}
int ftruncate(int fd, off_t length) { return do_truncate(fd, length); }
int ftruncate64(int fd, off_t length) { return do_truncate(fd, length); }
int truncate(const char *path, off_t length) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int done = do_truncate(fd, length), error = errno;
    close(fd);
    errno = error;
    return done;
}
int truncate64(const char *path, off_t length) { return truncate(path, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) { return do_allocate(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off_t offset, off_t length) { return do_allocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) {
    int before = errno, done = do_allocate(fd, 0, offset, length) ? errno : 0;
    errno = before;
    return done;
}
int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t bytes, unsigned flags) {
    return do_copy(SYS_copy_file_range, from, from_at, to, to_at, bytes, flags);
}
ssize_t sendfile(int to, int from, off_t *from_at, size_t bytes) {
    return do_copy(SYS_sendfile, from, from_at, to, NULL, bytes, 0);
}
ssize_t sendfile64(int to, int from, off64_t *from_at, size_t bytes) { return sendfile(to, from, from_at, bytes); }

/* Changes of names */

/* Under the lock: what loses this name stays reachable. */
static void bury(const Place *place) {
    if (!S_ISREG(place->found.st_mode)) return;
    char grave[PATH_BYTES + 32];
    snprintf(grave, sizeof grave, "%s/%lu", header->grave, (unsigned long)place->found.st_ino);
    if (syscall(SYS_linkat, place->fd, place->name, AT_FDCWD, grave, 0) && errno != EEXIST) die("burying a file");
}

static Record *named(int kind, ino_t inode, ino_t a, ino_t b, ino_t c, const char *first, const char *second) {
    Record *record = begin(kind, inode, a, b, c, strlen(first), strlen(second));
    memcpy(payload(record, 0), first, record->first);
    memcpy(payload(record, 1), second, record->second);
    publish(record);
    return record;
}

static int do_open(int folder, const char *path, int flags, mode_t mode) {
    Place place;
    int changes = (flags & O_CREAT || (flags & O_TRUNC && (flags & O_ACCMODE) != O_RDONLY))
        && (flags & O_TMPFILE) != O_TMPFILE && !(flags & O_PATH);
    if (!changes || !find(&place, folder, path)) return syscall(SYS_openat, folder, path, flags, mode);
    int fd = -1;
    if (!refused(OP_NAME, place.path)) {
        lock();
        place.exists = fstatat(place.fd, place.name, &place.found, AT_SYMLINK_NOFOLLOW) == 0;
        Record *record = NULL;
        if (!place.exists && flags & O_CREAT) {
            record = named(CREATE, 0, place.inode, 0, 0, place.name, "");
        } else if (place.exists && flags & O_TRUNC && !(flags & O_EXCL) && S_ISREG(place.found.st_mode)
                   && place.found.st_size) {
            int reader = syscall(SYS_openat, place.fd, place.name, O_RDONLY | O_CLOEXEC);
            if (reader < 0) die("a file that is emptied");
            record = with_undo(TRUNCATE, reader, &place.found, 0, 0, 0, place.found.st_size, 0);
            close(reader);
            publish(record);
        }
        fd = syscall(SYS_openat, folder, path, flags, mode);
        if (record) {
            struct stat made;
            if (fd >= 0 && fstat(fd, &made) == 0) record->inode = made.st_ino;
            ended(record, fd < 0 ? -1 : 0);
        }
        unlock();
    }
    leave(&place);
    return fd;
}

static int do_mkdir(int folder, const char *path, mode_t mode) {
    Place place;
    if (!find(&place, folder, path)) return syscall(SYS_mkdirat, folder, path, mode);
    int done = -1;
    if (!refused(OP_NAME, place.path)) {
        lock();
        Record *record = named(MKDIR, 0, place.inode, 0, 0, place.name, "");
        done = syscall(SYS_mkdirat, folder, path, mode);
        int error = errno;
        if (done == 0 && fstatat(place.fd, place.name, &place.found, AT_SYMLINK_NOFOLLOW) == 0)
            record->inode = place.found.st_ino;
        errno = error;
        ended(record, done);
        unlock();
    }
    leave(&place);
    return done;
}

static int do_unlink(int folder, const char *path, int flags) {
    Place place;
    if (!find(&place, folder, path)) return syscall(SYS_unlinkat, folder, path, flags);
    int done = -1;
    if (!followed(&place)) {
        done = syscall(SYS_unlinkat, folder, path, flags);
    } else if (!refused(OP_NAME, place.path)) {
        lock();
        if (fstatat(place.fd, place.name, &place.found, AT_SYMLINK_NOFOLLOW) == 0) bury(&place);
        Record *record = named(UNLINK, place.found.st_ino, place.inode, 0, 0, place.name, "");
        done = ended(record, syscall(SYS_unlinkat, folder, path, flags));
        unlock();
    }
    leave(&place);
    return done;
}

static int do_rename(int from, const char *old, int to, const char *new, unsigned flags) {
    Place one, two;
    find(&one, from, old);
    find(&two, to, new);
    int done = -1;
    if ((one.fd < 0 && two.fd < 0) || (one.fd >= 0 && !followed(&one))) {
        done = syscall(SYS_renameat2, from, old, to, new, flags);
    } else if (!refused(OP_NAME, one.fd >= 0 ? one.path : two.path)) {
        lock();
        Record *record;
        if (one.fd < 0 || two.fd < 0 || flags & ~RENAME_NOREPLACE) {
            record = named(FOREIGN, 0, 0, 0, 0, old, new);     /* log.py gives up at this */
        } else {
            two.exists = fstatat(two.fd, two.name, &two.found, AT_SYMLINK_NOFOLLOW) == 0;
            if (two.exists && two.found.st_ino != one.found.st_ino) bury(&two);
            record = named(RENAME, one.found.st_ino, one.inode, two.inode, 0, one.name, two.name);
        }
        done = ended(record, syscall(SYS_renameat2, from, old, to, new, flags));
        unlock();
    }
    leave(&one);
    leave(&two);
    return done;
}

static int do_link(int from, const char *old, int to, const char *new, int flags) {
    Place place;
    if (!find(&place, to, new)) return syscall(SYS_linkat, from, old, to, new, flags);
    int done = -1;
    if (!refused(OP_NAME, place.path)) {
        lock();
        Record *record = named(LINK, 0, place.inode, 0, 0, place.name, "");
        done = syscall(SYS_linkat, from, old, to, new, flags);
        int error = errno;
        if (done == 0 && fstatat(place.fd, place.name, &place.found, AT_SYMLINK_NOFOLLOW) == 0)
            record->inode = place.found.st_ino;
        errno = error;
        ended(record, done);
        unlock();
    }
    leave(&place);
    return done;
}

static mode_t mode_of(int flags, va_list more) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
}

#define WITH_MODE(call) va_list more; va_start(more, flags); mode_t mode = mode_of(flags, more); va_end(more); return call

int open(const char *path, int flags, ...) { WITH_MODE(do_open(AT_FDCWD, path, flags, mode)); }
int open64(const char *path, int flags, ...) { WITH_MODE(do_open(AT_FDCWD, path, flags, mode)); }
int openat(int folder, const char *path, int flags, ...) { WITH_MODE(do_open(folder, path, flags, mode)); }
int openat64(int folder, const char *path, int flags, ...) { WITH_MODE(do_open(folder, path, flags, mode)); }
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return do_open(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return do_open(folder, path, flags, 0); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }
int mkdir(const char *path, mode_t mode) { return do_mkdir(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return do_mkdir(folder, path, mode); }
int unlink(const char *path) { return do_unlink(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return do_unlink(folder, path, flags); }
int rmdir(const char *path) { return do_unlink(AT_FDCWD, path, AT_REMOVEDIR); }
int rename(const char *old, const char *new) { return do_rename(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return do_rename(from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return do_rename(from, old, to, new, flags);
}
int link(const char *old, const char *new) { return do_link(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return do_link(from, old, to, new, flags); }

/* Syncs */

static int do_sync(int number, int fd) {
    struct stat file;
    char path[PATH_BYTES];
    if (!watched(fd, &file, path, 1)) return syscall(number, fd);
    lock();
    Record *record = begin(SYNC_BEGIN, file.st_ino, 0, 0, 0, 0, 0);
    uint64_t began = (char *)record - (char *)header;
    publish(record);
    unlock();
    int error = ruled(OP_SYNC, path);
    uint32_t delay_us = header->sync_delay_us;
    if (delay_us) nanosleep(&(struct timespec){delay_us / 1000000, delay_us % 1000000 * 1000L}, NULL);
    if (!error && header->flags & REAL_SYNC && syscall(number, fd)) error = errno;
    lock();
    record = begin(SYNC_END, file.st_ino, began, 0, 0, 0, 0);
    record->result = -error;
    publish(record);
    unlock();
    if (error) errno = error;
    return error ? -1 : 0;
}

int fsync(int fd) { return do_sync(SYS_fsync, fd); }
int fdatasync(int fd) { return do_sync(SYS_fdatasync, fd); }

/* Begins write-back, promises nothing; but it can report, once, that write-back failed. */
int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags) {
    struct stat file;
    char path[PATH_BYTES];
    if (!watched(fd, &file, path, 0)) return syscall(SYS_sync_file_range, fd, offset, bytes, flags);
    int error = ruled(OP_RANGE, path);
    if (!error) return 0;
    lock();
    Record *record = begin(SYNC_BEGIN, file.st_ino, 0, 0, 0, 0, 0);
    uint64_t began = (char *)record - (char *)header;
    publish(record);
    record = begin(SYNC_END, file.st_ino, began, 0, 0, 0, 0);
    record->result = -error;
    publish(record);
    unlock();
    errno = error;
    return -1;
}
