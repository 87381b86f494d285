/* test_load.c - memory after a load, packed or from the pack cache: one copy of the weights is
 * resident, and it lies on huge pages where the system has them. */
#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cpu.h"
#include "check.h"
#include "engine.h"
#include "exec/cpu.h"
#include "gguf/synth.h"

#define MB 1000000.0

/* Bytes after "KEY:" in /proc/self/status. */
static double status_bytes(const char *key)
{
    char line[256];
    double kb = -1;
    FILE *f = fopen("/proc/self/status", "r");
    REQUIRE(f);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            kb = strtod(line + strlen(key), NULL);
    fclose(f);
    REQUIRE(kb >= 0);
    return kb * 1024;
}

static double resident(void)
{
    return status_bytes("RssAnon:") + status_bytes("RssFile:");
}

/* Bytes on huge pages of the mapping that p lies in. */
static double huge_bytes(const void *p)
{
    char line[512];
    bool in = false;
    double kb = 0;
    FILE *f = fopen("/proc/self/smaps", "r");
    REQUIRE(f);
    while (fgets(line, sizeof line, f)) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
            in = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (in && strncmp(line, "AnonHugePages:", 14) == 0)
            kb += strtod(line + 14, NULL);
    }
    fclose(f);
    return kb * 1024;
}

static bool have_huge_pages(void)
{
    char s[128] = "";
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (!f)
        return false;
    bool ok = fgets(s, sizeof s, f) && !strstr(s, "[never]");
    fclose(f);
    return ok;
}

/* In a process of its own: what the generator leaves in the heap is not the engine's. */
static void write_model(const char *path)
{
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ts_synth_options o = {.arch = "llama", .preset = "1b", .type = "Q4_0", .seed = 1};
        _exit(ts_synth_write(path, &o, NULL, NULL) != TS_OK);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
}

/* With a cache that holds the model (`cached`), or none. */
static void test_memory(const char *path, const char *cache, bool cached)
{
    ts_error err = {0};
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_AVX2;
    o.pack_cache = cache;
    double before = resident();
    ts_engine *e;
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    double grown = resident() - before, packed = (double)e->plan.dev[0].packed;
    double huge = huge_bytes(e->devices.dev[0]->packed);
    printf("%s: packed %.0f MB, resident %.0f MB, on huge pages %.0f MB, load %.2f s\n",
           !cache   ? "no cache"
           : cached ? "cache read"
                    : "cache written",
           packed / MB, grown / MB, huge / MB, e->load_seconds);
    CHECK_MSG(grown <= 1.1 * packed, "%.0f MB resident for %.0f MB of packed weights", grown / MB,
              packed / MB);
    CHECK_MSG(grown >= packed, "%.0f MB resident", grown / MB);
    if (have_huge_pages())
        CHECK_MSG(huge >= 0.5 * packed, "%.0f of %.0f MB on huge pages", huge / MB, packed / MB);
    else
        printf("transparent huge pages are off here\n");
    ts_engine_close(e);
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__)
    printf("skipped: a sanitizer's shadow memory counts too\n");
    return 77;
#endif
    if (!ts_cpu_get()->avx2) {
        printf("skipped: no kernel set here packs\n");
        return 77;
    }
    char path[] = "/tmp/tessera-test-XXXXXX";
    struct statvfs fs;
    if (statvfs("/tmp", &fs) == 0 && (double)fs.f_bavail * (double)fs.f_frsize < 3000 * MB) {
        printf("skipped: no 3 GB of disk for a model and its cache\n");
        return 77;
    }
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    write_model(path);
    test_memory(path, NULL, false);
    char cache[] = "/tmp/tessera-test-XXXXXX", file[300] = "";
    REQUIRE(mkdtemp(cache));
    test_memory(path, cache, false);
    test_memory(path, cache, true);
    DIR *d = opendir(cache);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            snprintf(file, sizeof file, "%s/%s", cache, e->d_name);
    closedir(d);
    CHECK(unlink(file) == 0 && rmdir(cache) == 0);
    unlink(path);
    return check_done("load");
}
