/* A file system with one file, `disk`, kept in another file, whose every flush takes a given time: for a loop device on top,
 * that is a disk with this flush. Writes and reads are as quick as memory. One flush at a time, as in most disks.
 *
 * slow_flush BACKING MICROSECONDS MOUNTPOINT      needs root and libfuse 3; ends when it is unmounted
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int backing;
static off_t bytes;
static struct timespec flush_takes;
static pthread_mutex_t flushing = PTHREAD_MUTEX_INITIALIZER;

static int get_attributes(const char *path, struct stat *out, struct fuse_file_info *file) {
    (void)file;
    memset(out, 0, sizeof *out);
    if (!strcmp(path, "/")) {
        out->st_mode = S_IFDIR | 0700;
        out->st_nlink = 2;
        return 0;
    }
    if (strcmp(path, "/disk")) return -ENOENT;
    out->st_mode = S_IFREG | 0600;
    out->st_nlink = 1;
    out->st_size = bytes;
    return 0;
}

static int read_some(const char *path, char *out, size_t count, off_t offset, struct fuse_file_info *file) {
    (void)path, (void)file;
    ssize_t done = pread(backing, out, count, offset);
    return done < 0 ? -errno : (int)done;
}

static int write_some(const char *path, const char *data, size_t count, off_t offset, struct fuse_file_info *file) {
    (void)path, (void)file;
    ssize_t done = pwrite(backing, data, count, offset);
    return done < 0 ? -errno : (int)done;
}

static int flush(const char *path, int data_only, struct fuse_file_info *file) {
    (void)path, (void)data_only, (void)file;
    pthread_mutex_lock(&flushing);
    nanosleep(&flush_takes, NULL);
    pthread_mutex_unlock(&flushing);
    return 0;
}

/* The kernel sets the file's times before each fsync. */
static int set_times(const char *path, const struct timespec times[2], struct fuse_file_info *file) {
    (void)path, (void)times, (void)file;
    return 0;
}

static void *begin(struct fuse_conn_info *connection, struct fuse_config *config) {
    connection->want |= connection->capable & FUSE_CAP_WRITEBACK_CACHE;
    connection->max_write = 1 << 20;
    config->kernel_cache = 1;
    config->attr_timeout = config->entry_timeout = 3600;
    return NULL;
}

static const struct fuse_operations operations = {
    .getattr = get_attributes, .read = read_some, .write = write_some, .fsync = flush, .utimens = set_times, .init = begin,
};

int main(int count, char **given) {
    if (count != 4) return fprintf(stderr, "slow_flush BACKING MICROSECONDS MOUNTPOINT\n"), 2;
    struct stat about;
    backing = open(given[1], O_RDWR | O_CLOEXEC);
    if (backing < 0 || fstat(backing, &about)) return perror(given[1]), 1;
    bytes = about.st_size;
    long micros = atol(given[2]);
    flush_takes = (struct timespec){micros / 1000000, micros % 1000000 * 1000};
    char *arguments[] = {given[0], given[3]};
    return fuse_main(2, arguments, &operations, NULL);
}
