/* test_pack_cache.c - the pack cache: the same logits with and without, and whatever is wrong with
 * the file or its directory is reported, never used, and made good. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/hash.h"
#include "check.h"
#include "engine.h"
#include "exec/pack_cache.h"
#include "gguf/synth.h"

#define N_TOKENS 20
#define N_PROCS  4

static char work[] = "/tmp/tessera-test-XXXXXX";
static char model[64], dir[64], file[200]; /* in it */
static float *want;                        /* [n_vocab] logits without a cache */
static size_t n_vocab;
static char said[4096]; /* warnings of the last open, and what it said about the cache */
static int n_warnings;

static void listen(void *user, ts_log_level level, const char *line)
{
    (void)user;
    if (level > TS_LOG_INFO)
        return;
    n_warnings += level <= TS_LOG_WARN;
    size_t n = strlen(said);
    snprintf(said + n, sizeof said - n, "%s\n", line);
}

static ts_engine_options options(const char *cache)
{
    ts_engine_options o;
    ts_engine_options_init(&o);
    o.isa = TS_ISA_AVX2;
    o.n_ctx = 64;
    o.n_threads = 2;
    o.log = listen;
    o.pack_cache = cache;
    return o;
}

/* Loads the model with the cache in `cache` and compares its logits with want's. */
static bool same_logits(const char *path, const char *cache)
{
    ts_error err = {0};
    ts_engine_options o = options(cache);
    ts_engine *e = NULL;
    ts_session *s = NULL;
    ts_token t[N_TOKENS];
    said[0] = 0;
    n_warnings = 0;
    for (int i = 0; i < N_TOKENS; i++)
        t[i] = (i * 37 + 11) % 250;
    bool ok = ts_engine_open(&e, path, &o, &err) == TS_OK &&
              ts_session_open(&s, e, &err) == TS_OK &&
              ts_session_eval(s, t, N_TOKENS, 1, &err) == TS_OK;
    if (ok && !want) {
        ts_engine_info info;
        ts_engine_get_info(e, &info);
        n_vocab = (size_t)info.n_vocab;
        want = malloc(n_vocab * sizeof *want);
        REQUIRE(want);
        memcpy(want, ts_session_logits(s, 0), n_vocab * sizeof *want);
    } else if (ok) {
        ok = memcmp(want, ts_session_logits(s, 0), n_vocab * sizeof *want) == 0;
    } else {
        fprintf(stderr, "%s\n", err.msg);
    }
    ts_session_close(s);
    ts_engine_close(e);
    return ok;
}

static void make_model(const char *path, uint64_t seed)
{
    ts_error err = {0};
    ts_synth_options o = {
        .arch = "llama", .preset = "tiny", .type = "Q4_K_M", .seed = seed, .n_threads = 1};
    REQUIRE(ts_synth_write(path, &o, NULL, &err) == TS_OK);
}

/* The logits to compare with from now on. */
static void take_reference(const char *path)
{
    free(want);
    want = NULL;
    REQUIRE(same_logits(path, NULL) && n_warnings == 0);
}

/* Names in dir whose end is `end`; *name is one of them. */
static int count(const char *end, char name[200])
{
    int n = 0;
    DIR *d = opendir(dir);
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name), k = strlen(end);
        if (len < k || strcmp(e->d_name + len - k, end) != 0 || e->d_name[0] == '.')
            continue;
        n++;
        if (name)
            snprintf(name, 200, "%s/%.100s", dir, e->d_name);
    }
    closedir(d);
    return n;
}

/* --- files -------------------------------------------------------------- */

static size_t size_of(const char *path)
{
    struct stat sb;
    REQUIRE(stat(path, &sb) == 0);
    return (size_t)sb.st_size;
}

static void flip(const char *path, size_t at)
{
    uint8_t b;
    int fd = open(path, O_RDWR);
    REQUIRE(fd >= 0 && pread(fd, &b, 1, (off_t)at) == 1);
    b ^= 0x80;
    REQUIRE(pwrite(fd, &b, 1, (off_t)at) == 1);
    close(fd);
}

static void copy(const char *from, const char *to)
{
    static char buf[1 << 16];
    FILE *a = fopen(from, "rb"), *b = fopen(to, "wb");
    REQUIRE(a && b);
    for (size_t n; (n = fread(buf, 1, sizeof buf, a)) > 0;)
        REQUIRE(fwrite(buf, 1, n, b) == n);
    fclose(a);
    REQUIRE(fclose(b) == 0);
}

static ts_pack_header read_header(void)
{
    ts_pack_header h;
    int fd = open(file, O_RDONLY);
    REQUIRE(fd >= 0 && pread(fd, &h, sizeof h, 0) == sizeof h);
    close(fd);
    return h;
}

/* A header that is sound by itself. */
static void write_header(ts_pack_header h)
{
    h.checksum = ts_hash64(&h, offsetof(ts_pack_header, checksum), 1);
    h.stamp_check = ts_hash64(&h.stamp, sizeof h.stamp, h.checksum);
    int fd = open(file, O_WRONLY);
    REQUIRE(fd >= 0 && pwrite(fd, &h, sizeof h, 0) == sizeof h);
    close(fd);
}

/* The file as it is now is refused with a warning that says `why`; the load gives the right logits
 * and a new file, which the next load reads. */
static void refused(const char *what, const char *why)
{
    CHECK_MSG(same_logits(model, dir), "%s: other logits", what);
    CHECK_MSG(n_warnings == 1 && strstr(said, why) && strstr(said, "wrote"), "%s: said: %s", what,
              said);
    CHECK_MSG(same_logits(model, dir), "%s: other logits from the new file", what);
    CHECK_MSG(n_warnings == 0 && strstr(said, "read the pack cache"), "%s, after: said: %s", what,
              said);
    CHECK_MSG(count("", NULL) == 1, "%s: %d files", what, count("", NULL));
}

/* --- the tests ---------------------------------------------------------- */

static void test_first(void)
{
    struct stat sb;
    CHECK(same_logits(model, dir));
    CHECK_MSG(n_warnings == 0 && strstr(said, "wrote the pack cache"), "said: %s", said);
    CHECK(stat(dir, &sb) == 0 && (sb.st_mode & 0777) == 0700);
    REQUIRE(count(".pack", file) == 1 && count("", NULL) == 1);
    CHECK(stat(file, &sb) == 0 && (sb.st_mode & 0777) == 0600);
    CHECK(strstr(file, "-avx2.pack") != NULL);
    CHECK(same_logits(model, dir));
    CHECK_MSG(n_warnings == 0 && strstr(said, "read the pack cache"), "said: %s", said);
}

static void test_flips(void)
{
    size_t n = size_of(file);
    uint64_t rnd = 5;
    char what[64];
    for (size_t at = 0; at < sizeof(ts_pack_header) + 8; at++) {
        snprintf(what, sizeof what, "byte %zu of the header", at);
        flip(file, at);
        refused(what, at < 8    ? "it is no pack cache"
                      : at < 16 ? "another version"
                                : "its header is damaged");
    }
    flip(file, TS_PACK_PAGE - 1);
    refused("the header's last byte", "its header is damaged");
    size_t places[16] = {TS_PACK_PAGE, TS_PACK_PAGE + (n - TS_PACK_PAGE) / 2, n - 1};
    for (int i = 3; i < 16; i++)
        places[i] = TS_PACK_PAGE + rnd_u64(&rnd) % (n - TS_PACK_PAGE);
    for (int i = 0; i < 16; i++) {
        snprintf(what, sizeof what, "byte %zu of %zu", places[i], n);
        flip(file, places[i]);
        refused(what, "its contents are damaged");
    }
}

static void test_sizes(void)
{
    size_t n = size_of(file), sizes[] = {0, 100, TS_PACK_PAGE, TS_PACK_PAGE + 1, n / 2, n - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        REQUIRE(truncate(file, (off_t)sizes[i]) == 0);
        refused("cut", sizes[i] < TS_PACK_PAGE ? "too short" : "truncated");
    }
    REQUIRE(truncate(file, (off_t)n + 1) == 0);
    refused("grown", "longer");
}

static void test_foreign(void)
{
    char other[64], path[200], saved[64];
    uint64_t rnd = 9, x;
    FILE *f = fopen(file, "r+b");
    REQUIRE(f);
    for (size_t i = size_of(file) / 8; i > 0; i--) {
        x = rnd_u64(&rnd);
        REQUIRE(fwrite(&x, 8, 1, f) == 1);
    }
    fclose(f);
    refused("noise", "it is no pack cache");

    /* The file of another model, whole, under this one's name. */
    snprintf(other, sizeof other, "%s/other.gguf", work);
    snprintf(saved, sizeof saved, "%s/saved", work);
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(other, "qwen2", "Q4_0", false, &err) == TS_OK);
    REQUIRE(rename(file, saved) == 0);
    ts_engine *e;
    ts_engine_options o = options(dir);
    REQUIRE(ts_engine_open(&e, other, &o, &err) == TS_OK);
    ts_engine_close(e);
    REQUIRE(count(".pack", path) == 1 && strcmp(path, file) != 0);
    REQUIRE(rename(path, file) == 0);
    refused("another model's", "it was made from another model");
    unlink(saved);
    unlink(other);

    ts_pack_header h = read_header();
    h.key.isa = TS_ISA_REF;
    write_header(h);
    refused("another ISA's", "another ISA");
    h = read_header();
    h.key.layout ^= 1;
    write_header(h);
    refused("other layouts", "or of other packed layouts");
    h = read_header();
    h.format++;
    write_header(h);
    refused("another format", "another version");
    h = read_header();
    h.key.packed -= 64;
    write_header(h);
    REQUIRE(truncate(file, (off_t)size_of(file) - 64) == 0);
    refused("another size", "or of other packed layouts");
}

/* The model file changes under the cache. */
static void test_stale(void)
{
    char moved[64], copied[64];
    snprintf(moved, sizeof moved, "%s/moved.gguf", work);
    snprintf(copied, sizeof copied, "%s/copied.gguf", work);

    /* The same bytes elsewhere are the same model; where the stamp differs they are compared once.
     */
    uint64_t stamp = read_header().stamp;
    copy(model, copied);
    for (int i = 0; i < 2; i++) {
        CHECK(same_logits(copied, dir));
        CHECK_MSG(n_warnings == 0 && strstr(said, "read the pack cache"), "said: %s", said);
        CHECK((read_header().stamp != stamp) == 1);
        stamp = i == 0 ? read_header().stamp ^ 1 : 0;
    }
    unlink(copied);
    REQUIRE(rename(model, moved) == 0);
    CHECK(same_logits(moved, dir) && n_warnings == 0);
    REQUIRE(rename(moved, model) == 0);
    CHECK(same_logits(model, dir) && n_warnings == 0);

    /* One byte of a packed weight that no sample sees. */
    ts_error err = {0};
    ts_gguf *g;
    REQUIRE(ts_gguf_open(&g, model, &err) == TS_OK);
    const ts_tensor *t = ts_gguf_tensor(g, "blk.1.ffn_up.weight");
    REQUIRE(t);
    ts_gguf_file f = ts_gguf_file_at(g, 0);
    size_t at = t->offset + t->size / 2, step = (f.size - f.data - 4096) / 63;
    while ((at - f.data) % step < 4096)
        at++;
    at += 2 - (at - t->offset) % 2; /* anywhere: Q4_K has no byte that may not change */
    ts_gguf_close(g);
    flip(model, at);
    take_reference(model);
    refused("an edit of the model", "weights in the model file have changed");

    /* Other weights in the same shapes. */
    make_model(model, 2);
    take_reference(model);
    refused("another seed", "the weights in the model file are others");
}

static void test_owners(void)
{
    char target[64];
    snprintf(target, sizeof target, "%s/target", work);
    REQUIRE(chmod(file, 0620) == 0);
    refused("writable by the group", "other users may write to it");
    REQUIRE(chmod(file, 0602) == 0);
    refused("writable by all", "other users may write to it");
    if (geteuid() == 0) {
        REQUIRE(chown(file, 12345, (gid_t)-1) == 0);
        refused("another user's", "it belongs to another user");
    }
    /* A link, even to a good file, is not followed and what it points to stays as it is. */
    REQUIRE(rename(file, target) == 0 && symlink(target, file) == 0);
    flip(target, TS_PACK_PAGE);
    size_t n = size_of(target);
    refused("a link", "it is a symbolic link");
    struct stat sb;
    CHECK(lstat(file, &sb) == 0 && S_ISREG(sb.st_mode) && size_of(target) == n);
    unlink(target);
    REQUIRE(unlink(file) == 0 && mkfifo(file, 0600) == 0);
    refused("a fifo", "it is no regular file");

    REQUIRE(unlink(file) == 0 && mkdir(file, 0700) == 0);
    CHECK(same_logits(model, dir));
    CHECK_MSG(n_warnings == 2 && strstr(said, "it is a directory") &&
                  strstr(said, "can't be written"),
              "said: %s", said);
    REQUIRE(rmdir(file) == 0);
    CHECK_MSG(count("", NULL) == 0, "%d files", count("", NULL));
    CHECK(same_logits(model, dir));
}

/* A directory that can't serve is a sentence; the model runs. */
static void test_directories(void)
{
    char path[128];
    static const struct {
        const char *name, *why;
    } cases[] = {
        {"file", "Not a directory"}, {"none/deep", "No such file"}, {"open", "other users"}};
    snprintf(path, sizeof path, "%s/file", work);
    fclose(fopen(path, "w"));
    snprintf(path, sizeof path, "%s/open", work);
    REQUIRE(mkdir(path, 0700) == 0 && chmod(path, 0777) == 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(path, sizeof path, "%s/%s", work, cases[i].name);
        CHECK(same_logits(model, path));
        CHECK_MSG(n_warnings == 1 && strstr(said, cases[i].why), "%s: said: %s", path, said);
    }
    if (geteuid() == 0) {
        REQUIRE(chmod(path, 0700) == 0 && chown(path, 12345, (gid_t)-1) == 0);
        CHECK(same_logits(model, path));
        CHECK_MSG(n_warnings == 1 && strstr(said, "another user"), "said: %s", said);
    }
    rmdir(path);
    snprintf(path, sizeof path, "%s/file", work);
    unlink(path);

    /* Nothing is packed: nothing is kept. */
    ts_error err = {0};
    ts_engine *e;
    ts_engine_options o = options(dir);
    o.isa = TS_ISA_REF;
    said[0] = 0;
    REQUIRE(unlink(file) == 0);
    REQUIRE(ts_engine_open(&e, model, &o, &err) == TS_OK);
    ts_engine_close(e);
    CHECK_MSG(strstr(said, "the ref kernel sets pack nothing"), "said: %s", said);
    CHECK(count("", NULL) == 0);
    CHECK(same_logits(model, "") && n_warnings == 0);
}

static bool stop_late(void *user, double done)
{
    (void)user;
    return done < 0.75;
}

/* A disk that is full, a user who loses patience: no half file stays. */
static void test_unwritten(void)
{
    struct rlimit old, low;
    REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
    low = old;
    low.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &low) == 0);
    bool same = same_logits(model, dir);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK(same);
    CHECK_MSG(n_warnings == 1 && strstr(said, "can't be written"), "said: %s", said);
    CHECK(count("", NULL) == 0);

    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o = options(dir);
    o.progress = stop_late;
    CHECK(ts_engine_open(&e, model, &o, &err) == TS_CANCELLED && !e);
    CHECK_MSG(count(".part", NULL) == 0, "%d unfinished files", count(".part", NULL));
    CHECK(same_logits(model, dir) && n_warnings == 0);
    CHECK(ts_engine_open(&e, model, &o, &err) == TS_CANCELLED && !e); /* while reading */
    CHECK(same_logits(model, dir) && n_warnings == 0 && strstr(said, "read the pack cache"));
}

static void test_leftovers(void)
{
    char dead[128], alive[128];
    snprintf(dead, sizeof dead, "%s/tessera-0123-avx2.pack.77-0.part", dir);
    snprintf(alive, sizeof alive, "%s/tessera-0123-avx2.pack.78-0.part", dir);
    fclose(fopen(dead, "w"));
    int fd = open(alive, O_CREAT | O_RDWR, 0600);
    REQUIRE(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK(same_logits(model, dir) && n_warnings == 0);
    CHECK(access(dead, F_OK) != 0 && access(alive, F_OK) == 0);
    close(fd);
    CHECK(same_logits(model, dir) && n_warnings == 0);
    CHECK(access(alive, F_OK) != 0);
}

/* In a process of its own: true if every one of `times` loads gave the right logits. */
static pid_t start(int times)
{
    pid_t p = fork();
    REQUIRE(p >= 0);
    if (p > 0)
        return p;
    bool ok = true;
    for (int i = 0; i < times; i++)
        ok = ok && same_logits(model, dir) && n_warnings == 0;
    if (!ok)
        fprintf(stderr, "process %d: %s\n", (int)getpid(), said);
    _exit(!ok);
}

static void test_processes(void)
{
    for (int round = 0; round < 5; round++) {
        pid_t p[N_PROCS];
        unlink(file);
        for (int i = 0; i < N_PROCS; i++)
            p[i] = start(3);
        for (int i = 0; i < N_PROCS; i++) {
            int status;
            REQUIRE(waitpid(p[i], &status, 0) == p[i]);
            CHECK_MSG(status == 0, "round %d, process %d: status %d", round, i, status);
        }
        CHECK_MSG(count("", NULL) == 1, "%d files", count("", NULL));
        CHECK(same_logits(model, dir) && strstr(said, "read the pack cache") && n_warnings == 0);
    }
    /* Writers killed at any moment. */
    uint64_t rnd = 3;
    int killed = 0, parts = 0;
    for (int round = 0; round < 40; round++) {
        unlink(file);
        pid_t p = start(1);
        usleep((useconds_t)(rnd_u64(&rnd) % 40000));
        kill(p, SIGKILL);
        int status;
        REQUIRE(waitpid(p, &status, 0) == p);
        killed += WIFSIGNALED(status) != 0;
        parts += count(".part", NULL);
        CHECK(same_logits(model, dir));
        CHECK_MSG(n_warnings == 0 && count("", NULL) == 1, "%d files, said: %s", count("", NULL),
                  said);
    }
    printf("%d of 40 writers were killed before they were done, %d left a file behind\n", killed,
           parts);
}

int main(void)
{
    if (!ts_cpu_get()->avx2) {
        printf("skipped: no kernel set here packs\n");
        return 77;
    }
    REQUIRE(mkdtemp(work));
    snprintf(model, sizeof model, "%s/m.gguf", work);
    snprintf(dir, sizeof dir, "%s/cache", work);
    make_model(model, 1);
    take_reference(model);
    test_first();
    test_flips();
    test_sizes();
    test_foreign();
    test_stale();
    test_owners();
    test_directories();
    test_unwritten();
    test_leftovers();
    test_processes();
    unlink(file);
    unlink(model);
    CHECK_MSG(rmdir(dir) == 0 && rmdir(work) == 0, "%s: %s", work, strerror(errno));
    free(want);
    return check_done("pack_cache");
}
