/* test_bad_gguf.c - every malformed file of badgguf_cases.c is refused with one printable sentence
 * that names the file and the fault, by a process that stays healthy, quick and small.
 *
 *     test_bad_gguf                the test
 *     test_bad_gguf --write DIR    writes DIR/NAME.gguf and a line "NAME LEVEL FRAGMENT" for each
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "badgguf.c"
#include "badgguf_cases.c"
#include "check.h"
#include "gguf/gguf.h"

/* For what is no verdict on the loader. REQUIRE would also stop after an earlier failed check. */
static void must(bool holds)
{
    if (holds)
        return;
    perror("test_bad_gguf");
    exit(1);
}

enum { MAX_SECONDS = 1, MAX_KB = 100 * 1000 };

static ts_status open_at(int level, const char *path, ts_error *err)
{
    if (level == BAD_FILE_LEVEL) {
        ts_gguf *g = NULL;
        ts_status st = ts_gguf_open(&g, path, err);
        if (st && g)
            abort(); /* *out belongs to success */
        ts_gguf_close(g);
        return st;
    }
    ts_engine *e = NULL;
    ts_engine_options opt;
    ts_engine_options_init(&opt);
    opt.plan_only = true;
    opt.n_threads = 1;
    ts_status st = ts_engine_open(&e, path, &opt, err);
    if (st && e)
        abort();
    ts_engine_close(e);
    return st;
}

typedef struct verdict {
    int status;    /* as wait() says; exit code 0: refused, 1: accepted */
    double cpu;    /* seconds */
    long kb;       /* most memory resident */
    char msg[512]; /* the sentence */
} verdict;

/* Opens the file in a process of its own, which also lets the leak checker look at it. */
static verdict try_open(int level, const char *path)
{
    verdict v = {.status = -1};
    int fd[2];
    must(pipe(fd) == 0);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        alarm(30);
        ts_error err = {0};
        ts_status st = open_at(level, path, &err);
        ssize_t n = write(fd[1], err.msg, strlen(err.msg));
        exit(st == TS_OK || n < 0);
    }
    close(fd[1]);
    size_t n = 0;
    while (n < sizeof v.msg - 1) {
        ssize_t got = read(fd[0], v.msg + n, sizeof v.msg - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(fd[0]);
    struct rusage u;
    must(wait4(pid, &v.status, 0, &u) == pid);
    v.cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
            1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    v.kb = u.ru_maxrss;
    return v;
}

static bool printable(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
            return false;
    return true;
}

static bool write_case(const bad_case *c, const char *path)
{
    bad_file f;
    bad_model(&f, c->level == BAD_BPE_VOCAB);
    c->spoil(&f, c);
    bool ok = bad_write(&f, path);
    bad_free(&f);
    return ok;
}

static void check_case(const bad_case *c, const char *dir)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s.gguf", dir, c->name);
    must(write_case(c, path));
    verdict v = try_open(c->level, path);
    unlink(path);
    CHECK_MSG(WIFEXITED(v.status) && WEXITSTATUS(v.status) == 0, "%s: wait status %#x, said '%s'",
              c->name, (unsigned)v.status, v.msg);
    CHECK_MSG(strstr(v.msg, path), "%s: the file isn't named: '%s'", c->name, v.msg);
    CHECK_MSG(strstr(v.msg, c->expect), "%s: no '%s' in '%s'", c->name, c->expect, v.msg);
    CHECK_MSG(printable(v.msg), "%s: '%s'", c->name, v.msg);
    CHECK_MSG(v.cpu < MAX_SECONDS, "%s: %.2f s", c->name, v.cpu);
    CHECK_MSG(v.kb < MAX_KB, "%s: %ld kB", c->name, v.kb);
}

/* What the cases start from must open, or they would prove nothing. */
static void check_valid(bool bpe, bool moe, const char *dir)
{
    char path[256];
    bad_file f;
    snprintf(path, sizeof path, "%s/valid.gguf", dir);
    bad_model(&f, bpe);
    if (moe)
        bad_moe(&f);
    must(bad_write(&f, path));
    bad_free(&f);
    for (int level = BAD_FILE_LEVEL; level <= BAD_MODEL; level++) {
        verdict v = try_open(level, path);
        CHECK_MSG(WIFEXITED(v.status) && WEXITSTATUS(v.status) == 1, "bpe %d level %d: %s", bpe,
                  level, v.msg);
        CHECK_MSG(v.kb < MAX_KB, "valid model: %ld kB", v.kb);
    }
    unlink(path);
}

static int write_all(const char *dir)
{
    static const char *const levels[] = {"file", "vocab", "vocab", "model"};
    for (size_t i = 0; i < n_bad_cases; i++) {
        const bad_case *c = &bad_cases[i];
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.gguf", dir, c->name);
        if (!write_case(c, path)) {
            perror(path);
            return 1;
        }
        printf("%s %s %s\n", c->name, levels[c->level], c->expect);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return write_all(argv[2]);
    char dir[] = "/tmp/bad_gguf_XXXXXX";
    must(mkdtemp(dir));
    check_valid(false, false, dir);
    check_valid(true, false, dir);
    check_valid(false, true, dir);
    int per_item[32] = {0};
    for (size_t i = 0; i < n_bad_cases; i++) {
        check_case(&bad_cases[i], dir);
        per_item[bad_cases[i].item]++;
    }
    rmdir(dir);
    printf("bad_gguf: %zu files;", n_bad_cases);
    for (int item = 17; item <= 22; item++) {
        CHECK(per_item[item] > 0);
        printf(" item %d: %d", item, per_item[item]);
    }
    printf("\n");
    return check_done("bad_gguf");
}
