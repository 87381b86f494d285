/* numa.h - the machine's memory nodes, as Linux lists them. */
#ifndef TS_NUMA_H
#define TS_NUMA_H

#include "base/status.h"

#define TS_NUMA_SYSFS "/sys/devices/system/node"
enum { TS_NUMA_MAX = 64 };

typedef struct ts_numa_node {
    int id;
    char cpus[256];       /* "0-31,64-95"; "" for a node of memory alone */
    uint64_t total, free; /* bytes, 0 = unknown                          */
} ts_numa_node;

/* The nodes in `folder` (TS_NUMA_SYSFS, or another for tests) by their number, at most TS_NUMA_MAX
 * of them; their number, 0 when the system tells of none. */
int ts_numa_nodes(const char *folder, ts_numa_node out[TS_NUMA_MAX]);

#endif
