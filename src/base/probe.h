/* probe.h - what this machine can do at best: the yardsticks of `tessera bench`.
 *
 * Measured with the instructions of one ISA, by n_threads pinned threads at once: the best of
 * several short runs, so that other load on the machine disturbs little. */
#ifndef TS_PROBE_H
#define TS_PROBE_H

#include "base/status.h"

typedef struct ts_probe {
    double read; /* bytes/s read from memory: one stream a thread, far larger than the caches */
    double fma;  /* float operations/s in registers; a multiply-add is two                   */
    double int8; /* int8 operations/s in registers: products of 8-bit integers, summed; a product
                    and its sum are two                                                    */
    double tile_int8; /* the same of tile products (TDPBSSD); 0 where there are no tiles     */
    double tile_bf16; /* float operations/s of tile products (TDPBF16PS); 0 likewise         */
} ts_probe;

/* What a measurement needs: threads, and memory to read (256 MiB to 1 GiB, less when memory is
 * short). */
typedef struct ts_prober ts_prober;

/* The ISA is one that can run here, or TS_ISA_AUTO for the widest. TS_NO_MEMORY, TS_BAD_ARG (number
 * of threads). */
ts_status ts_prober_open(ts_prober **out, int n_threads, ts_isa isa, ts_error *err);
void ts_prober_close(ts_prober *p);

/* Measures again and keeps in *best whatever is better than what is there. A fifth of a second. */
void ts_prober_run(ts_prober *p, ts_probe *best);

/* All of it at once, for who measures only once. */
ts_status ts_probe_run(int n_threads, ts_isa isa, ts_probe *out, ts_error *err);

#endif
