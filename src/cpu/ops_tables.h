/* ops_tables.h - the operation tables, one an ISA. */
#ifndef TS_OPS_TABLES_H
#define TS_OPS_TABLES_H

#include "cpu/ops.h"

extern const ts_ops ts_ops_ref, ts_ops_avx2, ts_ops_avx512, ts_ops_amx;

#endif
