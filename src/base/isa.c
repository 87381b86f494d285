/* isa.c - the kernel sets' names, and which of them serve on a machine. */
#include <stdlib.h>
#include <strings.h>

#include "base/cpu.h"

static const char *const isa_names[] = {"auto", "ref", "avx2", "avx512", "amx"};

const char *ts_isa_name(ts_isa isa)
{
    return isa_names[isa];
}

bool ts_isa_parse(const char *name, ts_isa *out)
{
    for (int i = 0; i <= TS_ISA_AMX; i++)
        if (strcasecmp(name, isa_names[i]) == 0) {
            *out = (ts_isa)i;
            return true;
        }
    return false;
}

bool ts_isa_usable(const ts_cpu *c, ts_isa isa, const char **why)
{
    const char *reason = "";
    bool usable = true;
    if (isa == TS_ISA_AVX2) {
        usable = c->avx2;
        reason = c->why_avx2;
    } else if (isa == TS_ISA_AVX512) {
        usable = c->avx512;
        reason = c->why_avx512;
    } else if (isa == TS_ISA_AMX) {
        usable = c->amx;
        reason = c->why_amx;
    }
    if (!usable && why)
        *why = reason;
    return usable;
}

static ts_isa widest(const ts_cpu *c, bool no_amx)
{
    ts_isa isa = no_amx ? TS_ISA_AVX512 : TS_ISA_AMX;
    while (isa > TS_ISA_REF && !ts_isa_usable(c, isa, NULL))
        isa--;
    return isa;
}

/* Which set serves, and why the next wider one does not. */
static void say(const ts_cpu *c, ts_isa isa, bool no_amx, const ts_log *log)
{
    const char *name = ts_isa_name(isa), *why = "";
    if (isa == TS_ISA_AMX)
        ts_logf(log, TS_LOG_INFO, "kernel sets up to %s serve", name);
    else if (no_amx && isa == TS_ISA_AVX512)
        ts_logf(log, TS_LOG_INFO, "kernel sets up to %s serve; amx is switched off", name);
    else if (!ts_isa_usable(c, isa + 1, &why))
        ts_logf(log, TS_LOG_INFO, "kernel sets up to %s serve; %s can't run here: %s", name,
                ts_isa_name(isa + 1), why);
}

ts_status ts_isa_choose(const ts_cpu *c, const char *env, ts_isa want, bool no_amx,
                        const ts_log *log, ts_isa *out, ts_error *err)
{
    if (want == TS_ISA_AMX && no_amx)
        return ts_fail(err, TS_BAD_ARG, "kernel set amx is both asked for and switched off");
    const char *from = "";
    if (want == TS_ISA_AUTO && env && *env) {
        if (!ts_isa_parse(env, &want))
            return ts_fail(err, TS_BAD_ARG,
                           "TESSERA_ISA is '%s'; it must be auto, ref, avx2, avx512 or amx", env);
        if (want == TS_ISA_AMX && no_amx) /* an option is nearer than the environment */
            want = TS_ISA_AUTO;
        else if (want != TS_ISA_AUTO)
            from = " (from TESSERA_ISA)";
    }
    if (want == TS_ISA_AUTO) {
        *out = widest(c, no_amx);
        say(c, *out, no_amx, log);
        return TS_OK;
    }
    const char *why = "";
    if (!ts_isa_usable(c, want, &why))
        return ts_fail(err, TS_UNSUPPORTED,
                       "kernel set %s%s can't run here: %s; the widest that can is %s",
                       ts_isa_name(want), from, why, ts_isa_name(widest(c, no_amx)));
    ts_logf(log, TS_LOG_INFO, "kernel sets up to %s serve, as asked for%s", ts_isa_name(want),
            from);
    *out = want;
    return TS_OK;
}

ts_status ts_isa_resolve(ts_isa want, bool no_amx, const ts_log *log, ts_isa *out, ts_error *err)
{
    return ts_isa_choose(ts_cpu_get(), getenv("TESSERA_ISA"), want, no_amx, log, out, err);
}
