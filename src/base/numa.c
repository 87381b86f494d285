/* numa.c - sysfs: a folder node0, node1, ... for each memory node. */
#include "base/numa.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *open_file(const char *folder, int id, const char *name)
{
    char path[512];
    int n = snprintf(path, sizeof path, "%s/node%d/%s", folder, id, name);
    return n < (int)sizeof path ? fopen(path, "r") : NULL;
}

static void read_cpus(const char *folder, ts_numa_node *node)
{
    FILE *f = open_file(folder, node->id, "cpulist");
    if (!f)
        return;
    if (!fgets(node->cpus, sizeof node->cpus, f))
        node->cpus[0] = 0;
    node->cpus[strspn(node->cpus, "0123456789,-")] = 0; /* the newline, and what isn't a list */
    fclose(f);
}

/* "Node 0 MemTotal:       10709204 kB" */
static void read_memory(const char *folder, ts_numa_node *node)
{
    FILE *f = open_file(folder, node->id, "meminfo");
    if (!f)
        return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        char what[32];
        unsigned long long kib;
        if (sscanf(line, "Node %*d %31[A-Za-z]: %llu kB", what, &kib) != 2 ||
            kib > UINT64_MAX >> 10)
            continue;
        if (strcmp(what, "MemTotal") == 0)
            node->total = kib << 10;
        else if (strcmp(what, "MemFree") == 0)
            node->free = kib << 10;
    }
    fclose(f);
}

static int by_id(const void *a, const void *b)
{
    return ((const ts_numa_node *)a)->id - ((const ts_numa_node *)b)->id;
}

int ts_numa_nodes(const char *folder, ts_numa_node out[TS_NUMA_MAX])
{
    DIR *d = opendir(folder);
    int n = 0;
    if (!d)
        return 0;
    for (struct dirent *e; n < TS_NUMA_MAX && (e = readdir(d));) {
        const char *digits = e->d_name + 4;
        if (strncmp(e->d_name, "node", 4) != 0 || !*digits || strlen(digits) > 6 ||
            strspn(digits, "0123456789") != strlen(digits))
            continue;
        out[n] = (ts_numa_node){.id = atoi(digits)};
        read_cpus(folder, &out[n]);
        read_memory(folder, &out[n]);
        n++;
    }
    closedir(d);
    qsort(out, (size_t)n, sizeof *out, by_id);
    return n;
}
