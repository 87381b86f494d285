/* kv_file.h - the known pages of a session's KV cache, in a file.
 *
 * The file (little-endian):
 *
 *     0    header: magic, the key of what it belongs to, how many pages, bytes of a page's K and V,
 * checksum
 *     ...  pages, parents before their children: number of the parent in this file or -1, the
 *          tokens, K and V of every layer as F16 (backend.h, kv_get), checksum of all of these
 *
 * The key is of the model's file, wherever it lies, and of all that K and V depend on besides: so
 * what was saved by one kernel set, or one split, serves others. Pages whose values F16 doesn't
 * hold are left out. The checksums find accidents, not a forger; a file that isn't the user's own,
 * or that others may write to, is refused. */
#ifndef TS_EXEC_KV_FILE_H
#define TS_EXEC_KV_FILE_H

#include "exec/pages.h"
#include "exec/run.h"

/* As ts_session_kv_save and ts_session_kv_restore. */
ts_status ts_kv_save(const ts_run *r, const ts_pages *p, const char *path, int64_t *pages,
                     ts_error *err);
ts_status ts_kv_restore(ts_run *r, ts_pages *p, const char *path, int64_t *pages, ts_error *err);

#endif
