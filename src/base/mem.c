/* mem.c - memory from libc and from the kernel, and how much there is. */
#include "base/mem.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *ts_calloc(size_t n, size_t size)
{
    return calloc(n ? n : 1, size ? size : 1);
}

#define HUGE_PAGE ((size_t)2 << 20)

void *ts_map(size_t size)
{
    if (size == 0)
        size = 1;
    /* A huge page lies on a multiple of its size, which older kernels don't choose by themselves:
     * take more and give back what is in front and behind. */
    size_t spare = size >= HUGE_PAGE ? HUGE_PAGE : 0, page = (size_t)sysconf(_SC_PAGESIZE), all;
    if (ts_add_overflow(size, spare + page - 1, &all))
        return NULL;
    all = all / page * page;
    uint8_t *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (!spare)
        return p;
    size_t front = (size_t)(-(uintptr_t)p % HUGE_PAGE), back = spare - front;
    if (front)
        munmap(p, front);
    if (back)
        munmap(p + (all - back), back);
    p += front;
    /* Only advice: without transparent huge pages this fails and 4 KB pages serve. */
    madvise(p, size, MADV_HUGEPAGE);
    return p;
}

void ts_unmap(void *p, size_t size)
{
    if (p)
        munmap(p, size ? size : 1);
}

/* The number after `key` in a "Key:   123 kB" file, or the file's only number when key is NULL;
 * 0 if absent or "max". */
static uint64_t read_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    char line[256];
    uint64_t v = 0;
    size_t n = key ? strlen(key) : 0;
    while (fgets(line, sizeof line, f)) {
        if (key && strncmp(line, key, n) != 0)
            continue;
        v = strtoull(line + n, NULL, 10);
        break;
    }
    fclose(f);
    return v;
}

/* The memory controller's limit and use for this process's cgroup (v2), 0 = no limit. Every
 * ancestor limits too; the tightest counts. */
static void cgroup_limit(uint64_t *limit, uint64_t *room)
{
    *limit = *room = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f)
        return;
    char line[512], dir[600] = "";
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = 0;
            snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", line + 3);
        }
    fclose(f);
    while (strlen(dir) >= strlen("/sys/fs/cgroup")) {
        char path[700];
        snprintf(path, sizeof path, "%s/memory.max", dir);
        uint64_t max = read_number(path, NULL);
        snprintf(path, sizeof path, "%s/memory.current", dir);
        uint64_t cur = read_number(path, NULL);
        if (max && (!*limit || max < *limit))
            *limit = max;
        if (max && (!*room || max - (cur < max ? cur : max) < *room))
            *room = max - (cur < max ? cur : max);
        char *slash = strrchr(dir, '/');
        if (!slash)
            break;
        *slash = 0;
    }
}

uint64_t ts_mem_total(void)
{
    uint64_t limit, room, total = read_number("/proc/meminfo", "MemTotal:") * 1024;
    cgroup_limit(&limit, &room);
    return limit && limit < total ? limit : total;
}

uint64_t ts_mem_available(void)
{
    uint64_t limit, room, avail = read_number("/proc/meminfo", "MemAvailable:") * 1024;
    cgroup_limit(&limit, &room);
    return limit && room < avail ? room : avail;
}

/* Room for n more bytes and a NUL. */
static bool sb_reserve(ts_sb *b, size_t n)
{
    size_t need;
    if (b->failed || ts_add_overflow(b->n, n, &need) || ts_add_overflow(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *s = realloc(b->s, cap);
    if (!s) {
        b->failed = true;
        return false;
    }
    b->s = s;
    b->cap = cap;
    return true;
}

void ts_sb_add(ts_sb *b, const void *p, size_t n)
{
    if (!sb_reserve(b, n))
        return;
    if (n)
        memcpy(b->s + b->n, p, n);
    b->n += n;
    b->s[b->n] = 0;
}

void ts_sb_str(ts_sb *b, const char *s)
{
    ts_sb_add(b, s, strlen(s));
}

void ts_sb_printf(ts_sb *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        b->failed = true;
    else if (sb_reserve(b, (size_t)n)) {
        vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void ts_sb_json_str(ts_sb *b, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    ts_sb_str(b, "\"");
    for (size_t i = 0; i < n;) {
        size_t len = ts_utf8_decode(s + i, n - i, NULL);
        if (len == 0) {
            ts_sb_str(b, "\xef\xbf\xbd");
            i++;
            continue;
        }
        if (p[i] == '"' || p[i] == '\\')
            ts_sb_printf(b, "\\%c", p[i]);
        else if (p[i] == '\n')
            ts_sb_str(b, "\\n");
        else if (p[i] == '\t')
            ts_sb_str(b, "\\t");
        else if (p[i] < 0x20 || p[i] == 0x7f)
            ts_sb_printf(b, "\\u%04x", p[i]);
        else
            ts_sb_add(b, p + i, len);
        i += len;
    }
    ts_sb_str(b, "\"");
}

void ts_sb_free(ts_sb *b)
{
    free(b->s);
    *b = (ts_sb){0};
}
