/* test_cpu_denied.c - the kernel refuses the tiles: a seccomp filter makes arch_prctl answer EPERM,
 * as container runtimes and strict sandboxes do. The next kernel set serves and the log says why.
 * Then a second filter ends the process on any further request: it is made once, never while
 * computing. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpu.h"
#include "check.h"
#include "gguf/synth.h"

#if defined(__x86_64__)

#define REQ_XCOMP_PERM 0x1023

/* The action for arch_prctl(ARCH_REQ_XCOMP_PERM, ...); everything else is allowed. */
static bool filter(unsigned action)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, REQ_XCOMP_PERM, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {sizeof code / sizeof code[0], code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

typedef struct lines {
    int n;
    char text[1024]; /* of the last that says which sets serve */
} lines;

static void keep(void *user, ts_log_level level, const char *line)
{
    lines *l = user;
    if (level == TS_LOG_INFO && strstr(line, "kernel sets up to")) {
        l->n++;
        snprintf(l->text, sizeof l->text, "%s", line);
    }
}

/* A CPU with every bit set, asking this machine's kernel. */
static void test_detection(void)
{
    ts_cpu c = {0};
    ts_cpu_raw raw = ts_cpu_ask();
    raw.leaf1_c = raw.leaf7_b = raw.leaf7_c = raw.leaf7_d = raw.leaf7_1_a = UINT32_MAX;
    raw.xcr0 = UINT64_MAX;
    ts_cpu_detect(&c, &raw);
    CHECK(c.avx512 && !c.amx && c.tiles_asked && c.tiles_errno == EPERM);
    CHECK_MSG(strstr(c.why_amx, strerror(EPERM)), "%s", c.why_amx);
    lines l = {0};
    ts_log log = {keep, &l};
    ts_isa isa;
    ts_error err = {0};
    CHECK(ts_isa_choose(&c, NULL, TS_ISA_AUTO, false, &log, &isa, &err) == TS_OK &&
          isa == TS_ISA_AVX512);
    CHECK_MSG(l.n == 1 && strstr(l.text, "up to avx512") && strstr(l.text, strerror(EPERM)), "%s",
              l.text);
    CHECK(ts_isa_choose(&c, NULL, TS_ISA_AMX, false, &log, &isa, &err) == TS_UNSUPPORTED &&
          strstr(err.msg, strerror(EPERM)));
}

/* The real machine, whatever it is, from the public interface. */
static void test_engine(const char *path)
{
    ts_error err = {0};
    ts_engine *e = NULL;
    ts_engine_options o;
    lines l = {0};
    ts_engine_options_init(&o);
    o.log = keep;
    o.log_user = &l;
    REQUIRE(ts_engine_open(&e, path, &o, &err) == TS_OK);
    ts_engine_info info;
    ts_engine_get_info(e, &info);
    CHECK_MSG(strcmp(info.isa, "amx") != 0 && l.n == 1, "%s: %s", info.isa, l.text);
    /* On a CPU with tiles it is the kernel's refusal that stands in the log. */
    const ts_cpu *c = ts_cpu_get();
    CHECK(!c->amx);
    if (c->tiles_asked)
        CHECK_MSG(strstr(l.text, strerror(EPERM)), "%s", l.text);

    REQUIRE(filter(SECCOMP_RET_KILL_PROCESS));
    ts_session *s = NULL;
    ts_token t[40] = {1, 2, 3};
    REQUIRE(ts_session_open(&s, e, &err) == TS_OK);
    CHECK(ts_session_eval(s, t, 40, 1, &err) == TS_OK);
    CHECK(ts_session_eval(s, t, 1, 1, &err) == TS_OK);
    ts_session_close(s);
    ts_engine_close(e);
    o.isa = TS_ISA_AMX;
    CHECK(ts_engine_open(&e, path, &o, &err) == TS_UNSUPPORTED && strstr(err.msg, "amx"));
}

int main(void)
{
    unsetenv("TESSERA_ISA");
    if (!filter(SECCOMP_RET_ERRNO | EPERM)) {
        fprintf(stderr, "no seccomp filters here: %s\n", strerror(errno));
        return 77;
    }
    char path[] = "/tmp/tessera-test-XXXXXX";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    ts_error err = {0};
    REQUIRE(ts_synth_tiny(path, "llama", "Q4_K_M", false, &err) == TS_OK);
    test_detection();
    test_engine(path);
    unlink(path);
    return check_done("cpu_denied");
}
#else
int main(void)
{
    return 77;
}
#endif
